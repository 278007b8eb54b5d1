/** Aspect-ratio buckets: sizes, batches of one size, and training on them, with pixels and with latents. */
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { setDevice } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import fc from 'fast-check';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { planRun } from '../../packages/trainer/src/commands/jobRun.ts';
import { bucketSizes, nearestSize, readImageFolder } from '../../packages/trainer/src/data/index.ts';
import { bucketedItemsOfStep, firstSteps, itemsOfStep } from '../../packages/trainer/src/train/dataset.ts';
import { planLines } from '../../packages/trainer/src/train/plan.ts';
import { prepare } from '../../packages/trainer/src/train/prepare.ts';
import { train } from '../../packages/trainer/src/train/train.ts';
import { caseFolder } from '../models/goldenCase.ts';
import { saveTinyBase, tinyConfig } from './tinyBase.ts';

describe('sizes', () => {
  it('have sides of whole multiples, no more pixels than the square, and shapes within the ratio', () => {
    const sizes = fc.record({
      multiple: fc.constantFrom(4, 8, 64),
      across: fc.integer({ min: 1, max: 16 }),
      ratio: fc.double({ min: 1, max: 8, noNaN: true }),
    });
    fc.assert(
      fc.property(sizes, ({ multiple, across, ratio }) => {
        const size = multiple * across;
        const all = bucketSizes(size, multiple, ratio);
        expect(all[0]).toEqual({ width: size, height: size });
        for (const { width, height } of all) {
          expect([width % multiple, height % multiple]).toEqual([0, 0]);
          expect(width * height).toBeLessThanOrEqual(size ** 2);
          expect(Math.max(width, height) / Math.min(width, height)).toBeLessThanOrEqual(ratio);
          expect(all).toContainEqual({ width: height, height: width });
          expect(nearestSize(all, { width: 7 * width, height: 7 * height })).toEqual({ width, height });
        }
      }),
    );
  });

  it('of 512 pixels in steps of 64 are those that trainers of Stable Diffusion take', () => {
    const words = bucketSizes(512, 64, 2.3).map(({ width, height }) => `${width}x${height}`);
    expect(words).toEqual(['512x512', '576x448', '448x576', '640x384', '384x640', '704x320', '320x704']);
  });
});

describe('batches', () => {
  const buckets = [
    [0, 3, 4, 7, 8],
    [1, 2],
    [5, 6, 9],
  ];

  it('are of one bucket each, and an epoch of them has every picture', () => {
    for (const batchSize of [1, 2, 4]) {
      const perEpoch = buckets.reduce((sum, { length }) => sum + Math.ceil(length / batchSize), 0);
      for (let epoch = 0; epoch < 3; epoch += 1) {
        const seen = new Set<number>();
        for (let i = 0; i < perEpoch; i += 1) {
          const items = bucketedItemsOfStep(buckets, batchSize, 5, epoch * perEpoch + i);
          expect(items).toHaveLength(batchSize);
          expect(buckets.filter((bucket) => items.every((item) => bucket.includes(item)))).toHaveLength(1);
          for (const item of items) seen.add(item);
        }
        expect([...seen].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      }
    }
  });

  it('come in another order in the next epoch, and are those of one bucket where there is no other', () => {
    const order = (epoch: number) =>
      Array.from({ length: 6 }, (_, i) => bucketedItemsOfStep(buckets, 2, 5, 6 * epoch + i)).join(' ');
    expect(order(0)).not.toBe(order(1));
    for (let step = 0; step < 9; step += 1) {
      expect(bucketedItemsOfStep([[0, 1, 2, 3, 4]], 2, 7, step)).toEqual(itemsOfStep(5, 2, 7, step));
    }
  });

  it('of each bucket come first where they are said to', () => {
    const steps = firstSteps(buckets, 2, 5);
    steps.forEach((step, bucket) => {
      expect(buckets[bucket]).toContain(bucketedItemsOfStep(buckets, 2, 5, step)[0]);
      for (let before = 0; before < step; before += 1) {
        expect(buckets[bucket]).not.toContain(bucketedItemsOfStep(buckets, 2, 5, before)[0]);
      }
    });
  });
});

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-buckets-'));
const folder = join(root, 'toys');
const shapes = [
  [64, 64],
  [128, 64],
  [64, 128],
  [120, 66],
] as const;

beforeAll(async () => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
  vi.stubEnv('DEFT_CACHE', join(root, 'cache'));
  setDevice((await openDevice('wasm')).device);
  await saveTinyBase(join(root, 'base'));
  fs.cpSync(caseFolder('sd-tiny-pipeline'), join(root, 'sd'), { recursive: true });
  fs.mkdirSync(folder);
  for (const [i, [width, height]] of shapes.entries()) {
    // Red at the left, blue at the right: what is cut away shows.
    const raw = Buffer.alloc(3 * width * height);
    for (let p = 0; p < width * height; p += 1) raw[3 * p + (p % width < width / 2 ? 0 : 2)] = 255;
    await sharp(raw, { raw: { width, height, channels: 3 } })
      .png()
      .toFile(join(folder, `${i}.png`));
    fs.writeFileSync(join(folder, `${i}.txt`), 'a toy');
  }
});
afterAll(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  fs.rmSync(root, { recursive: true });
});

