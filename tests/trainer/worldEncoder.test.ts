/** The project's own dual encoder: its loss, its words, its training on one too small to know anything, and the shipped one. */
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { read, referenceDevice, setDevice, tensor } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import {
  alignment,
  caption,
  type EncoderConfig,
  likeness,
  openPictureEncoder,
  readPretrainConfig,
  renderScene,
  sampleScene,
  shippedModel,
  tokenOf,
} from '@deftjs/trainer';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { scoreFolder } from '../../packages/trainer/src/base/score.ts';
import { planRun } from '../../packages/trainer/src/commands/jobRun.ts';
import { encoderTokens, encoderVocabulary } from '../../packages/trainer/src/metrics/worldEncoder.ts';
import { contrastiveLoss, pretrainEncoder } from '../../packages/trainer/src/pretrain/encoder.ts';
import { picturePng } from '../../packages/trainer/src/report/index.ts';

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-world-encoder-'));
const lines: string[] = [];
beforeAll(() => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
  vi.spyOn(console, 'log').mockImplementation((line) => void lines.push(String(line)));
});
afterAll(() => {
  vi.restoreAllMocks();
  fs.rmSync(root, { recursive: true });
});

function job(name: string): EncoderConfig {
  const clip = {
    picture_size: 16,
    patch_size: 8,
    hidden_size: 8,
    intermediate_size: 8,
    num_attention_heads: 2,
    vision_layers: 1,
    text_layers: 1,
    projection_dim: 4,
  };
  const path = join(root, `${name}.json`);
  const keys = {
    name,
    model: { clip },
    steps: 4,
    batch_size: 4,
    checkpoint_every: 2,
    learning_rate_schedule: 'constant',
    device: 'wasm',
  };
  fs.writeFileSync(path, JSON.stringify(keys));
  return readPretrainConfig(path) as EncoderConfig;
}

async function pretrained(name: string, mode: 'new' | 'resume', keys: Partial<EncoderConfig> = {}) {
  const config = { ...job('tiny'), name, ...keys };
  using run = planRun({ root, name, mode, command: 'pretrain' }, config)();
  await pretrainEncoder(config, run, new AbortController().signal);
  return fs.readFileSync(join(root, name, 'encoder/model.safetensors'));
}

describe('the contrastive loss', () => {
  it('is the mean of the two cross-entropies of the logits and their transpose', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 9, maxLength: 9 }),
        async (logits) => {
          setDevice(referenceDevice());
          const at = (i: number, j: number): number => logits[3 * i + j]!;
          const minusLog = (own: number, all: readonly number[]): number =>
            Math.log(all.reduce((sum, value) => sum + Math.exp(value), 0)) - own;
          const three = [0, 1, 2];
          const expected = three.reduce(
            (sum, i) =>
              sum +
              minusLog(
                at(i, i),
                three.map((j) => at(i, j)),
              ) /
                6 +
              minusLog(
                at(i, i),
                three.map((j) => at(j, i)),
              ) /
                6,
            0,
          );
          const [loss] = await read(contrastiveLoss(tensor(Float32Array.from(logits), [3, 3])));
          expect(loss!).toBeCloseTo(expected, 4);
        },
      ),
      { numRuns: 30 },
    );
  });
});

describe('captions', () => {
  it('end in the largest token, and read unknown words and subjects as <unk>', () => {
    const ids = [...encoderTokens('a sks giraffe on a blue background')];
    expect(ids.slice(0, 4)).toEqual([tokenOf('<start>'), tokenOf('a'), tokenOf('<unk>'), tokenOf('<unk>')]);
    expect(Math.max(...ids)).toBe(ids[8]);
    expect(encoderVocabulary[ids[8]!]).toBe('<|endoftext|>');
  });

  it('that are too long are cut, with their end', () => {
    const ids = [...encoderTokens('red '.repeat(50))];
    expect(ids).toHaveLength(20);
    expect(ids.at(-1)).toBe(encoderVocabulary.length - 1);
  });
});

describe('a dual encoder', () => {
  it('is pretrained, resumed to the bit, and read by deft score', async () => {
    const whole = await pretrained('whole', 'new');
    await pretrained('half', 'new', { steps: 2 });
    expect(await pretrained('half', 'resume')).toEqual(whole);
    expect(lines.at(-1)).toMatch(/^\d\.\d\d of 64 held-out captions find their own picture$/);

    fs.mkdirSync(join(root, 'drawn'));
    for (const i of [1, 2]) {
      const scene = sampleScene(5, i);
      fs.writeFileSync(join(root, 'drawn', `${i}.png`), await picturePng(renderScene(scene, 32)));
      fs.writeFileSync(join(root, 'drawn', `${i}.txt`), caption(scene, 5, i));
    }
    const json = join(root, 'scores.json');
    const encoders = [join(root, 'whole/encoder')];
    await scoreFolder(join(root, 'drawn'), { encoders, against: join(root, 'drawn'), device: 'wasm', json });
    const { scores } = JSON.parse(fs.readFileSync(json, 'utf8')) as {
      scores: { metric: string; encoder: string }[];
    };
    expect(scores.map(({ metric }) => metric)).toEqual(['CLIP-T', 'CLIP-I', 'Fréchet distance']);
    expect(new Set(scores.map(({ encoder }) => encoder))).toEqual(new Set(['world CLIP']));
  }, 60_000);

  it('whose words have other ids is refused', async () => {
    const folder = join(root, 'moved');
    fs.cpSync(join(root, 'whole/encoder'), folder, { recursive: true });
    fs.writeFileSync(join(folder, 'vocab.json'), JSON.stringify({ giraffe: 4 }));
    const { device } = await openDevice('wasm');
    await expect(openPictureEncoder(folder, device)).rejects.toThrow('its word "giraffe" has another id');
  });
});

describe('the shipped dual encoder', () => {
  it('finds the pictures of captions that it was not trained on, and things alike', async () => {
    const { device } = await openDevice('wasm');
    const encoder = await openPictureEncoder(shippedModel('world-encoder')!, device);
    const scenes = Array.from({ length: 32 }, (_, i) => sampleScene(991, i));
    const pictures = await encoder.pictures(
      scenes.map((scene) => {
        const { width, height, data } = renderScene(scene, 32);
        return { width, height, pixels: Uint8Array.from(data, (value) => Math.round(255 * value)) };
      }),
    );
    const texts = await encoder.texts!(scenes.map((scene, i) => caption(scene, 991, i)));
    const found = texts.filter((text, i) => {
      const cosines = alignment(
        pictures,
        pictures.map(() => text),
      );
      return cosines.indexOf(Math.max(...cosines)) === i;
    });
    expect(found.length).toBeGreaterThan(16); // chance finds one
    expect(likeness([pictures[0]!], [pictures[0]!])[0]).toBeCloseTo(1, 6);
  }, 60_000);
});
