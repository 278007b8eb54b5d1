/** The unified model: its instructions, examples of its tasks, and pretraining and drawing on one too small to draw anything. */
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { openDevice } from '@deftjs/tensor/node';
import { readPretrainConfig } from '@deftjs/trainer';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { drawPrompts } from '../../packages/trainer/src/base/draw.ts';
import { loadBase } from '../../packages/trainer/src/base/folder.ts';
import { UnifiedModel } from '../../packages/trainer/src/base/unified.ts';
import { planRun } from '../../packages/trainer/src/commands/jobRun.ts';
import { edgeF1 } from '../../packages/trainer/src/metrics/index.ts';
import { instructionBatch } from '../../packages/trainer/src/pretrain/batches.ts';
import { newModel, pretrain } from '../../packages/trainer/src/pretrain/pretrain.ts';
import { pictureExample } from '../../packages/trainer/src/pretrain/tasks.ts';
import {
  instructionOf,
  instructionTokenOf,
  maxInstructionWords,
  pictureTasks,
  tokenizeInstruction,
  tokenOf,
} from '../../packages/trainer/src/world/index.ts';

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-unified-'));
beforeAll(() => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
});
afterAll(() => {
  vi.restoreAllMocks();
  fs.rmSync(root, { recursive: true });
});

function config(keys: Readonly<Record<string, unknown>> = {}) {
  const path = join(root, 'config.json');
  const transformer = {
    picture_size: 16,
    patch_size: 8,
    hidden_size: 8,
    intermediate_size: 8,
    num_layers: 1,
    num_attention_heads: 2,
  };
  const sampling = { steps: 2, seeds: [1], prompts: ['a red star'] };
  const all = {
    name: 'tiny',
    model: { transformer },
    steps: 6,
    batch_size: 2,
    device: 'wasm',
    sampling,
    ...keys,
  };
  fs.writeFileSync(path, JSON.stringify(all));
  return readPretrainConfig(path);
}

describe('instructions', () => {
  it.each(pictureTasks)('of %s hold every word that the world knows, and one picture', (task) => {
    fc.assert(
      fc.property(fc.nat(100_000), (index) => {
        const { caption } = pictureExample(task, 3, index, 16);
        const { ids, images, order } = tokenizeInstruction(instructionOf(task, caption), [4]);
        expect(order).toEqual([0]);
        expect(images).toHaveLength(1);
        const [{ start, tokens }] = images as [{ start: number; tokens: number }];
        expect(ids[start - 1]).toBe(instructionTokenOf('<img>'));
        expect(ids[start + tokens]).toBe(instructionTokenOf('</img>'));
        expect(ids).not.toContain(tokenOf('<unk>'));
        expect(ids[0]).toBe(tokenOf('<start>'));
        expect(ids.at(-1)).toBe(tokenOf('<end>'));
        expect(ids.length - tokens).toBeLessThanOrEqual(maxInstructionWords + 2);
      }),
    );
  });

  it('without words are the picture alone', () => {
    for (const task of pictureTasks) expect(instructionOf(task, '')).toBe('<img><|image_1|></img>');
  });
});

describe('examples', () => {
  it.each(pictureTasks)('of %s are a pure function of seed and number', (task) => {
    expect(pictureExample(task, 5, 7, 16)).toEqual(pictureExample(task, 5, 7, 16));
    expect(pictureExample(task, 5, 8, 16).target).not.toEqual(pictureExample(task, 5, 7, 16).target);
  });

  it('of canny are given the edges of the picture, of depth a map that is 0 off the things', () => {
    for (let i = 0; i < 20; i += 1) {
      const { input, target } = pictureExample('canny', 5, i, 32);
      const edges = Uint8Array.from(input.data.filter((_, at) => at % 3 === 0));
      expect(edgeF1(edges, edges, 32)).toBe(1);
      expect(edges.some((edge) => edge === 1)).toBe(true);
      const depth = pictureExample('depth', 5, i, 32);
      expect(depth.target).toEqual(target);
      expect(Math.max(...depth.input.data)).toBeGreaterThan(0.3);
      const background = depth.target.data.slice(0, 3);
      depth.input.data.forEach((near, at) => {
        if (near === 0) expect(depth.target.data[at]).toBeCloseTo(background[at % 3]!, 5);
      });
    }
  });

  it('of reference show one thing twice, on another background', () => {
    for (let i = 0; i < 20; i += 1) {
      const { input, target, scene } = pictureExample('reference', 5, i, 32);
      expect(scene.count).toBe(1);
      expect(input.data.slice(0, 3)).not.toEqual(target.data.slice(0, 3));
    }
  });
});

describe('a unified model', () => {
  it('is pretrained, saved, read again, and draws with pictures and without', async () => {
    const job = config();
    const open = planRun({ root, name: 'tiny', mode: 'new', command: 'pretrain' }, job);
    await pretrain(job, open(), new AbortController().signal);
    expect(fs.readdirSync(join(root, 'tiny/samples'))).toEqual(['step-000006.png', 'tasks-000006.png']);

    const model = await loadBase(join(root, 'tiny/base'));
    expect(model).toBeInstanceOf(UnifiedModel);
    const { device } = await openDevice('wasm');
    const { input } = pictureExample('canny', 1, 1, 16);
    const options = { seeds: [1], steps: 2, guidanceScale: 3, device };
    const drawn = async (prompt: string, given?: typeof input, imageGuidanceScale = 1.5) => {
      const [row] = await drawPrompts(model, {
        prompts: [prompt],
        ...(given && { inputs: [given] }),
        imageGuidanceScale,
        ...options,
      });
      return row!.pictures[0]!.data;
    };
    const plain = await drawn('a red star');
    const canny = instructionOf('canny', 'a red star');
    const guided = await drawn(canny, input);
    expect(guided.every(Number.isFinite)).toBe(true);
    expect(guided).not.toEqual(plain);
    expect(await drawn(canny, input, 3)).not.toEqual(guided);
    expect(await drawn(canny, input)).toEqual(guided);
  }, 60_000);

  it('takes batches of one task each, of all four tasks', () => {
    const model = newModel(config());
    const batches = {
      worldSeed: 1,
      seed: 1,
      batchSize: 2,
      size: 16,
      captionDropout: 0.2,
      objective: model.objective,
    };
    const kinds = Array.from({ length: 40 }, (_, step) => {
      const { captions, inputs } = instructionBatch(batches, step);
      expect(captions.every((text) => text.includes('<img>') === (inputs !== undefined))).toBe(true);
      return captions.map((text) => /^(canny|depth|the thing in) <img>/.exec(text)?.[1] ?? 'text');
    });
    expect(new Set(kinds.flat())).toEqual(new Set(['text', 'canny', 'depth', 'the thing in']));
  });

  it('names a word that it does not know, and learns none', async () => {
    const model = newModel(config());
    expect(model.captionProblem('canny <img><|image_1|></img> a red elephant')).toMatch('"elephant"');
    expect(model.captionProblem('depth <img><|image_1|></img> a red star')).toBeNull();
    await expect(model.teachWord('sks', 'toy', 1)).rejects.toThrow('learns no new words');
  });

  it('is refused where a patch does not divide the picture', () => {
    expect(() => config({ model: { transformer: { picture_size: 20, patch_size: 8 } } })).toThrow(
      /model\.transformer: expected a patch_size that divides picture_size/,
    );
  });
});
