import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import {
  listCheckpoints,
  newestCheckpoint,
  openRun,
  type RunMode,
  saveCheckpoint,
  UserError,
  writeFileAtomically,
} from '@deftjs/trainer';
import fc from 'fast-check';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { killWriter, moments } from '../kill/writerKills.ts';
import { contentOf } from './children/saved.ts';

const scratch = fs.mkdtempSync(join(os.tmpdir(), 'deft-runs-'));
let folder = '';
let number = 0;
beforeEach(() => {
  number += 1;
  folder = join(scratch, String(number));
  fs.mkdirSync(folder);
});
afterEach(() => vi.restoreAllMocks());
afterAll(() => fs.rmSync(scratch, { recursive: true }));

const steps = (path = folder): number[] => listCheckpoints(path).map(({ step }) => step);
const temporaries = (path = folder): string[] =>
  fs.readdirSync(path).filter((name) => name.includes('.tmp-'));

/** The functions that a save calls to change the disk. */
const changing = ['openSync', 'mkdirSync', 'writeSync', 'fsyncSync', 'renameSync', 'closeSync'] as const;

/** Makes the file system's changing call number `failing` fail as on a full disk; resolves to the calls made so far. */
function breakCall(failing: number): () => string[] {
  const calls: string[] = [];
  for (const name of changing) {
    const real = fs[name] as (...args: unknown[]) => unknown;
    vi.spyOn(fs, name).mockImplementation(((...args: unknown[]) => {
      calls.push(name);
      if (calls.length === failing) {
        if (name === 'closeSync') real(...args); // a descriptor is closed even when closing reports an error
        throw Object.assign(new Error(`ENOSPC: no space left on device, ${name}`), { code: 'ENOSPC' });
      }
      return real(...args);
    }) as never);
  }
  return () => calls;
}

describe('a file', () => {
  it('is written, flushed, renamed, and its folder flushed, in this order', () => {
    const calls = breakCall(0);
    writeFileAtomically(join(folder, 'a'), 'text');
    const order = [
      'openSync',
      'writeSync',
      'fsyncSync',
      'closeSync',
      'renameSync',
      'openSync',
      'fsyncSync',
      'closeSync',
    ];
    expect(calls()).toEqual(order);
    expect(fs.readFileSync(join(folder, 'a'), 'utf8')).toBe('text');
  });

  it('is whole whatever call fails, the old one until it is replaced', () => {
    const path = join(folder, 'a');
    fs.writeFileSync(path, 'old');
    for (let failing = 1; failing <= 8; failing += 1) {
      breakCall(failing);
      expect(() => writeFileAtomically(path, 'new'), `call ${failing}`).toThrow(UserError);
      vi.restoreAllMocks();
      expect(fs.readFileSync(path, 'utf8')).toBe(failing <= 5 ? 'old' : 'new');
      expect(temporaries()).toEqual([]);
      fs.writeFileSync(path, 'old');
    }
  });

  it('is whole when each call writes less than it was given', () => {
    const real = fs.writeSync as (file: number, bytes: Uint8Array, at: number, length: number) => number;
    const spy = vi
      .spyOn(fs, 'writeSync')
      .mockImplementation(((file: number, bytes: Uint8Array, at: number) =>
        real(file, bytes, at, Math.min(7, bytes.length - at))) as never);
    const bytes = contentOf(3).get('state.json')!;
    writeFileAtomically(join(folder, 'a'), bytes);
    expect(spy).toHaveBeenCalledTimes(Math.ceil(bytes.length / 7));
    expect(new Uint8Array(fs.readFileSync(join(folder, 'a')))).toEqual(bytes);
  });

  it('says in one line why it cannot be written', () => {
    expect(() => writeFileAtomically(join(folder, 'none', 'a'), 'x')).toThrow(
      new UserError(`${join(folder, 'none', 'a')}: cannot write 1 bytes; the folder is gone`, 6),
    );
    fs.mkdirSync(join(folder, 'b'));
    expect(() => writeFileAtomically(join(folder, 'b'), 'x')).toThrow(
      'cannot write 1 bytes; a folder has this name',
    );
    expect(temporaries()).toEqual([]);
  });
});

