import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { type RunMode, readTrainConfig } from '@deftjs/trainer';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { planRun } from '../../packages/trainer/src/commands/jobRun.ts';

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-job-'));
afterAll(() => fs.rmSync(root, { recursive: true }));
beforeEach(() => fs.rmSync(join(root, 'robot'), { recursive: true, force: true }));

const config = (...overrides: string[]) => readTrainConfig('examples/personalize.yaml', overrides);
const plan = (mode: RunMode, ...overrides: string[]) =>
  planRun({ root, name: 'robot', mode, command: 'train' }, config(...overrides));

describe('a planned run', () => {
  it('touches nothing before it is opened, and then keeps its configuration', () => {
    const open = plan('new');
    expect(fs.existsSync(join(root, 'robot'))).toBe(false);
    open()[Symbol.dispose]();
    expect(readTrainConfig(join(root, 'robot', 'config.yaml'))).toEqual(config());
  });

  it('is refused at once where there is a run already, or none to resume', () => {
    expect(() => plan('resume')).toThrow('there is no run to resume');
    plan('new')()[Symbol.dispose]();
    expect(() => plan('new')).toThrow(
      'give --resume to go on with it or --fresh to delete it and start anew',
    );
  });

  it('is resumed with more steps or on another device, and says so in its configuration', () => {
    plan('new')()[Symbol.dispose]();
    plan('resume', 'steps=2000', 'device=reference', 'sampling.steps=5')()[Symbol.dispose]();
    expect(readTrainConfig(join(root, 'robot', 'config.yaml'))).toMatchObject({
      steps: 2000,
      device: 'reference',
    });
  });

  it('is not resumed as another experiment', () => {
    plan('new')()[Symbol.dispose]();
    expect(() => plan('resume', 'rank=8', 'prior.weight=2', 'steps=7')).toThrow(
      'the run began with another configuration (prior, rank); give the one it had',
    );
    expect(readTrainConfig(join(root, 'robot', 'config.yaml'))).toEqual(config()); // untouched
    plan('fresh', 'rank=8')()[Symbol.dispose]();
    expect(readTrainConfig(join(root, 'robot', 'config.yaml'))).toMatchObject({ rank: 8 });
  });
});
