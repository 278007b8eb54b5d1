/** Every method through the trainer, in one process, on a base too small to draw anything. */
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { setDevice } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { type Method, methods, type Picture } from '@deftjs/trainer';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { drawPrompts } from '../../packages/trainer/src/base/draw.ts';
import { openModel } from '../../packages/trainer/src/base/open.ts';
import { planRun } from '../../packages/trainer/src/commands/jobRun.ts';
import { sheetRecipeIn } from '../../packages/trainer/src/train/sheetRecipe.ts';
import { train } from '../../packages/trainer/src/train/train.ts';
import { saveTinyBase, tinyConfig } from './tinyBase.ts';

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-methods-'));
const base = join(root, 'base');

beforeAll(async () => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
  setDevice((await openDevice('wasm')).device);
  await saveTinyBase(base);
});
afterAll(() => {
  vi.restoreAllMocks();
  fs.rmSync(root, { recursive: true });
});

async function run(
  name: string,
  keys: Readonly<Record<string, unknown>>,
  mode: 'new' | 'resume' = 'new',
): Promise<string> {
  const config = tinyConfig(root, name, keys);
  const open = planRun({ root, name, mode, command: 'train' }, config);
  await train(config, open, new AbortController().signal);
  return join(root, name);
}

/** The files below a folder that are no logs or pictures, by name. */
function filesOf(folder: string): Map<string, Buffer> {
  const names = fs.readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  const learnt = names.filter((name) => /^(adapter|model)\/.*\.\w+$/.test(name));
  return new Map(learnt.map((name) => [name, fs.readFileSync(join(folder, name))]));
}

async function drawn(model: string, strength?: number): Promise<Picture> {
  const { device } = await openDevice('wasm');
  const [sample] = await drawPrompts(await openModel(model, device, strength), {
    prompts: ['a big sks toy'],
    seeds: [1],
    steps: 2,
    guidanceScale: 3,
    device,
  });
  return sample!.pictures[0]!;
}

const text = { text_encoder: { target_modules: ['q_proj'] } };
const cases: readonly (readonly [Method, Readonly<Record<string, unknown>>, files: readonly string[]])[] = [
  [
    'deft',
    { projector: 'nmf', scaling: 'projector', gate: 1, start: 'random', dropout: 0.2 },
    ['adapter/adapter_config.json', 'adapter/adapter_model.safetensors'],
  ],
  [
    'para',
    { ema_decay: 0.9, precision: 'f16', recompute: true, sample_every: 6 },
    ['adapter/adapter_config.json', 'adapter/adapter_model.safetensors'],
  ],
  [
    'lora',
    { rslora: true, alpha: 3, dropout: 0.1, rank_pattern: { 'to_out.0': 2 }, ...text },
    [
      'adapter/adapter_config.json',
      'adapter/adapter_model.safetensors',
      'adapter/text_encoder/adapter_config.json',
      'adapter/text_encoder/adapter_model.safetensors',
    ],
  ],
  [
    'svdiff',
    { scale: 2, gradient_accumulation: 2, learning_rate_schedule: 'cosine' },
    ['adapter/spectral_shifts.safetensors'],
  ],
  [
    'dreambooth',
    { text_encoder: {} },
    [
      'model/model_index.json',
      'model/scheduler/scheduler_config.json',
      'model/text_encoder/config.json',
      'model/text_encoder/model.safetensors',
      'model/tokenizer/vocab.json',
      'model/unet/config.json',
      'model/unet/diffusion_pytorch_model.safetensors',
      'model/vae/config.json',
    ],
  ],
  [
    'custom_diffusion',
    { word: 'sks' },
    ['adapter/learned_embeds.safetensors', 'adapter/pytorch_custom_diffusion_weights.safetensors'],
  ],
  ['textual_inversion', { word: 'sks', vectors: 2 }, ['adapter/learned_embeds.safetensors']],
];

describe('the cases', () => {
  it('are of all methods', () => expect(cases.map(([method]) => method)).toEqual(methods));
});

describe.each(cases)('%s', (method, keys, files) => {
  it('trains, resumes to the bit, and is drawn with', async () => {
    const folder = await run(method, { method, ...keys });
    const straight = filesOf(folder);
    expect([...straight.keys()]).toEqual(files);
    expect(fs.existsSync(join(folder, 'samples/step-000006.png'))).toBe('sample_every' in keys);
    const base = join(root, 'base');
    const sheet = { base, method, seed: 1, trainedSteps: [0, 12], seeds: [1], steps: 2, guidance: 3 };
    expect(sheetRecipeIn(fs.readFileSync(join(folder, 'samples.png')))).toMatchObject(sheet);
    // As if it had been killed in the last steps: the newest checkpoint left is that of step 10.
    const [newest] = fs.readdirSync(join(folder, 'checkpoints')).sort().reverse();
    fs.rmSync(join(folder, 'checkpoints', newest!), { recursive: true });
    await run(method, { method, ...keys }, 'resume');
    expect(filesOf(folder)).toEqual(straight);

    const [trained, none] = [await drawn(folder), await drawn(folder, 0)];
    expect(trained).not.toEqual(none);
    // A word that is taught begins as another: only without one is strength 0 the base.
    if (!('word' in keys)) expect(none).toEqual(await drawn(base));
  }, 120_000);
});

const refused: readonly (readonly [string, Readonly<Record<string, unknown>>, string])[] = [
  ['a projector that cannot start at the base', { projector: 'relu_both' }, 'use start "random"'],
  ['a scaling that the projector has not', { scaling: 'projector' }, 'has no scaling'],
  ['a rank above what a layer allows', { rank: 900 }, 'rank 900 is too large'],
  ['a word of two', { method: 'textual_inversion', word: 'two words' }, 'word: expected one word'],
  [
    'an initial word that is unknown',
    { method: 'textual_inversion', word: 'zebra', initial_word: 'horse' },
    'initial_word: expected one word that the base knows; got "horse"',
  ],
];

describe('a job is refused before its run begins for', () => {
  it.each(refused)('%s', async (_what, keys, message) => {
    await expect(run('refused', keys)).rejects.toThrow(message);
    expect(fs.existsSync(join(root, 'refused'))).toBe(false);
  });
});
