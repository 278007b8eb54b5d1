// Saves checkpoints and a file of a run, says each step that is safe, and is killed at a moment of one of the saves:
// writer FOLDER FIRST-STEP KEEP MOMENT NUMBER, where NUMBER counts how often the moment comes.
import fs from 'node:fs';
import { openRun } from '../../../packages/trainer/src/runs/index.ts';
import { contentOf } from './saved.ts';

const [root, firstText, keep, moment, numberText] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
];
const first = Number(firstText);
let left = Number(numberText);

/** The end of this process, as by the kernel, the `left`-th time that it is asked for. */
function end(): void {
  left -= 1;
  if (left === 0) process.kill(process.pid, 'SIGKILL');
}

/** Has `before` and `after` run around every call of a function of the file system. */
function around(
  name: 'mkdirSync' | 'writeSync' | 'fsyncSync' | 'renameSync' | 'rmSync',
  { before, after }: { before?: (...args: readonly unknown[]) => void; after?: () => void },
): void {
  const real = fs[name] as (...args: readonly unknown[]) => unknown;
  (fs as unknown as Record<string, unknown>)[name] = (...args: readonly unknown[]) => {
    before?.(...args);
    const result = real(...args);
    after?.();
    return result;
  };
}

const run = openRun({ root, name: 'run', mode: first === 1 ? 'new' : 'resume', command: 'train' });
const writeBytes = fs.writeSync as (file: number, bytes: Uint8Array, at: number, length: number) => number;
switch (moment) {
  case 'before the draft':
    around('mkdirSync', { before: end });
    break;
  case 'inside a write': {
    around('writeSync', {
      before: (file, bytes) => {
        if (left === 1) writeBytes(file as number, bytes as Uint8Array, 0, (bytes as Uint8Array).length >> 1);
        end();
      },
    });
    break;
  }
  case 'before a flush':
    around('fsyncSync', { before: end });
    break;
  case 'before a rename':
    around('renameSync', { before: end });
    break;
  case 'after a rename':
    around('renameSync', { after: end });
    break;
  case 'inside a rotation':
    around('rmSync', {
      before: (folder) => {
        const path = String(folder);
        if (!fs.existsSync(path)) return;
        // Half of what is being deleted.
        if (left === 1) fs.unlinkSync(`${path}/${fs.readdirSync(path)[0]}`);
        end();
      },
    });
    break;
}
for (let step = first; ; step += 1) {
  run.saveCheckpoint(step, contentOf(step), Number(keep));
  run.write('log.json', JSON.stringify(Array.from({ length: step }, (_, i) => i + 1)));
  writeBytes(1, Buffer.from(`${step}\n`), 0, `${step}\n`.length);
}
