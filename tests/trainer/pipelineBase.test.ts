/** Folders of diffusers as bases of deft train: a tiny Stable Diffusion, as diffusers saved it. */
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { setDevice } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { drawPrompts } from '../../packages/trainer/src/base/draw.ts';
import { loadBase } from '../../packages/trainer/src/base/folder.ts';
import { openModel } from '../../packages/trainer/src/base/open.ts';
import { planRun } from '../../packages/trainer/src/commands/jobRun.ts';
import { train } from '../../packages/trainer/src/train/train.ts';
import { caseFolder } from '../models/goldenCase.ts';
import { writePipeline } from '../support/pipelineFolders.ts';
import { tinyConfig } from './tinyBase.ts';

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-pipelines-'));
const base = join(root, 'sd');
const cache = join(root, 'cache');
const folder = join(root, 'toys');

beforeAll(async () => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
  vi.stubEnv('DEFT_CACHE', cache);
  setDevice((await openDevice('wasm')).device);
  fs.cpSync(caseFolder('sd-tiny-pipeline'), base, { recursive: true });
  const robots = new URL('../../examples/data/robot/', import.meta.url);
  fs.mkdirSync(folder);
  for (let i = 1; i <= 5; i += 1) {
    fs.copyFileSync(new URL(`${i}.png`, robots), join(folder, `${i}.png`));
    fs.writeFileSync(join(folder, `${i}.txt`), `toy ${i}`); // the tiny base reads few tokens
  }
});
afterAll(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  fs.rmSync(root, { recursive: true });
});

const prompt = 'a toy';
const common = {
  base,
  data: { folder },
  steps: 5,
  checkpoint_every: 3,
  sampling: { steps: 2, seeds: [1], prompts: [prompt] },
};

async function run(
  name: string,
  keys: Readonly<Record<string, unknown>>,
  mode: 'new' | 'resume' = 'new',
): Promise<string> {
  const config = tinyConfig(root, name, { ...common, ...keys });
  await train(config, planRun({ root, name, mode, command: 'train' }, config), new AbortController().signal);
  return join(root, name);
}

function learnt(folder: string): Map<string, Buffer> {
  const names = fs.readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  const files = names.filter((name) => /^(adapter|model)\/.*\.safetensors$/.test(name));
  return new Map(files.map((name) => [name, fs.readFileSync(join(folder, name))]));
}

async function drawn(model: string, strength?: number) {
  const { device } = await openDevice('wasm');
  const options = { prompts: [prompt], seeds: [1], steps: 2, guidanceScale: 3, device };
  const [sample] = await drawPrompts(await openModel(model, device, strength), options);
  return sample!.pictures[0]!.data;
}

const text = { text_encoder: { target_modules: ['q_proj', 'v_proj'] } };
const jobs: readonly (readonly [string, Readonly<Record<string, unknown>>])[] = [
  ['deft', { method: 'deft', data: { folder, flip: 0.5 } }],
  ['lora-text', { method: 'lora', ...text }],
  ['word', { method: 'textual_inversion', word: 'toy', initial_word: 'a', vectors: 2 }],
  ['dreambooth', { method: 'dreambooth', text_encoder: {} }],
];

describe.each(jobs)('%s on Stable Diffusion', (name, keys) => {
  it('trains, resumes to the bit and is drawn with', async () => {
    const out = await run(name, keys);
    const whole = learnt(out);
    expect(whole.size).toBeGreaterThan(0);
    const [newest] = fs.readdirSync(join(out, 'checkpoints')).sort().reverse();
    fs.rmSync(join(out, 'checkpoints', newest!), { recursive: true });
    await run(name, keys, 'resume');
    for (const [file, bytes] of learnt(out)) expect(bytes.equals(whole.get(file)!), file).toBe(true);
    const [plain, off, on] = [await drawn(base), await drawn(out, 0), await drawn(out)];
    if (name !== 'word') expect(off).toEqual(plain); // a new word at its start is another word than before
    expect(on).not.toEqual(name === 'word' ? plain : off);
  }, 60_000);
});

