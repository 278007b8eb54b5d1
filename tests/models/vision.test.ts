import { initialize, namedParameters } from '@deftjs/autograd/nn';
import {
  CLIPModel,
  CLIPVisionModel,
  CLIPVisionModelWithProjection,
  clipVisionWeights,
  clipWeights,
  Dinov2Model,
  type JsonConfig,
  loadWeights,
  renamed,
  ViTModel,
  vitWeights,
} from '@deftjs/models';
import { openWeights } from '@deftjs/models/node';
import { keyOf, randomNormal, referenceDevice, type Tensor, zeros } from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bicubicWeights, patchPositions } from '../../packages/models/src/patchPositions.ts';
import { compute, expectAgreement, openCase } from './goldenCase.ts';

/** PyTorch's float32 against exact arithmetic: tests/golden/README.md. */
const bound = 1e-4;
const device = referenceDevice();

describe('CLIPModel', () => {
  it('agrees with transformers: embeddings of pictures and texts, and their cosines', async () => {
    const golden = await openCase('clip-tiny');
    const model = new CLIPModel(golden.config);
    await using weights = await openWeights(golden.folder);
    await loadWeights(model, clipWeights(weights));
    const { imageEmbeds, textEmbeds, logitsPerImage } = model.forward(
      golden.get('in/input_ids'),
      golden.get('in/pixel_values'),
    );
    const [pictures, texts, logits] = await compute(device, [imageEmbeds, textEmbeds, logitsPerImage]);
    expectAgreement(pictures!, golden.get('out/image_embeds'), bound, 'image_embeds');
    expectAgreement(texts!, golden.get('out/text_embeds'), bound, 'text_embeds');
    expectAgreement(logits!, golden.get('out/logits_per_image'), bound, 'logits_per_image');
  });

  it('has the picture encoder that CLIPVisionModel is, with and without projection', async () => {
    const { folder, config, get } = await openCase('clip-tiny');
    await using weights = await openWeights(folder);
    const vision = config.vision_config as JsonConfig;
    const whole = new CLIPModel(config);
    await loadWeights(whole, clipWeights(weights));
    const projected = new CLIPVisionModelWithProjection(vision);
    await loadWeights(projected, only(/^vision_model\.|^visual_projection\./));
    const plain = new CLIPVisionModel(vision);
    await loadWeights(plain, clipVisionWeights(only(/^vision_model\./)));
    const pictures = get('in/pixel_values');
    const { imageEmbeds, pooled } = projected.forward(pictures);
    const [embeds, unit, token, same] = await compute(device, [
      imageEmbeds,
      whole.embedPictures(pictures),
      pooled,
      plain.forward(pictures).pooled,
    ]);
    expect(token).toEqual(same);
    const width = imageEmbeds.shape[1]!;
    for (let row = 0; row < pictures.shape[0]!; row += 1) {
      const [a, b] = [embeds!, unit!].map((values) => values.subarray(row * width, (row + 1) * width));
      const length = Math.hypot(...a!);
      expect(Math.max(...a!.map((value, i) => Math.abs(value / length - b![i]!)))).toBeLessThan(1e-7);
    }
    function only(names: RegExp) {
      return renamed(weights, (name) => (names.test(name) ? name : null));
    }
  });
});

describe.each([
  ['dinov2-tiny', Dinov2Model],
  ['dino-vit-tiny', ViTModel],
] as const)('%s', (name, Model) => {
  it('agrees with transformers', async () => {
    const golden = await openCase(name);
    const model = new Model(golden.config);
    await using weights = await openWeights(golden.folder);
    await loadWeights(model, vitWeights(weights));
    const [hidden] = await compute(device, [model.forward(golden.get('in/pixel_values'))]);
    expectAgreement(hidden!, golden.get('out/last_hidden_state'), bound, 'last_hidden_state');
  });

  it('takes pictures of other sizes, whole patches of them', async () => {
    const { config } = await openCase(name);
    const model = new Model(config);
    initialize(model, 3);
    const patch = model.config.patchSize;
    const tokens = model.forward(randomNormal(keyOf(5), [1, 3, 3 * patch, 6 * patch + 1]));
    expect(tokens.shape).toEqual([1, 1 + 3 * 6, model.config.width]);
    const [values] = await compute(device, [tokens]);
    expect(values!.every(Number.isFinite)).toBe(true);
  });

  it('refuses pictures of other channels or without a patch, and what it does not compute', async () => {
    const { config } = await openCase(name);
    const model = new Model(config);
    expect(() => model.forward(zeros([1, 1, 28, 28]))).toThrow(
      /expected pictures \[B, 3, H, W\] with H and W at least 7; got \[1, 1, 28, 28\]/,
    );
    expect(() => model.forward(zeros([1, 3, 28, 6]))).toThrow(/at least 7; got \[1, 3, 28, 6\]/);
    expect(() => new Model({ ...config, hidden_act: 'relu' })).toThrow(
      'hidden_act: not supported; expected "gelu"; got "relu"',
    );
    expect(() => new Model({ ...config, patch_size: 0 })).toThrow('patch_size: expected 1 to image_size');
  });
});

it('a ViT file with a pooler loads without it', async () => {
  const { folder, config } = await openCase('dino-vit-tiny');
  await using weights = await openWeights(folder);
  const model = new ViTModel(config);
  await loadWeights(model, vitWeights({ ...weights, names: [...weights.names, 'pooler.dense.weight'] }));
  expect([...namedParameters(model).values()].every((parameter) => parameter.hasValue)).toBe(true);
});

describe('positions between the learned ones', () => {
  const sizes = fc.integer({ min: 1, max: 12 });

  it('are weighted means: rows sum to one, and the mirror image of the other end', () => {
    fc.assert(
      fc.property(sizes, sizes, (from, to) => {
        const weights = bicubicWeights(from, to);
        for (let i = 0; i < to; i += 1) {
          const row = weights.subarray(i * from, (i + 1) * from);
          const mirrored = weights.subarray((to - 1 - i) * from, (to - i) * from).toReversed();
          expect(row.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 6);
          row.forEach((weight, k) => {
            expect(weight).toBeCloseTo(mirrored[k]!, 6);
          });
        }
      }),
    );
  });

  it('are the learned ones where the grid is the same', () => {
    fc.assert(
      fc.property(sizes, (size) => {
        const weights = bicubicWeights(size, size);
        for (let i = 0; i < size * size; i += 1) {
          expect(weights[i]).toBe(Math.floor(i / size) === i % size ? 1 : 0);
        }
      }),
    );
  });

  it('at a quarter of the way have four weights of a cubic kernel', () => {
    // u = 2.25 for place 5 of 16 over 8: the kernel at 1.25, 0.25, 0.75 and 1.75 with a = -3/4, by hand.
    const row = bicubicWeights(8, 16).subarray(5 * 8, 6 * 8);
    const expected = [0, -0.10546875, 0.87890625, 0.26171875, -0.03515625, 0, 0, 0];
    expected.forEach((weight, k) => {
      expect(row[k]).toBeCloseTo(weight, 7);
    });
  });

  it('leave the class token alone, and are untouched for the size that was learned', async () => {
    const learned = randomNormal(keyOf(8), [1, 1 + 9, 4]);
    const spread = patchPositions(learned, 5, 2);
    const [before, after] = await compute(device, [learned, spread]);
    expect(spread.shape).toEqual([1, 11, 4]);
    expect(after!.slice(0, 4)).toEqual(before!.slice(0, 4));
    const same: Tensor = patchPositions(learned, 3, 3);
    expect(same).toBe(learned);
  });
});
