// A job with faults: faulty FOLDER FAULT..., the k-th start has the k-th fault and the one after the last ends well.
import fs from 'node:fs';
import { beat } from '../../../packages/trainer/src/progress/index.ts';

const [folder, ...faults] = process.argv.slice(2) as [string, ...string[]];
const starts = fs.readdirSync(folder).length;
fs.writeFileSync(`${folder}/${starts}`, '');
for (const what of ['step', 'other', 'step'] as const) beat(what); // the second step goes on
const fault = faults[starts];
if (fault === 'hang') for (;;);
if (fault === 'crash') process.kill(process.pid, 'SIGSEGV');
if (fault === 'wait') setInterval(() => beat('other'), 50);
if (fault?.startsWith('exit')) process.exitCode = Number(fault.slice(4));
if (fault !== 'wait') process.disconnect?.();
