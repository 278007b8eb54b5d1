/** A supervised job: started again when it hangs or dies, not when it says what is wrong, and stopped when asked. */
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { supervise } from '../../packages/trainer/src/runs/index.ts';
import { childProgram } from './children/child.ts';

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-supervise-'));
let program = '';
let folder = '';
let said: string[] = [];
beforeAll(async () => {
  program = await childProgram('faulty');
});
beforeEach(() => {
  folder = fs.mkdtempSync(join(root, 'run-'));
  said = [];
});
afterAll(() => fs.rmSync(root, { recursive: true }));

const starts = (): number => fs.readdirSync(folder).length;

function run(faults: readonly string[], restarts = 3): Promise<number> {
  return supervise({
    args: (again) => [program, folder, ...faults, ...(again ? ['again'] : [])],
    hangSeconds: 1,
    restarts,
    tell: (line) => said.push(line),
  });
}

describe('a job', () => {
  it('that hangs, crashes and loses its device goes on each time', async () => {
    expect(await run(['hang', 'crash', 'exit5'])).toBe(0);
    expect(starts()).toBe(4);
    expect(said).toEqual([
      expect.stringMatching(/^deft: the job gave no sign of life for 1 s; going on .* \(1 of 3\)$/),
      'deft: the job was ended by SIGSEGV; going on from its newest checkpoint (2 of 3)',
      'deft: the job lost its device; going on from its newest checkpoint (3 of 3)',
    ]);
  }, 20_000);

  it('that dies again and again is given up', async () => {
    expect(await run(['crash', 'crash', 'crash'], 2)).toBe(5);
    expect(starts()).toBe(3);
    expect(said.at(-1)).toMatch(/it was started 3 times within an hour, which is enough$/);
  });

  it.each([0, 1, 2, 3, 4, 6, 130])('that ends with %i is not started again', async (status) => {
    expect(await run([`exit${status}`])).toBe(status);
    expect(starts()).toBe(1);
    expect(said).toEqual([]);
  });

  it('is told to stop as its supervisor is', async () => {
    const before = process.listenerCount('SIGTERM');
    const ended = run(['wait']);
    while (starts() === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    process.emit('SIGTERM');
    expect(await ended).toBe(1); // no status of its own: it ended by the signal
    expect(starts()).toBe(1);
    expect(process.listenerCount('SIGTERM')).toBe(before);
  });
});