describe.each(['StableDiffusionXLPipeline', 'FluxPipeline'])('a %s', (name) => {
  it('is trained, adapters and text encoder, and drawn with', async () => {
    const own = join(root, name);
    fs.mkdirSync(own);
    await writePipeline(own, name);
    const keys = { base: own, data: { folder, resolution: 8 }, text_encoder: { target_modules: ['q_proj'] } };
    const out = await run(`${name}-lora`, { ...keys, method: 'lora', rank: 2, recompute: false });
    expect(learnt(out).size).toBeGreaterThan(0);
    expect(await drawn(out)).not.toEqual(await drawn(out, 0));
  }, 60_000);
});

it('is not trained on places drawn anew, since its latents are computed once', async () => {
  const keys = { method: 'lora', data: { folder, random_crop: true } };
  await expect(run('cropped', keys)).rejects.toThrow('data.random_crop: this base has a VAE');
});

describe('what is encoded once', () => {
  const files = () =>
    fs
      .readdirSync(join(cache, 'training'), { recursive: true, encoding: 'utf8' })
      .filter((f) => /safet/.test(f));
  it('gives the same adapter computed, kept, found again, and when what was kept is damaged', async () => {
    const without = learnt(await run('uncached', { data: { folder, cache: false } }));
    fs.rmSync(join(cache, 'training'), { recursive: true, force: true });
    const first = learnt(await run('first', {}));
    const kept = files();
    expect(kept.length).toBe(5 + 6); // latents of the pictures; contexts of their captions and of none
    const again = learnt(await run('again', {}));
    expect(files()).toEqual(kept);
    for (const file of kept) fs.writeFileSync(join(cache, 'training', file), 'damaged');
    const mended = learnt(await run('mended', {}));
    for (const other of [first, again, mended]) expect(other).toEqual(without);
  }, 60_000);

  it('is found by its content: other pictures and other weights are computed', async () => {
    const before = files().length;
    const other = join(root, 'base-of-other-weights');
    fs.cpSync(base, other, { recursive: true });
    const weights = join(other, 'vae/diffusion_pytorch_model.safetensors');
    const bytes = fs.readFileSync(weights);
    bytes[bytes.length - 4]! ^= 1;
    fs.writeFileSync(weights, bytes);
    await run('other-vae', { base: other });
    expect(files().length).toBe(before + 5);
  }, 60_000);
});

describe('class pictures', () => {
  it('are drawn where they are missing, kept, and used again', async () => {
    const classes = join(root, 'classes');
    const prior = { source: 'base', prompts: ['a toy', 'a dog'], pictures: 3, folder: classes };
    await run('prior', { prior });
    const pictures = () => fs.readdirSync(classes).filter((name) => name.endsWith('.png'));
    expect(pictures()).toHaveLength(3);
    expect(fs.readFileSync(join(classes, 'class-00001.txt'), 'utf8')).toBe('a dog\n');
    const times = pictures().map((name) => fs.statSync(join(classes, name)).mtimeMs);
    const again = learnt(await run('prior-again', { prior }));
    expect(pictures().map((name) => fs.statSync(join(classes, name)).mtimeMs)).toEqual(times);
    expect(again).toEqual(learnt(join(root, 'prior')));
    await expect(run('classless', { prior: { source: 'base' } })).rejects.toThrow(
      'prior.prompts: expected a prompt for each class',
    );
  }, 60_000);
});

describe('a base that cannot be trained', () => {
  it('is refused by name before its weights are read', async () => {
    const folder = join(root, 'dit');
    fs.mkdirSync(folder);
    fs.writeFileSync(join(folder, 'model_index.json'), '{"_class_name": "DiTPipeline"}');
    await expect(loadBase(folder)).rejects.toThrow(
      /a base of class DiTPipeline; it draws pictures of numbered classes.*StableDiffusionPipeline/,
    );
    await expect(run('small', { data: { folder, resolution: 30 } })).rejects.toThrow('multiple of 4 pixels');
  });
});
