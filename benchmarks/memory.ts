/**
 * Memory over 2,000 steps of DEFT training on the shipped base:
 *
 *     node --import tsx --conditions=@deftjs/source benchmarks/memory.ts [STEPS] > benchmarks/results/memory.json
 *
 * Bytes on the device must not change at all, the process by 1 MiB per 100 steps at most once it is warm (reliability.md, B14).
 */
import os from 'node:os';
import { setDevice } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { readTrainConfig } from '@deftjs/trainer';
import { loadBase } from '../packages/trainer/src/base/folder.ts';
import { readTrainingData } from '../packages/trainer/src/data/index.ts';
import { applyMethod } from '../packages/trainer/src/train/method.ts';
import { firstState, trainStep } from '../packages/trainer/src/train/personalize.ts';

const steps = Number(process.argv[2] ?? 2000);
const every = 100;
const config = readTrainConfig('examples/personalize.yaml');
const { device } = await openDevice('wasm');
setDevice(device);
const model = await loadBase(config.base);
const { pictures } = await readTrainingData(config.data.folder, {
  size: model.pictureSize,
  instancePrompt: null,
  captionProblem: () => null,
});
await applyMethod(model, config, device);
const { take } = trainStep(model, config, { pictures, prior: [], contexts: null }, device);
let state = firstState(model, config);
const samples: { step: number; deviceBytes: number; residentBytes: number }[] = [];
for (let step = 0; step < steps; step += 1) {
  ({ state } = await take(state, step));
  if ((step + 1) % every !== 0) continue;
  globalThis.gc?.();
  const { rss: residentBytes } = process.memoryUsage();
  samples.push({ step: step + 1, deviceBytes: device.bytesInUse, residentBytes });
}
const half = samples.slice(samples.length >> 1);
const growth = (half.at(-1)!.residentBytes - half[0]!.residentBytes) / ((half.length - 1) * every) / 2 ** 20;
console.log(
  JSON.stringify(
    {
      command: 'benchmarks/memory.ts',
      machine: `${os.cpus()[0]!.model}, ${os.cpus().length} cores, Node ${process.version}, ${device.description}`,
      steps,
      deviceBytes: [...new Set(samples.map(({ deviceBytes }) => deviceBytes))],
      residentMiBPer100StepsInTheSecondHalf: Number((100 * growth).toFixed(3)),
      samples,
    },
    null,
    1,
  ),
);
await device.close();
