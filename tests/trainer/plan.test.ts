import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { readTrainConfig } from '@deftjs/trainer';
import { afterAll, describe, expect, it } from 'vitest';
import { checkBaseFits, checkFits, type Plan, planLines } from '../../packages/trainer/src/train/plan.ts';

const folder = fs.mkdtempSync(join(os.tmpdir(), 'deft-plan-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

const plan: Plan = {
  config: readTrainConfig('examples/personalize.yaml'),
  pictures: 5,
  captions: 'from files',
  priorPictures: 0,
  epochs: 2000,
  buckets: [],
  prompts: 8,
  trained: { layers: 92, parameters: 1000 },
  parameters: 10_000,
  device: 'wasm',
  stepBytes: 60e6,
  stateBytes: 20e6,
  freeBytes: 100e6,
};

describe('a plan', () => {
  it('says what is trained, how long, and what memory it takes', () => {
    const text = planLines(plan).join('\n');
    expect(text).toMatch(/^method {4}DEFT, rank 4, projector qr, on world-base$/m);
    expect(text).toMatch(/92 layers, 1,000 of 10,000 numbers \(10 %\)/);
    expect(text).toMatch(/2,000 steps of 5 pictures: 2,000 epochs, .* reached over 20 steps/);
    expect(text).toMatch(/^memory {4}100\.0 MB on wasm .*; 100\.0 MB free$/m);
  });

  it('is refused for want of memory, to the byte, where the memory is the machine’s own', () => {
    expect(() => checkFits(plan)).not.toThrow();
    const short = { ...plan, stepBytes: plan.stepBytes + 1 };
    expect(() => checkFits(short)).toThrow(/robot: training needs 100\.0 MB of memory; got 100\.0 MB free/);
    expect(() => checkFits({ ...short, device: 'webgpu' })).not.toThrow();
  });

  it('counts the weights of every part of a base before reading any', () => {
    fs.mkdirSync(join(folder, 'unet'));
    fs.writeFileSync(join(folder, 'unet/a.safetensors'), Buffer.alloc(600));
    fs.writeFileSync(join(folder, 'b.safetensors'), Buffer.alloc(400));
    fs.writeFileSync(join(folder, 'notes.txt'), Buffer.alloc(5000));
    expect(() => checkBaseFits(folder, 2000)).not.toThrow();
    expect(() => checkBaseFits(folder, 1999)).toThrow(/does not fit in memory/);
  });
});