describe('checkpoints', () => {
  it('come back as they were saved, the newest first', () => {
    for (const step of [1, 20, 300]) saveCheckpoint(folder, step, contentOf(step), 9);
    expect(steps()).toEqual([300, 20, 1]);
    const { checkpoint, rejected } = newestCheckpoint(folder);
    expect(checkpoint).toMatchObject({ step: 300, path: join(folder, 'step-000300') });
    expect(new Map([...checkpoint!.files].map(([name, bytes]) => [name, Uint8Array.from(bytes)]))).toEqual(
      contentOf(300),
    );
    expect(rejected).toEqual([]);
  });

  it.each([1, 2, 3])('are kept to the last %i, never fewer while one is saved', (keep) => {
    const real = fs.renameSync;
    let fewest = Number.POSITIVE_INFINITY;
    vi.spyOn(fs, 'renameSync').mockImplementation((from, to) => {
      if (steps().length < keep + 1 && /\/step-\d+$/.test(String(from)))
        fewest = Math.min(fewest, steps().length);
      real(from, to);
    });
    for (let step = 1; step <= 12; step += 1) {
      saveCheckpoint(folder, step, contentOf(step), keep);
      expect(steps()).toEqual(Array.from({ length: Math.min(keep, step) }, (_, i) => step - i));
    }
    expect(fewest).toBe(Number.POSITIVE_INFINITY); // nothing was deleted while there were not keep + 1
  });

  it('saved before are untouched whatever call of a save fails', () => {
    saveCheckpoint(folder, 1, contentOf(1), 2);
    const count = breakCall(0);
    saveCheckpoint(folder, 2, contentOf(2), 2);
    const calls = count().length;
    vi.restoreAllMocks();
    fs.rmSync(join(folder, 'step-000002'), { recursive: true });
    expect(calls).toBeGreaterThan(15);
    for (let failing = 1; failing <= calls; failing += 1) {
      breakCall(failing);
      expect(() => saveCheckpoint(folder, 2, contentOf(2), 2), `call ${failing}`).toThrow(
        /the disk is full \(\d+ bytes free\)/,
      );
      vi.restoreAllMocks();
      const { checkpoint, rejected } = newestCheckpoint(folder);
      expect(rejected).toEqual([]);
      // Only the flush of the folder comes after the rename.
      expect(checkpoint!.step, `call ${failing} of ${calls}`).toBe(failing > calls - 3 ? 2 : 1);
      expect(temporaries()).toEqual([]);
      fs.rmSync(join(folder, 'step-000002'), { recursive: true, force: true });
    }
  });

  it('can be saved again for the same step, and stay whatever call of that fails', () => {
    saveCheckpoint(folder, 1, contentOf(1), 2);
    const count = breakCall(0);
    saveCheckpoint(folder, 1, contentOf(5), 2);
    vi.restoreAllMocks();
    for (let failing = 1; failing <= count().length; failing += 1) {
      breakCall(failing);
      expect(() => saveCheckpoint(folder, 1, contentOf(7), 2)).toThrow(UserError);
      vi.restoreAllMocks();
      expect(newestCheckpoint(folder)).toMatchObject({ checkpoint: { step: 1 }, rejected: [] });
    }
  });

  it('that are damaged anywhere are named and skipped', () => {
    saveCheckpoint(folder, 1, contentOf(1), 2);
    const path = saveCheckpoint(folder, 2, contentOf(2), 2);
    const file = fc.constantFrom('weights.safetensors', 'state.json', 'manifest.json');
    fc.assert(
      fc.property(
        file,
        fc.nat(),
        fc.nat(7),
        fc.constantFrom('flip', 'cut', 'delete'),
        (name, where, bit, damage) => {
          const whole = fs.readFileSync(join(path, name));
          const bytes = Uint8Array.from(whole);
          bytes[where % bytes.length]! ^= 1 << bit;
          if (damage === 'flip') fs.writeFileSync(join(path, name), bytes);
          if (damage === 'cut') fs.writeFileSync(join(path, name), bytes.subarray(0, where % bytes.length));
          if (damage === 'delete') fs.rmSync(join(path, name));
          const { checkpoint, rejected } = newestCheckpoint(folder);
          fs.writeFileSync(join(path, name), whole);
          // A flipped bit may only change a blank to another that JSON allows.
          if (checkpoint!.step === 2) {
            const blanks = (text: Uint8Array): string =>
              Buffer.from(text).toString('latin1').replace(/\s/g, ' ');
            expect([name, damage]).toEqual(['manifest.json', 'flip']);
            expect(blanks(bytes)).toBe(blanks(whole));
          } else {
            expect(checkpoint!.step).toBe(1);
            expect(rejected).toMatchObject([{ path, reason: expect.stringContaining(name) }]);
          }
        },
      ),
      { numRuns: 200 },
    );
    expect(newestCheckpoint(folder).checkpoint!.step).toBe(2);
  });

  it('that were swapped, or belong to another step, are refused', () => {
    const path = saveCheckpoint(folder, 1, contentOf(1), 2);
    fs.cpSync(path, join(folder, 'step-000009'), { recursive: true });
    expect(newestCheckpoint(folder)).toMatchObject({
      checkpoint: { step: 1 },
      rejected: [{ path: join(folder, 'step-000009'), reason: 'manifest.json is that of step 1' }],
    });
    fs.renameSync(join(path, 'state.json'), join(path, 'x'));
    fs.renameSync(join(path, 'weights.safetensors'), join(path, 'state.json'));
    fs.renameSync(join(path, 'x'), join(path, 'weights.safetensors'));
    expect(newestCheckpoint(folder).checkpoint).toBeNull();
  });

  it('that are newer but damaged go when the run has gone past them, not before', () => {
    for (const step of [1, 2, 9]) saveCheckpoint(folder, step, contentOf(step), 3);
    fs.rmSync(join(folder, 'step-000009', 'state.json'));
    saveCheckpoint(folder, 3, contentOf(3), 2);
    expect(steps()).toEqual([3, 2]);
  });

  it('never read or write a name that leads out', () => {
    expect(() => saveCheckpoint(folder, 1, new Map([['../x', new Uint8Array()]]), 1)).toThrow(RangeError);
    const path = saveCheckpoint(folder, 1, contentOf(1), 1);
    const manifest = join(path, 'manifest.json');
    const { sha256: _, ...content } = JSON.parse(
      fs.readFileSync(manifest, 'utf8').replace('state.json', '../x'),
    );
    const sha256 = createHash('sha256').update(JSON.stringify(content)).digest('hex');
    fs.writeFileSync(manifest, JSON.stringify({ ...content, sha256 }));
    expect(newestCheckpoint(folder)).toMatchObject({
      checkpoint: null,
      rejected: [{ reason: '../x is missing' }],
    });
  });
});

