/** `deft score`: its arithmetic against hand-made vectors and the models themselves, and what it refuses. */
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { initialize, stateOf } from '@deftjs/autograd/nn';
import { CLIPModel, imageProcessor } from '@deftjs/models';
import { openClipTokenizer } from '@deftjs/models/node';
import { read, referenceDevice, setDevice, tensor, writeSafetensors } from '@deftjs/tensor';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { type Recipe, withRecipe } from '../../packages/trainer/src/base/recipe.ts';
import { scoreFolder } from '../../packages/trainer/src/base/score.ts';
import { decodePicture } from '../../packages/trainer/src/data/index.ts';
import { alignment, likeness } from '../../packages/trainer/src/metrics/index.ts';

const golden = fileURLToPath(new URL('../golden', import.meta.url));
const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-score-'));
const at = (...names: string[]): string => join(root, ...names);
let lines: string[] = [];

const preprocessor = {
  do_resize: true,
  size: { shortest_edge: 28 },
  resample: 3,
  do_center_crop: true,
  crop_size: { height: 28, width: 28 },
  do_rescale: true,
  do_normalize: true,
  image_mean: [0.5, 0.5, 0.5],
  image_std: [0.25, 0.25, 0.25],
};

const json = (path: string, value: unknown): void => fs.writeFileSync(path, JSON.stringify(value));

async function pictures(folder: string, colours: readonly string[], captioned = true): Promise<void> {
  fs.mkdirSync(at(folder));
  for (const [i, background] of colours.entries()) {
    const image = sharp({ create: { width: 40, height: 30 + i, channels: 3, background } });
    const dot = await sharp({ create: { width: 9, height: 9, channels: 3, background: '#fff' } })
      .png()
      .toBuffer();
    await image
      .composite([{ input: dot, left: 3 * i, top: 5 }])
      .png()
      .toFile(at(folder, `${i}.png`));
    if (captioned) fs.writeFileSync(at(folder, `${i}.txt`), `a ${background} thing\n`);
  }
}

const newClip = (): CLIPModel => {
  const config = JSON.parse(fs.readFileSync(at('clip/config.json'), 'utf8'));
  const model = new CLIPModel(config);
  initialize(model, 3);
  return model;
};

beforeAll(async () => {
  setDevice(referenceDevice());
  vi.spyOn(console, 'error').mockImplementation(() => {});
  vi.spyOn(console, 'log').mockImplementation((line) => void lines.push(String(line)));
  const tokenizer = join(golden, 'sd-tiny-pipeline/tokenizer');
  const { length } = await openClipTokenizer(tokenizer);
  const words = JSON.parse(fs.readFileSync(join(tokenizer, 'vocab.json'), 'utf8'));
  fs.cpSync(join(golden, 'clip-tiny'), at('clip'), { recursive: true });
  const config = JSON.parse(fs.readFileSync(at('clip/config.json'), 'utf8'));
  Object.assign(config.text_config, {
    vocab_size: Object.keys(words).length,
    max_position_embeddings: length,
    eos_token_id: words['<|endoftext|>'],
  });
  json(at('clip/config.json'), config);
  json(at('clip/preprocessor_config.json'), preprocessor);
  fs.cpSync(tokenizer, at('clip'), { recursive: true });
  const entries = Object.entries(stateOf(newClip())).map(async ([name, value]) => {
    return [name, { dtype: 'f32', shape: value.shape, data: Float32Array.from(await read(value)) }] as const;
  });
  fs.writeFileSync(
    at('clip/model.safetensors'),
    writeSafetensors(Object.fromEntries(await Promise.all(entries))),
  );
  for (const name of ['dinov2-tiny', 'dino-vit-tiny']) {
    fs.cpSync(join(golden, name), at(name), { recursive: true });
    json(at(name, 'preprocessor_config.json'), preprocessor);
  }
  await pictures('drawn', ['red', 'green', 'blue']);
  await pictures('real', ['maroon', 'olive']);
  await pictures('bare', ['red'], false);
});
afterAll(() => {
  vi.restoreAllMocks();
  fs.rmSync(root, { recursive: true });
});

async function score(folder: string, encoders: readonly string[], against: string | null = null) {
  lines = [];
  const request = { encoders: encoders.map((name) => at(name)), against: against && at(against) };
  await scoreFolder(at(folder), { ...request, device: 'reference', json: at('scores.json') });
  const { scores } = JSON.parse(fs.readFileSync(at('scores.json'), 'utf8'));
  return scores as { metric: string; encoder: string; value: { mean: number; number: number } }[];
}

describe('the arithmetic', () => {
  const unit = (...degrees: number[]) =>
    degrees.map((angle) =>
      Float64Array.of(Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)),
    );

  it('of CLIP-T compares each picture with its own caption', () => {
    const [first, second] = alignment(unit(0, 90), unit(60, 90));
    expect(first).toBeCloseTo(0.5, 12);
    expect(second).toBeCloseTo(1, 12);
  });

  it('of likeness is the mean over all real pictures', () => {
    expect(likeness(unit(0), unit(0, 60, 90))[0]).toBeCloseTo((1 + 0.5 + 0) / 3, 12);
  });
});

