import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { formatDuration, newestCheckpoint, openProgress, type ProgressStream } from '@deftjs/trainer';
import { beforeAll, describe, expect, it } from 'vitest';
import { childProgram, start } from './children/child.ts';

/** A stream that keeps what is written to it. */
function recorder(isTTY: boolean): { stream: ProgressStream; text(): string } {
  const stream = Object.assign(new PassThrough(), { isTTY, columns: 120 });
  let text = '';
  stream.on('data', (chunk) => {
    text += chunk;
  });
  return { stream, text: () => text };
}

describe('progress in a log', () => {
  it('is at most one line in five seconds, with loss, speed and time left, and the last step', () => {
    const { stream, text } = recorder(false);
    let timeMs = 0;
    {
      using progress = openProgress({ label: 'train robot', total: 100, stream, now: () => timeMs });
      for (let step = 1; step <= 30; step += 1) {
        timeMs += 500;
        progress.update(step, 0.25);
        if (step === 12) progress.note('a checkpoint');
      }
    }
    expect(text().split('\n')).toEqual([
      'train robot: step 1 of 100, loss 0.2500',
      'train robot: step 11 of 100, loss 0.2500, 2.00 steps/s, 45s left',
      'a checkpoint',
      'train robot: step 21 of 100, loss 0.2500, 2.00 steps/s, 40s left',
      'train robot: step 30 of 100, loss 0.2500, 2.00 steps/s, 35s left',
      '',
    ]);
  });

  it('does not count the first step, which compiles, nor the steps before a resume', () => {
    const { stream, text } = recorder(false);
    let timeMs = 0;
    using progress = openProgress({ label: 'train', total: 60, done: 50, stream, now: () => timeMs });
    timeMs += 60_000;
    progress.update(51, 1);
    timeMs += 6000;
    progress.update(52, 1);
    expect(text()).toContain('step 52 of 60, loss 1.0000, 6.0 s/step, 48s left');
  });

  it('does not count what is done between steps, such as drawing samples', () => {
    const { stream, text } = recorder(false);
    let timeMs = 0;
    using progress = openProgress({ label: 'train', total: 60, stream, now: () => timeMs });
    for (let step = 1; step <= 10; step += 1) {
      timeMs += 2000;
      progress.update(step, 1);
      timeMs += 100_000;
      progress.begin();
    }
    expect(text()).toContain('step 10 of 60, loss 1.0000, 2.0 s/step, 1m40s left');
  });

  it('passes over losses that are not finite', () => {
    const { stream, text } = recorder(false);
    let timeMs = 0;
    using progress = openProgress({ label: 'train', total: 9, stream, now: () => timeMs });
    progress.update(1, 0.5);
    timeMs += 6000;
    progress.update(2, Number.NaN);
    expect(text()).toContain('step 2 of 9, loss 0.5000');
  });
});

it('is a bar in a terminal, with notes above it', () => {
  const { stream, text } = recorder(true);
  {
    using progress = openProgress({ label: 'train robot', total: 4, stream });
    for (let step = 1; step <= 4; step += 1) progress.update(step, 1e-5);
    progress.note('a checkpoint');
  }
  expect(text()).toContain('a checkpoint\n');
  expect(text()).toMatch(/train robot \[=+\] 4\/4 {2}loss 1\.00e-5/);
});

it.each([
  [0, '0s'],
  [59.4, '59s'],
  [60, '1m00s'],
  [185, '3m05s'],
  [7620, '2h07m'],
  [-3, '0s'],
  [Number.NaN, '0s'],
])('%d seconds are written as %s', (seconds, words) => {
  expect(formatDuration(seconds)).toBe(words);
});

describe('a signal', () => {
  let program = '';
  beforeAll(async () => {
    program = await childProgram('stopping');
  });

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)(
    '%s lets the step end and its checkpoint be written, then exits with %i',
    async (signal, code) => {
      const child = start(program, ['10']);
      await child.says('ready');
      child.process.kill(signal);
      child.process.kill(signal); // the same Ctrl-C, passed on by a supervisor
      expect(await child.ended).toEqual({ code, signal: null });
      expect(child.output()).toBe('ready\ncheckpoint\n');
      expect(child.errors()).toBe(
        'deft: stopping after this step, with a checkpoint (once more: at once, without)\n',
      );
    },
  );

  it('is heard by a loop whose steps block the thread, which saves a checkpoint', async () => {
    const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-stop-'));
    const child = start(await childProgram('blockingSteps'), [root]);
    await child.says('ready');
    child.process.kill('SIGTERM');
    expect(await child.ended).toEqual({ code: 143, signal: null });
    const { checkpoint } = newestCheckpoint(join(root, 'run', 'checkpoints'));
    const done = Number(child.output().match(/stopped after (\d+)/)?.[1]);
    expect(done).toBeGreaterThan(0);
    expect(checkpoint!.step).toBe(done);
    expect([...checkpoint!.files.keys()]).toEqual(['state.safetensors', 'loss.json']);
    fs.rmSync(root, { recursive: true });
  });

  it('given a second time ends the process at once', async () => {
    const child = start(program, ['100000']); // a step that does not end
    await child.says('ready');
    child.process.kill('SIGINT');
    // Later than an echo of the first, however slow the machine: the child must have seen that before.
    const again = setInterval(() => child.process.kill('SIGINT'), 100);
    expect(await child.ended).toEqual({ code: 130, signal: null });
    clearInterval(again);
    expect(child.output()).toBe('ready\n');
  });
});
