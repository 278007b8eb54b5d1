/** `deft advise` on a base too small to draw anything. */
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { referenceDevice, setDevice } from '@deftjs/tensor';
import { readTrainConfig } from '@deftjs/trainer';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { adviceFor, keysOf, printAdvice } from '../../packages/trainer/src/train/advise.ts';
import { saveTinyBase, tinyConfig } from './tinyBase.ts';

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-advise-'));
const request = { probeSteps: 2, ranks: [1, 2], steps: 4, share: 0.5 };
const job = (keys: Readonly<Record<string, unknown>> = {}) =>
  tinyConfig(root, 'job', { method: 'deft', target_modules: ['to_q', 'to_v'], learning_rate: 0.02, ...keys });

beforeAll(async () => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
  setDevice(referenceDevice());
  await saveTinyBase(join(root, 'base'));
}, 60_000);
afterAll(() => {
  vi.restoreAllMocks();
  fs.rmSync(root, { recursive: true });
});

describe('deft advise', () => {
  it('takes no more steps than allowed, ranks by the loss on noise that no trial saw, and gives its reasons', async () => {
    const { best, ranking, steps, sweepSteps, reasons } = await adviceFor(job(), request);
    expect(sweepSteps).toBe(9 * 2 * 4);
    expect(steps).toBeLessThanOrEqual(0.5 * sweepSteps);
    expect(ranking[0]!.candidate).toEqual(best);
    const finished = ranking.filter((outcome) => outcome.steps === 4).map(({ score }) => score);
    expect(finished).toEqual([...finished].sort((a, b) => a - b));
    expect(ranking.every(({ score }) => score > 0)).toBe(true);
    expect(
      reasons.filter((reason) => reason.includes('directions hold 90 % of the mean gradient')).length,
    ).toBe(
      Object.keys(JSON.parse(fs.readFileSync(join(root, 'job.json'), 'utf8')).target_modules).length *
        reasons.filter((reason) => /\.to_q: /.test(reason)).length,
    );
    expect(reasons.at(-1)).toBe(
      `${steps} steps taken of the ${sweepSteps} of a full sweep: ${((100 * steps) / sweepSteps).toFixed(1)} %`,
    );
  }, 60_000);

  it('prints keys that deft train takes', async () => {
    const lines: string[] = [];
    const log = vi.spyOn(console, 'log').mockImplementation((line) => void lines.push(String(line)));
    await printAdvice(job(), request);
    log.mockRestore();
    const keys = lines.slice(lines.findIndex((line) => line.includes('# for the file')) + 1);
    const file = join(root, 'advised.yaml');
    fs.writeFileSync(file, [...keys, 'name: advised', `data: { folder: ${root} }`].join('\n'));
    expect(readTrainConfig(file)).toMatchObject({ name: 'advised' });
    expect(keysOf({ name: 'tsvd', rank: 2 })).toEqual({ method: 'deft', projector: 'tsvd', rank: 2 });
    expect(keysOf({ name: 'para', rank: 2 })).toEqual({ method: 'para', rank: 2 });
  }, 60_000);

  it('says in one line what it cannot advise on', async () => {
    const dreambooth = tinyConfig(root, 'whole', { method: 'dreambooth' });
    await expect(adviceFor(dreambooth, request)).rejects.toThrow('dreambooth has no layers to choose for');
    await expect(adviceFor(job(), { ...request, share: 0.05 })).rejects.toThrow(
      /need \d+ at least; got a budget of/,
    );
    await expect(adviceFor(job({ target_modules: ['to_z'] }), request)).rejects.toThrow(/"?to_z"?/);
  }, 60_000);
});
