// Works in steps until asked to stop, then writes "checkpoint": stopping STEP-MS
import { writeSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { interruptible } from '../../../packages/trainer/src/progress/interrupt.ts';

using stop = interruptible();
writeSync(1, 'ready\n');
while (!stop.signal.aborted) await setTimeout(Number(process.argv[2]));
writeSync(1, 'checkpoint\n');
process.exitCode = stop.exitStatus ?? 0;