const options = { size: 32, instancePrompt: null, captionProblem: () => null };

describe('a folder', () => {
  it('gives each picture in the size nearest to its shape, and squares without buckets', async () => {
    const { pictures } = await readImageFolder(folder, { ...options, buckets: bucketSizes(32, 8, 2) });
    expect(pictures.map(({ bucket }) => bucket)).toEqual([
      undefined,
      { width: 40, height: 24 },
      { width: 24, height: 40 },
      { width: 40, height: 24 },
    ]);
    const wide = pictures[1]!.pixels;
    expect(wide.length).toBe(3 * 40 * 24);
    expect([wide[0], wide[39]]).toEqual([1, -1]); // the red plane of the first row: its left and its right
    const squares = await readImageFolder(folder, options);
    expect(squares.pictures.map(({ pixels, bucket }) => [pixels.length, bucket])).toEqual(
      shapes.map(() => [3 * 32 * 32, undefined]),
    );
  });
});

describe('training', () => {
  const run = async (
    name: string,
    keys: Readonly<Record<string, unknown>>,
    mode: 'new' | 'resume' = 'new',
  ): Promise<Buffer> => {
    const sampling = { steps: 2, seeds: [1], prompts: ['a toy'] };
    const config = tinyConfig(root, name, { batch_size: 2, checkpoint_every: 3, sampling, ...keys });
    const open = planRun({ root, name, mode, command: 'train' }, config);
    await train(config, open, new AbortController().signal);
    return fs.readFileSync(join(root, name, 'adapter/adapter_model.safetensors'));
  };

  it('takes batches of every size, says so before, and resumes to the bit', async () => {
    const keys = { data: { folder, buckets: 2, flip: 0.5 } };
    const whole = await run('whole', { ...keys, steps: 6 });
    await run('stopped', { ...keys, steps: 3 });
    expect((await run('stopped', { ...keys, steps: 6 }, 'resume')).equals(whole)).toBe(true);
    expect((await run('squares', { data: { folder, flip: 0.5 }, steps: 6 })).equals(whole)).toBe(false);
    const { plan } = await prepare(tinyConfig(root, 'plan', keys));
    expect(planLines(plan)).toContain('buckets   1 of 32 x 32, 2 of 40 x 24, 1 of 24 x 40');
    const sheet = await sharp(join(root, 'whole/pictures.png')).metadata();
    expect(sheet.width).toBeGreaterThan(4 * 4 * 40);
  });

  it('takes latents of every size, on a base with a VAE', async () => {
    const job = { base: join(root, 'sd'), data: { folder, buckets: 2, flip: 0.5 }, steps: 4 };
    const first = await run('latents', job);
    expect((await run('again', job)).equals(first)).toBe(true); // with latents from the cache
  });

  it.each([
    ['cuts at random', { folder, buckets: 2, random_crop: true }, 'data.buckets: with random_crop pictures'],
    ['ratios below 1', { folder, buckets: 0.5 }, 'data.buckets: expected a number from 1 to 8'],
  ])('refuses %s', async (_what, data, message) => {
    await expect(run('refused', { data })).rejects.toThrow(message);
  });

  it('refuses bases of squares', async () => {
    const base = new URL('../../models/world-unified', import.meta.url).pathname;
    await expect(run('refused', { base, data: { folder, buckets: 2 } })).rejects.toThrow(
      'data.buckets: this base is trained on squares only',
    );
  });
});
