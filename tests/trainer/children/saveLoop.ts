// Saves checkpoints and a file of a run for ever, and says each step that is safe: saveLoop FOLDER FIRST-STEP KEEP
import { writeSync } from 'node:fs';
import { openRun } from '../../../packages/trainer/src/runs/index.ts';
import { contentOf } from './saved.ts';

const [root, first, keep] = process.argv.slice(2) as [string, string, string];
const run = openRun({ root, name: 'run', mode: Number(first) === 1 ? 'new' : 'resume', command: 'train' });
for (let step = Number(first); ; step += 1) {
  run.saveCheckpoint(step, contentOf(step), Number(keep));
  run.write('log.json', JSON.stringify(Array.from({ length: step }, (_, i) => i + 1)));
  writeSync(1, `${step}\n`);
}