describe('a run', () => {
  const open = (mode: RunMode, command = 'train') => openRun({ root: folder, name: 'robot', mode, command });
  const inside = (...names: string[]): string => join(folder, 'robot', ...names);
  const refusal = (mode: RunMode, command?: string): string => {
    try {
      open(mode, command)[Symbol.dispose]();
      return 'opened';
    } catch (error) {
      expect((error as UserError).exitStatus).toBe(2);
      return (error as UserError).message.replaceAll(inside(), 'RUN');
    }
  };
  const finish = (): void => {
    using run = open('new');
    run.write('adapter/adapter_config.json', '{}');
    run.write('report.md', '# robot');
    run.saveCheckpoint(7, contentOf(7), 2);
  };

  it('is made, resumed with what it wrote, or begun anew', () => {
    finish();
    {
      using run = open('resume');
      expect(run.isResumed).toBe(true);
      expect(run.newestCheckpoint().checkpoint!.step).toBe(7);
      expect(run.read('report.md')?.toString()).toBe('# robot');
      expect(run.read('other.md')).toBeNull();
    }
    {
      using run = open('fresh');
      expect(run.isResumed).toBe(false);
      expect(run.newestCheckpoint().checkpoint).toBeNull();
      expect(run.read('report.md')).toBeNull();
    }
    expect(fs.readdirSync(inside())).toEqual(['.deft-run.json']);
  });

  it('says what can be done with a folder that is in use', () => {
    expect(refusal('resume')).toBe('RUN: there is no run to resume; leave --resume out');
    finish();
    expect(refusal('new')).toBe(
      'RUN: a run is here already (checkpoint at step 7); give --resume to go on with it or --fresh to delete it and start anew',
    );
    expect(refusal('fresh', 'pretrain')).toBe(
      'RUN: a run of deft train, not of deft pretrain; choose another name',
    );
    expect(fs.existsSync(inside('report.md'))).toBe(true);
  });

  it('never touches a folder that deft did not make', () => {
    fs.mkdirSync(inside());
    fs.writeFileSync(inside('thesis.txt'), 'years of work');
    for (const mode of ['new', 'resume', 'fresh'] as const) {
      expect(refusal(mode)).toBe('RUN: the folder holds files that deft did not make; choose another name');
    }
    expect(fs.readdirSync(inside())).toEqual(['thesis.txt']);
  });

  it('begun anew leaves what others put into its folder', () => {
    finish();
    fs.writeFileSync(inside('notes.txt'), 'mine');
    fs.writeFileSync(inside('adapter', 'mine.txt'), 'mine');
    fs.writeFileSync(inside('checkpoints', 'mine.txt'), 'mine');
    open('fresh')[Symbol.dispose]();
    expect(fs.readdirSync(inside(), { recursive: true }).sort()).toEqual(
      [
        '.deft-run.json',
        'adapter',
        'adapter/mine.txt',
        'checkpoints',
        'checkpoints/mine.txt',
        'notes.txt',
      ].sort(),
    );
  });

  it('deletes nothing outside its folder, whatever its marker says', () => {
    finish();
    fs.writeFileSync(join(folder, 'outside.txt'), 'mine');
    const marker = inside('.deft-run.json');
    fs.writeFileSync(marker, JSON.stringify({ madeBy: 'deft', command: 'train', files: ['../outside.txt'] }));
    expect(() => open('fresh')).toThrow(RangeError);
    expect(fs.existsSync(join(folder, 'outside.txt'))).toBe(true);
  });

  it('is one process’s at a time', () => {
    using run = open('new');
    run.write('a.txt', 'a');
    fs.writeFileSync(inside('.deft-lock'), String(process.ppid));
    expect(() => open('resume')).toThrow(`process ${process.ppid} is at work on this run; wait for it`);
    fs.writeFileSync(inside('.deft-lock'), '4194304'); // more than Linux gives out: a process that is gone
    open('resume')[Symbol.dispose]();
  });

  it('sweeps what killed writes left, in every folder it wrote to', () => {
    finish();
    const left = [
      inside('.report.md.tmp-1-x'),
      inside('adapter', '.a.tmp-1-x'),
      inside('checkpoints', '.step-000008.tmp-1-x'),
    ];
    for (const path of left) fs.writeFileSync(path, 'half');
    open('resume')[Symbol.dispose]();
    expect(left.filter((path) => fs.existsSync(path))).toEqual([]);
  });

  it('writes only inside its folder', () => {
    using run = open('new');
    for (const name of ['../x', '/x', 'a/../../x', '', '.hidden', 'checkpoints/x']) {
      expect(() => run.write(name, ''), name).toThrow(RangeError);
    }
  });

  it('survives a crash before its marker was in place', () => {
    fs.mkdirSync(inside());
    fs.writeFileSync(inside('.deft-lock'), '4194304');
    fs.writeFileSync(inside('..deft-run.json.tmp-1-x'), 'half');
    open('new')[Symbol.dispose]();
    expect(fs.readdirSync(inside())).toEqual(['.deft-run.json']);
  });

  it('has whole checkpoints after kills at each moment of a save', async () => {
    const { failures, kills } = await killWriter({ folder, kills: 2 * moments.length });
    expect(failures).toEqual([]);
    expect(kills).toEqual(Object.fromEntries(moments.map((moment) => [moment, 2])));
  });
});
