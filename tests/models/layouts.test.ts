import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { namedParameters } from '@deftjs/autograd/nn';
import { type Layout, layouts, loadWeights, UNet2DConditionModel } from '@deftjs/models';
import { openWeights, readConfigFile, writeRandomModel, writeWeights } from '@deftjs/models/node';
import { numel, read, referenceDevice } from '@deftjs/tensor';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openCase } from './goldenCase.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'deft-layouts-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function parametersOf(name: string, part: string): number {
  const { create, config } = layouts.get(name)!.parts.find((one) => one.folder === part)!;
  return [...namedParameters(create(config)).values()].reduce((sum, { shape }) => sum + numel(shape), 0);
}

describe('published layouts', () => {
  // Counts of the published checkpoints.
  it.each([
    ['sd15', 'unet', 859_520_964],
    ['sd15', 'vae', 83_653_863],
    ['sd15', 'text_encoder', 123_060_480],
    ['sdxl', 'unet', 2_567_463_684],
    ['sdxl', 'vae', 83_653_863],
    ['sdxl', 'text_encoder', 123_060_480],
    ['sdxl', 'text_encoder_2', 694_659_840],
    ['flux-dev', 'transformer', 11_901_408_320],
    ['flux-dev', 'vae', 83_819_683],
    ['flux-dev', 'text_encoder', 123_060_480],
    ['flux-dev', 'text_encoder_2', 4_762_310_656],
  ])('%s: the %s has the %i parameters of the checkpoint', (name, part, count) => {
    expect(parametersOf(name, part)).toBe(count);
  });
});

describe('a random model', () => {
  it('is a folder that loads, the same for the same seed, each matrix of full rank in its rows', async () => {
    const { config } = await openCase('unet-sd15-tiny');
    const layout: Layout = {
      pipeline: 'P',
      scheduler: { _class_name: 'DDIMScheduler' },
      parts: [
        {
          folder: 'unet',
          library: 'diffusers',
          config,
          create: (json) => new UNet2DConditionModel(json),
        },
      ],
    };
    await writeRandomModel(join(folder, 'a'), layout, { dtype: 'f16' });
    await writeRandomModel(join(folder, 'b'), layout, { dtype: 'f16' });
    const bytes = ['a', 'b'].map((name) =>
      readFileSync(join(folder, name, 'unet', 'diffusion_pytorch_model.safetensors')),
    );
    expect(bytes[0]!.equals(bytes[1]!)).toBe(true);
    const unet = new UNet2DConditionModel(await readConfigFile(join(folder, 'a/unet/config.json')));
    await using weights = await openWeights(join(folder, 'a/unet'));
    expect(new Set(weights.names.map((name) => weights.info(name).dtype))).toEqual(new Set(['F16']));
    await loadWeights(unet, weights);
    for (const [path, { value }] of namedParameters(unet)) {
      const values = await read(value, referenceDevice());
      expect(values.every(Number.isFinite), path).toBe(true);
      const rows = new Set(
        Array.from({ length: value.shape[0]! }, (_, row) => {
          const size = values.length / value.shape[0]!;
          return values.subarray(row * size, (row + 1) * size).join();
        }),
      );
      if (value.rank > 1) expect(rows.size, path).toBe(value.shape[0]);
    }
  });
});

describe('weights written to a folder', () => {
  it('come back from however many shards, none larger than asked for', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.stringMatching(/^[a-z.]{1,8}$/), { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 4, max: 200 }),
        fc.infiniteStream(fc.integer({ min: 0, max: 12 })),
        async (names, maxShardBytes, sizes) => {
          const place = mkdtempSync(join(folder, 'shards-'));
          const weights = names.map((name) => {
            const data = Float32Array.from({ length: sizes.next().value }, (_, i) => i + name.length);
            return { name, dtype: 'f32' as const, shape: [data.length], values: () => data };
          });
          await writeWeights(place, 'model.safetensors', weights, { maxShardBytes });
          await using source = await openWeights(place);
          expect([...source.names].sort()).toEqual([...names].sort());
          for (const { name, values } of weights) expect((await source.read(name)).data).toEqual(values());
          const bytes = weights.reduce((sum, weight) => sum + 4 * weight.shape[0]!, 0);
          const shards = readdirSync(place).filter((file) => file.endsWith('.safetensors'));
          if (bytes <= maxShardBytes) expect(shards).toEqual(['model.safetensors']);
          for (const [i] of shards.entries()) {
            const number = String(i + 1).padStart(5, '0');
            const last = String(shards.length).padStart(5, '0');
            if (shards.length > 1) expect(shards).toContain(`model-${number}-of-${last}.safetensors`);
          }
        },
      ),
      { numRuns: 30 },
    );
  });

  it('leave nothing behind when values do not fill their shape', async () => {
    const wrong = { name: 'a', dtype: 'f32' as const, shape: [3], values: () => new Float32Array(2) };
    await expect(writeWeights(folder, 'model.safetensors', [wrong])).rejects.toThrow(
      'writeWeights: a: expected 12 bytes; got 8',
    );
    expect(readdirSync(folder)).toEqual([]);
  });
});
