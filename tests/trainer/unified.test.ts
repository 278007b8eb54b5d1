/** The unified model: its instructions, examples of its tasks, and pretraining and drawing on one too small to draw anything. */
import fs from 'node:fs';
import os from 'node:os';
import { dirname, join } from 'node:path';
import { stateOf } from '@deftjs/autograd/nn';
import { read, referenceDevice, setDevice, type Tensor, tensor } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { type PainterConfig, readPretrainConfig } from '@deftjs/trainer';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { drawPrompts } from '../../packages/trainer/src/base/draw.ts';
import { loadBase, saveBase } from '../../packages/trainer/src/base/folder.ts';
import { openModel } from '../../packages/trainer/src/base/open.ts';
import { UnifiedModel } from '../../packages/trainer/src/base/unified.ts';
import { planRun } from '../../packages/trainer/src/commands/jobRun.ts';
import { conditionOf, conditions, edgeF1 } from '../../packages/trainer/src/metrics/index.ts';
import { instructionBatch } from '../../packages/trainer/src/pretrain/batches.ts';
import { newModel, pretrain } from '../../packages/trainer/src/pretrain/pretrain.ts';
import { pictureExample } from '../../packages/trainer/src/pretrain/tasks.ts';
import { picturePng } from '../../packages/trainer/src/report/index.ts';
import { train } from '../../packages/trainer/src/train/train.ts';
import {
  instructionOf,
  instructionTokenOf,
  maxInstructionWords,
  pictureTasks,
  renderScene,
  type Scene,
  sampleScene,
  tokenizeInstruction,
  tokenOf,
} from '../../packages/trainer/src/world/index.ts';
import { saveTinyBase, tinyConfig } from './tinyBase.ts';

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
  return readPretrainConfig(path) as PainterConfig;
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

  it('of canny and depth alone are mixed with the picture asked for, as often as told', () => {
    const { objective } = newModel(config());
    const common = { worldSeed: 5, seed: 1, batchSize: 8, size: 16, captionDropout: 0, objective };
    const inputs = (task: 'canny' | 'copy', blend: number) =>
      instructionBatch(common, { textShare: 0, tasks: [task], blend }, 3).inputs!;
    expect(inputs('copy', 1)).toEqual(inputs('copy', 0));
    const [plain, mixed] = [inputs('canny', 0), inputs('canny', 1)];
    const { pictures } = instructionBatch(common, { textShare: 0, tasks: ['canny'], blend: 1 }, 3);
    const numbers = 3 * 16 * 16;
    for (let row = 0; row < 8; row += 1) {
      const part = (values: Float32Array) => [...values.subarray(row * numbers, (row + 1) * numbers)];
      const [from, to, at] = [part(plain), part(pictures), part(mixed)];
      const shares = at.flatMap((value, i) =>
        Math.abs(to[i]! - from[i]!) > 0.1 ? [(value - from[i]!) / (to[i]! - from[i]!)] : [],
      );
      expect(Math.max(...shares) - Math.min(...shares)).toBeLessThan(1e-4);
      expect(Math.min(...shares)).toBeGreaterThan(0);
      expect(Math.max(...shares)).toBeLessThan(1);
    }
  });

  it('of copy are given the picture itself', () => {
    const { input, target, caption } = pictureExample('copy', 5, 3, 32);
    expect(input).toEqual(target);
    expect(instructionOf('copy', caption)).toBe(`<img><|image_1|></img> ${caption}`);
  });

  it('of reference show one thing twice, on another background', () => {
    for (let i = 0; i < 20; i += 1) {
      const { input, target, scene } = pictureExample('reference', 5, i, 32);
      expect(scene.count).toBe(1);
      expect(input.data.slice(0, 3)).not.toEqual(target.data.slice(0, 3));
    }
  });
});

