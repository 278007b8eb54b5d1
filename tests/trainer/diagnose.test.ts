/** `deft diagnose` on runs of a base too small to draw anything. */
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { referenceDevice, setDevice } from '@deftjs/tensor';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { planRun } from '../../packages/trainer/src/commands/jobRun.ts';
import { diagnoseRun, diagnoseToFiles } from '../../packages/trainer/src/inspect/diagnose.ts';
import { train } from '../../packages/trainer/src/train/train.ts';
import { saveTinyBase, tinyConfig } from './tinyBase.ts';

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-diagnose-'));
const run = (name: string): string => join(root, name);

async function trained(name: string, keys: Readonly<Record<string, unknown>>): Promise<void> {
  const config = tinyConfig(root, name, { steps: 3, ...keys });
  const open = planRun({ root, name, mode: 'new', command: 'train' }, config);
  await train(config, open, new AbortController().signal);
}

beforeAll(async () => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
  setDevice(referenceDevice());
  await saveTinyBase(join(root, 'base'));
  const shared = { rank: 2, target_modules: ['to_q', 'conv1'] };
  await trained('qr', { ...shared, method: 'deft', projector: 'qr' });
  await trained('still', { ...shared, method: 'deft', projector: 'qr', p_learning_rate_ratio: 0 });
  await trained('lora', { ...shared, method: 'lora', target_modules: ['to_k'] });
  await trained('shifts', { method: 'svdiff' });
  await trained('whole', { method: 'dreambooth', learning_rate: 1e-4 });
}, 120_000);
afterAll(() => {
  vi.restoreAllMocks();
  fs.rmSync(root, { recursive: true });
});

describe('deft diagnose', () => {
  const diagnosed = (name: string, other: string | null = null) =>
    diagnoseRun(run(name), { other: other && run(other), device: 'wasm' });

  it('finds projectors of the rank, directions that moved, and angles in degrees', async () => {
    const layers = await diagnosed('qr', 'still');
    expect(layers.length).toBeGreaterThan(2);
    for (const { projectorDefect, toWeight, toStart, toOther, singularValueShare } of layers) {
      expect(projectorDefect).toBeLessThan(1e-5);
      expect([toWeight.length, toStart!.length, toOther!.length]).toEqual([2, 2, 2]);
      expect(Math.max(...toStart!)).toBeGreaterThan(0.01);
      for (const angle of [...toWeight, ...toStart!, ...toOther!]) {
        expect(angle).toBeGreaterThanOrEqual(0);
        expect(angle).toBeLessThanOrEqual(90);
      }
      expect(singularValueShare).toBeGreaterThan(0);
      expect(singularValueShare).toBeLessThan(1);
    }
  });

  it('finds P where it was drawn when it is not trained', async () => {
    for (const { toStart } of await diagnosed('still')) expect(Math.max(...toStart!)).toBeLessThan(1e-3);
  });

  it('finds that SVDiff moves singular values alone', async () => {
    for (const { singularValueShare, toStart } of await diagnosed('shifts')) {
      expect(toStart).toBeNull();
      if (singularValueShare !== null) expect(singularValueShare).toBeGreaterThan(0.999);
    }
  });

  it('writes the numbers and a drawing of every layer', async () => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    await diagnoseToFiles(run('qr'), { other: null, device: 'wasm', out: run('out') });
    expect(log.mock.calls.flat().slice(0, 3)).toEqual(
      ['json', 'svg', 'png'].map((kind) => join(run('out'), `diagnosis.${kind}`)),
    );
    log.mockRestore();
    const { layers } = JSON.parse(fs.readFileSync(join(run('out'), 'diagnosis.json'), 'utf8'));
    const svg = fs.readFileSync(join(run('out'), 'diagnosis.svg'), 'utf8');
    for (const { path } of layers) expect(svg).toContain(path);
    const { width, height } = await sharp(join(run('out'), 'diagnosis.png')).metadata();
    expect(width).toBeGreaterThan(1500);
    expect(height).toBeGreaterThan(20 * layers.length);
  });

  it('says in one line what it cannot diagnose, and writes nothing', async () => {
    const refused = (name: string, other: string | null = null) =>
      diagnoseToFiles(run(name), { other: other && run(other), device: 'wasm', out: run('none') });
    await expect(refused('nowhere')).rejects.toThrow(`${run('nowhere')}: no run of deft train is here`);
    await expect(refused('whole')).rejects.toThrow(
      'its method is dreambooth, which has no adapters on layers',
    );
    await expect(refused('qr', 'lora')).rejects.toThrow(`${run('lora')}: has no layer in common with`);
    expect(fs.existsSync(run('none'))).toBe(false);
  });
});