describe('deft score', () => {
  it('gives what the model itself gives for pictures and captions', async () => {
    const [clipT, clipI, distance] = await score('drawn', ['clip'], 'real');
    expect([clipT!.metric, clipI!.metric, distance!.metric]).toEqual([
      'CLIP-T',
      'CLIP-I',
      'Fréchet distance',
    ]);
    const model = newClip();
    const tokenizer = await openClipTokenizer(at('clip'));
    const prepare = imageProcessor(preprocessor);
    const seen = async (folder: string, count: number) => {
      const files = Array.from({ length: count }, (_, i) => fs.readFileSync(at(folder, `${i}.png`)));
      return prepare(await Promise.all(files.map((bytes) => decodePicture(bytes))));
    };
    const ids = ['red', 'green', 'blue'].flatMap((colour) => tokenizer.encode(`a ${colour} thing`));
    const texts = tensor(Int32Array.from(ids), [3, tokenizer.length]);
    const { imageEmbeds, textEmbeds } = model.forward(texts, await seen('drawn', 3));
    const [a, b, c] = [
      await read(imageEmbeds),
      await read(textEmbeds),
      await read(model.embedPictures(await seen('real', 2))),
    ];
    const dot = (x: ArrayLike<number>, i: number, y: ArrayLike<number>, j: number): number =>
      Array.from({ length: 24 }, (_, k) => x[24 * i + k]! * y[24 * j + k]!).reduce((s, v) => s + v);
    expect(clipT!.value.mean).toBeCloseTo((dot(a, 0, b, 0) + dot(a, 1, b, 1) + dot(a, 2, b, 2)) / 3, 6);
    const pairs = [0, 1, 2].flatMap((i) => [0, 1].map((j) => dot(a, i, c, j)));
    expect(clipI!.value.mean).toBeCloseTo(pairs.reduce((s, v) => s + v) / 6, 6);
    expect(lines.find((line) => line.startsWith('CLIP-T'))).toMatch(
      /^CLIP-T -?\d\.\d\d ± \d\.\d\d \(CLIP, 3 pictures\)$/,
    );
  });

  it('finds a set alike to itself as its pictures are to each other, and no distance', async () => {
    for (const name of ['dinov2-tiny', 'dino-vit-tiny']) {
      const [same, distance] = await score('drawn', [name], 'drawn');
      expect(same!.metric).toBe(`${name === 'dinov2-tiny' ? 'DINOv2' : 'DINO'} similarity`);
      expect(same!.value.mean).toBeLessThanOrEqual(1);
      expect(same!.value.mean).toBeGreaterThan(1 / 3); // each is one of the three
      expect(Math.abs(distance!.value.mean)).toBeLessThan(1e-6);
      const [other] = await score('drawn', [name], 'real');
      expect(other!.value.mean).not.toBeCloseTo(same!.value.mean, 3);
    }
  });

  it('takes the prompt of the recipe that a picture holds for its caption', async () => {
    const png = fs.readFileSync(at('bare/0.png'));
    const recipe: Recipe = {
      format: 1,
      version: '0.1.0',
      kind: 'picture',
      model: 'world-base',
      weights: '0'.repeat(64),
      prompts: ['a red thing'],
      seeds: [1],
      steps: 2,
      guidance: 3,
      inputs: [],
      imageGuidance: 1.5,
      strength: 1,
      width: 40,
      height: 30,
      device: 'wasm',
      adapter: '2 threads',
    };
    fs.mkdirSync(at('recipe'));
    fs.writeFileSync(at('recipe/0.png'), withRecipe(png, recipe));
    fs.cpSync(at('recipe'), at('text'), { recursive: true });
    fs.writeFileSync(at('text/0.png'), png);
    fs.writeFileSync(at('text/0.txt'), 'a red thing');
    expect(await score('recipe', ['clip'])).toEqual(await score('text', ['clip']));
    expect(await score('recipe', ['clip'])).toHaveLength(1);
  });

  it('says which pictures have no caption, and does without CLIP-T', async () => {
    expect(await score('bare', ['clip'])).toEqual([]);
    expect(lines[0]).toBe(
      'CLIP-T: not measured; 0.png have no caption (a recipe inside, or a text file beside it)',
    );
  });

  it('refuses folders without pictures, damaged pictures and other models', async () => {
    fs.mkdirSync(at('empty'));
    await expect(score('empty', ['clip'])).rejects.toThrow('no PNG, JPEG or WebP pictures are here');
    await expect(score('nowhere', ['clip'])).rejects.toThrow('nowhere: no such folder');
    await expect(score('drawn', ['nowhere'])).rejects.toThrow(
      'no config.json here; expected a folder of CLIP',
    );
    fs.mkdirSync(at('damaged'));
    fs.writeFileSync(at('damaged/a.png'), 'x');
    fs.writeFileSync(at('damaged/b.jpg'), '');
    await expect(score('damaged', ['clip'])).rejects.toThrow(
      `${at('damaged/a.png')}: not a PNG, JPEG or WebP image\n${at('damaged/b.jpg')}: the file is empty`,
    );
    fs.cpSync(at('dinov2-tiny'), at('bert'), { recursive: true });
    json(at('bert/config.json'), { model_type: 'bert' });
    await expect(score('drawn', ['bert'])).rejects.toThrow('model_type "bert" is no encoder known here');
  });
});