describe('keeping to a picture', () => {
  it('is perfect for the picture that the edges are of, and worse for others', () => {
    for (let i = 0; i < 20; i += 1) {
      const { input, target } = pictureExample('canny', 5, i, 32);
      const other = pictureExample('canny', 5, i + 100, 32).target;
      expect(conditions.canny.score(target, input)).toBe(1);
      expect(conditions.canny.score(other, input)).toBeLessThan(0.9);
    }
  });

  it('tells depths from a picture to within a tenth, and those of another picture are far off', () => {
    const errors = (shift: number) =>
      Array.from({ length: 40 }, (_, i) => {
        const { input } = pictureExample('depth', 5, i, 32);
        return conditions.depth.score(pictureExample('depth', 5, i + shift, 32).target, input);
      });
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    expect(mean(errors(0))).toBeLessThan(0.1);
    expect(mean(errors(100))).toBeGreaterThan(2 * mean(errors(0)));
  });

  it('is scored by the task that an instruction names', () => {
    expect(conditionOf(instructionOf('canny', 'a star'))).toBe('canny');
    expect(conditionOf(instructionOf('depth', 'a star'))).toBe('depth');
    expect(conditionOf(instructionOf('reference', 'on a red background'))).toBeNull();
    expect(conditionOf('canny')).toBeNull();
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

  it('takes batches of one task each, of the tasks that it is told', () => {
    const model = newModel(config());
    const batches = {
      worldSeed: 1,
      seed: 1,
      batchSize: 2,
      size: 16,
      captionDropout: 0.2,
      objective: model.objective,
    };
    const tasks = ['canny', 'depth', 'reference'] as const;
    const kinds = Array.from({ length: 40 }, (_, step) => {
      const { captions, inputs } = instructionBatch(
        batches,
        { textShare: 0.4, tasks: [...tasks], blend: 0 },
        step,
      );
      expect(captions.every((text) => text.includes('<img>') === (inputs !== undefined))).toBe(true);
      return captions.map((text) => /^(canny|depth|the thing in) <img>/.exec(text)?.[1] ?? 'text');
    });
    expect(new Set(kinds.flat())).toEqual(new Set(['text', 'canny', 'depth', 'the thing in']));
  });

  it('gives each patch of a given picture the position of the drawn patch in its place', async () => {
    const model = newModel(config()) as UnifiedModel;
    const captions = ['canny', 'depth'].map((task, i) =>
      instructionOf(task as 'canny', ['a red star', ''][i]!),
    );
    const { ids, places, positions, mask } = model.tokenize(
      captions,
      tensor(new Float32Array(2 * 768), [2, 3, 16, 16]),
    );
    const numbers = async (x: Tensor) => [...(await read(x, referenceDevice()))] as number[];
    const [length, total] = [ids.shape[1]!, mask.shape[1]!];
    const [where, at] = [await numbers(places), await numbers(positions)];
    for (const row of [0, 1]) {
      const own = at.slice(row * total, (row + 1) * total);
      expect(own.slice(length)).toEqual(Array.from({ length: total - length }, (_, i) => length + i));
      const given = own.filter((_, i) => i < length && where[row * length + i]! >= 2 * length);
      expect(given).toEqual(own.slice(length + 1));
      const words = own.flatMap((n, i) =>
        i < length && where[row * length + i]! < 2 * length ? [[n, i]] : [],
      );
      for (const [n, i] of words) expect(n).toBe(i);
    }
  });

  it('reads pictures that are given as those that are drawn, until it is trained', async () => {
    const { input_image_proj: given, output_image_proj: drawn } = (newModel(config()) as UnifiedModel)
      .transformer.patch_embedding;
    const numbers = (x: Tensor) => read(x, referenceDevice());
    expect(await numbers(given.weight.value)).toEqual(await numbers(drawn.weight.value));
    expect(await numbers(given.bias!.value)).toEqual(await numbers(drawn.bias!.value));
  });

  it('goes on from the weights of another one, of the same configuration alone', async () => {
    const started = async (name: string, keys: Readonly<Record<string, unknown>>) => {
      const job = config({ name, start: join(root, 'tiny/base'), steps: 1, learning_rate: 1e-12, ...keys });
      const open = planRun({ root, name, mode: 'new', command: 'pretrain' }, job);
      await pretrain(job, open(), new AbortController().signal);
      return stateOf(await loadBase(join(root, name, 'base')));
    };
    const before = stateOf(await loadBase(join(root, 'tiny/base')));
    const after = await started('on', {});
    for (const [name, value] of Object.entries(before)) {
      const from = name.includes('input_image_proj') ? name.replace('input', 'output') : name;
      expect(await read(after[name]!), name).toEqual(await read(from === name ? value : before[from]!));
    }
    const { model } = config();
    if (!('transformer' in model)) throw new Error('expected a unified model');
    const other = { transformer: { ...model.transformer, num_layers: 2 } };
    await expect(started('other', { model: other })).rejects.toThrow(
      /start: .*tiny\/base is a model of another/,
    );
  }, 60_000);

  it('names a word that it does not know, and learns none', async () => {
    const model = newModel(config());
    expect(model.captionProblem('canny <img><|image_1|></img> a red elephant', true)).toMatch('"elephant"');
    expect(model.captionProblem('depth <img><|image_1|></img> a red star', true)).toBeNull();
    await expect(model.teachWord('sks', 'toy', 1)).rejects.toThrow('learns no new words');
  });

  it('is refused where a patch does not divide the picture', () => {
    expect(() => config({ model: { transformer: { picture_size: 20, patch_size: 8 } } })).toThrow(
      /model\.transformer: expected a patch_size that divides picture_size/,
    );
  });
});

describe('the shipped unified model', () => {
  it('draws a thing in the colour of the one that it is given', async () => {
    const { device } = await openDevice('wasm');
    const model = await openModel('world-unified', device);
    const [single] = Array.from({ length: 50 }, (_, i) => sampleScene(1, i)).filter(
      ({ count }) => count === 1,
    );
    const scene: Scene = { ...single!, shape: 'circle', size: 'big', texture: 'plain' };
    const hues = [];
    for (const colour of ['red', 'blue'] as const) {
      const input = renderScene({ ...scene, colour, background: 'white' }, 32);
      const prompts = [instructionOf('reference', 'in the middle of a black background')];
      const options = { seeds: [1, 2], steps: 8, guidanceScale: 3, device };
      const [row] = await drawPrompts(model, { prompts, inputs: [input], ...options });
      const channel = (c: number) =>
        row!.pictures.flatMap(({ data }) => [...data.filter((_, i) => i % 3 === c)]).reduce((a, b) => a + b);
      hues.push(channel(0) - channel(2));
    }
    expect(hues[0]).toBeGreaterThan(hues[1]!);
  }, 60_000);
});

/** A folder of examples of a task, and a base to train on it. */
async function conditional(name: string): Promise<{ data: string; base: string }> {
  const [data, base] = [join(root, `${name}-data`), join(root, `${name}-base`)];
  fs.mkdirSync(data);
  const rows = [];
  for (let i = 0; i < 3; i += 1) {
    const { input, target, caption } = pictureExample('canny', 1, i, 16);
    fs.writeFileSync(join(data, `${i}.png`), await picturePng(target));
    fs.writeFileSync(join(data, `${i}-edges.png`), await picturePng(input));
    const text = instructionOf('canny', caption);
    rows.push({ file_name: `${i}.png`, input_file_name: `${i}-edges.png`, text });
  }
  fs.writeFileSync(join(data, 'metadata.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'));
  const model = newModel(config());
  const { device } = await openDevice('wasm');
  setDevice(device);
  await saveBase((file, bytes) => {
    fs.mkdirSync(dirname(join(base, file)), { recursive: true });
    fs.writeFileSync(join(base, file), bytes);
  }, model);
  return { data, base };
}

describe('conditional generation', () => {
  const job = (name: string, base: string, folder: string, keys: Readonly<Record<string, unknown>> = {}) => {
    const sampling = { steps: 2, seeds: [1] };
    return tinyConfig(root, name, { base, data: { folder, flip: 0.5 }, steps: 4, sampling, ...keys });
  };
  const run = async (name: string, config: ReturnType<typeof job>, mode: 'new' | 'resume' = 'new') => {
    await train(
      config,
      planRun({ root, name, mode, command: 'train' }, config),
      new AbortController().signal,
    );
    return fs.readFileSync(join(root, name, 'adapter/adapter_model.safetensors'));
  };

  it.each(['deft', 'lora', 'para'])(
    'is learnt with %s, and resumed to the bit',
    async (method) => {
      const { data, base } = await conditional(method);
      const name = `${method}-canny`;
      const config = job(name, base, data, { method, checkpoint_every: 2 });
      const whole = await run(name, config);
      const newest = fs
        .readdirSync(join(root, name, 'checkpoints'))
        .sort()
        .at(-1)!;
      fs.rmSync(join(root, name, 'checkpoints', newest), { recursive: true });
      expect((await run(name, config, 'resume')).equals(whole)).toBe(true);
      const { prompts, condition } = JSON.parse(
        fs.readFileSync(join(root, name, 'metrics.json'), 'utf8'),
      ).evaluation;
      expect(condition.task).toBe('canny');
      expect(prompts.adapted).toHaveLength(3); // each training picture's caption, with its picture
    },
    60_000,
  );

  it('refuses what does not go together, by name', async () => {
    const { data, base } = await conditional('bad');
    const rows = fs.readFileSync(join(data, 'metadata.jsonl'), 'utf8').split('\n');
    const write = (...lines: string[]) => fs.writeFileSync(join(data, 'metadata.jsonl'), lines.join('\n'));
    const refused = (...lines: string[]) => {
      write(...lines);
      return expect(run('bad', job('bad', base, data))).rejects;
    };
    const [first, second, third] = rows as [string, string, string];
    await refused(first, second, third.replace('"input_file_name":"2-edges.png",', '')).toThrow(
      /2\.png.*names a picture, and none is given with it/,
    );
    await refused(first, second, third.replace('<img><|image_1|></img> ', '')).toThrow(
      'expected <img><|image_1|></img> once, for the picture given with it',
    );
    await refused(first, second, third.replace('2-edges', 'none')).toThrow(
      /metadata\.jsonl:3: 2\.png: none\.png: /,
    );
    const plain = JSON.stringify({ file_name: '2.png', text: 'a red star' });
    await refused(first, second, plain).toThrow('2.png: expected an input_file_name in its row');
    expect(fs.existsSync(join(root, 'bad'))).toBe(false);
    write(first, second, third);
    await saveTinyBase(join(root, 'world'));
    await expect(run('bad', job('bad', join(root, 'world'), data))).rejects.toThrow(
      'a picture is given with it, and the base reads none',
    );
  }, 60_000);
});
