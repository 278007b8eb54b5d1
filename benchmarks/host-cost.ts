/**
 * What JavaScript costs beside the kernels, on Dawn's null backend, which validates everything and computes nothing:
 * node --import tsx --conditions=@deftjs/source benchmarks/host-cost.ts [--json]
 *
 * A replayed training step, from the call to the submit, and one tiny op, from the call to the submit.
 */
import { add, compile, evaluate, type Tensor, tensor, treeLeaves, treeMap, zeros } from '@deftjs/tensor';
import type { WebGPUDevice } from '../packages/tensor/src/webgpu/index.ts';
import { tensorsOf, trainStart, trainStep } from './deft.ts';
import { openNull } from './null.ts';
import { inputsOf, type Row, rows } from './rows.ts';

interface Cost {
  readonly name: string;
  readonly medianMicroseconds: number;
  /** A tenth of the runs take less: what is left of it on a busy machine. */
  readonly lowMicroseconds: number;
  readonly dispatches: number;
  readonly submits: number;
}

/** Queued runs after which the device is waited for, untimed. */
const QUEUED = 5;

async function measure(
  device: WebGPUDevice,
  name: string,
  runs: number,
  run: () => Promise<void>,
): Promise<Cost> {
  const times: number[] = [];
  let before = device.statistics;
  for (let i = -runs; i < runs; i += 1) {
    if (i === 0) before = device.statistics; // half of the runs warm up
    const started = performance.now();
    await run();
    if (i >= 0) times.push(1000 * (performance.now() - started));
    if (i % QUEUED === 0) await device.idle();
  }
  times.sort((a, b) => a - b);
  const after = device.statistics;
  if (after.buffersCreated !== before.buffersCreated || after.bindGroupsCreated !== before.bindGroupsCreated)
    throw new Error(`${name}: warm runs create buffers or bind groups`);
  return {
    name,
    medianMicroseconds: times[runs >> 1]!,
    lowMicroseconds: times[Math.floor(runs / 10)]!,
    dispatches: (after.dispatches - before.dispatches) / runs,
    submits: (after.submits - before.submits) / runs,
  };
}

async function trainingStep(device: WebGPUDevice, row: Row): Promise<Cost> {
  const inputs = tensorsOf(inputsOf(row));
  const step = compile(trainStep(row), { device, donate: { 0: 'state' } });
  const start = trainStart(row, inputs);
  let state = treeMap((x) => add(x, zeros([])), start.state); // tensors of its own to donate
  await evaluate(treeLeaves(state), device);
  const cost = await measure(device, row.name, 300, async () => {
    const next = await step(state, start.data);
    state = next.state;
    next.loss.dispose();
  });
  // What the collector gave back later would take turns with the buffers of the next row.
  for (const x of [...treeLeaves(state), ...treeLeaves(start), ...Object.values(inputs)]) x.dispose();
  step.dispose();
  return cost;
}

const device = await openNull();
const costs: Cost[] = [];
for (const row of rows.filter(({ mode }) => mode === 'train')) costs.push(await trainingStep(device, row));

const x = tensor(new Float32Array(256), [16, 16]);
costs.push(
  await measure(device, 'one tiny op, eager', 5000, async () => {
    const y = add(x, 1);
    await evaluate([y], device);
    y.dispose();
  }),
);
const increment = compile((given: Tensor) => add(given, 1), { device });
costs.push(await measure(device, 'one tiny op, compiled', 5000, async () => (await increment(x)).dispose()));

if (process.argv.includes('--json')) console.log(JSON.stringify(costs, null, 2));
else {
  console.log('median us   low us  dispatches  submits');
  for (const { name, medianMicroseconds, lowMicroseconds, dispatches, submits } of costs) {
    const columns = [medianMicroseconds.toFixed(1), lowMicroseconds.toFixed(1), dispatches, submits];
    const [median, low, d, s] = columns.map(String);
    console.log(`${median!.padStart(9)} ${low!.padStart(8)} ${d!.padStart(11)} ${s!.padStart(8)}  ${name}`);
  }
}
await device.close();
