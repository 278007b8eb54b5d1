// The training loop with steps that compute on this thread, as the wasm backend does: blockingSteps FOLDER
import { writeSync } from 'node:fs';
import { referenceDevice, setDevice, tensor } from '@deftjs/tensor';
import { interruptible } from '../../../packages/trainer/src/progress/interrupt.ts';
import { openRun } from '../../../packages/trainer/src/runs/index.ts';
import { runSteps } from '../../../packages/trainer/src/train/steps.ts';

setDevice(referenceDevice());
using stop = interruptible(() => {});
using run = openRun({ root: process.argv[2]!, name: 'run', mode: 'new', command: 'train' });
const { done } = await runSteps({
  label: 'train',
  run,
  total: 1000, // some ten seconds, should the signal not be heard
  checkpointEvery: 10_000,
  keepCheckpoints: 1,
  first: { weight: tensor([1, 2]) },
  step: async (state, step) => {
    const until = performance.now() + 10;
    while (performance.now() < until);
    if (step === 3) writeSync(1, 'ready\n');
    return { state, loss: 1, measured: {} };
  },
  stop: () => stop.signal.aborted,
});
writeSync(1, `stopped after ${done}\n`);
process.exitCode = stop.exitStatus ?? 0;
