/**
 * Where a row's time goes on WebGPU: each kernel of this engine timed on its own, the dearest first.
 *
 *     npm run bench:profile -- [--only TEXT]... [--kernels N]
 */
import { parseArgs } from 'node:util';
import { compile, type KernelTime, matmul, type Tensor, zeros } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { functions, ownState, tensorsOf, trainStart, trainStep } from './deft.ts';
import { quantile } from './report.ts';
import { inputsOf, type Row, rows } from './rows.ts';

const { values } = parseArgs({
  options: { only: { type: 'string', multiple: true }, kernels: { type: 'string', default: '12' } },
});

function line({ label, description, milliseconds, flops, bytes }: KernelTime): string {
  const seconds = milliseconds / 1e3;
  const rates = `${(flops / seconds / 1e12).toFixed(2)} TFLOP/s, ${(bytes / seconds / 1e9).toFixed(0)} GB/s`;
  return `  ${(1e3 * milliseconds).toFixed(1).padStart(9)} us  ${rates.padEnd(28)} ${description} (${label.slice(0, 60)})`;
}

const STEPS = 40;

/** Steps of training in a row: milliseconds until one is queued, until it is done, and each of many at once. */
async function timeSteps(row: Row, step: ReturnType<typeof compiledStep>): Promise<string> {
  const start = trainStart(row, tensorsOf(inputsOf(row)));
  let state = await ownState(start.state, device);
  const advance = async (): Promise<void> => {
    const next = await step(state, start.data);
    state = next.state;
    next.loss.dispose();
  };
  const elapsed = async (steps: number, isDone: boolean): Promise<number> => {
    const started = performance.now();
    for (let i = 0; i < steps; i += 1) await advance();
    if (isDone) await device.idle();
    const milliseconds = performance.now() - started;
    await device.idle();
    return milliseconds / steps;
  };
  await elapsed(STEPS, true);
  const median = async (isDone: boolean): Promise<number> => {
    const times: number[] = [];
    for (let i = 0; i < STEPS; i += 1) times.push(await elapsed(1, isDone));
    return quantile(times, 0.5);
  };
  const [queued, done, many] = [await median(false), await median(true), await elapsed(STEPS, true)];
  return `a step: ${queued.toFixed(2)} ms until queued, ${done.toFixed(2)} ms until done, ${many.toFixed(2)} ms each of ${STEPS}`;
}

function compiledStep(row: Row) {
  return compile(trainStep(row), { donate: { 0: 'state' } });
}

async function profileOf(row: Row): Promise<readonly KernelTime[]> {
  const tensors = tensorsOf(inputsOf(row));
  if (row.mode !== 'train') return compile(functions[row.computes]!).profile(tensors);
  const { state, data } = trainStart(row, tensors);
  return compiledStep(row).profile(state, data);
}

function print(name: string, flops: number | undefined, times: readonly KernelTime[]): void {
  const total = times.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const rate = flops === undefined ? '' : `, ${(flops / total / 1e9).toFixed(2)} TFLOP/s`;
  console.log(`${name}: ${times.length} kernels, ${(1e3 * total).toFixed(1)} us${rate}`);
  const dearest = [...times].sort((a, b) => b.milliseconds - a.milliseconds);
  for (const time of dearest.slice(0, Number(values.kernels))) console.log(line(time));
}

const { device, why } = await openDevice('webgpu');
console.log(why);
// A GPU's clocks are down when it has had nothing to do.
const warm = compile((a: Tensor) => matmul(a, a), { device });
const square = zeros([1024, 1024]);
for (let i = 0; i < 500 && why.includes('[hardware]'); i += 1) (await warm(square)).dispose();
await device.idle();
const wanted = (name: string): boolean => values.only?.some((text) => name.includes(text)) ?? true;
for (const row of rows) {
  if (row.mode === 'eager' || row.mode === 'readback' || !wanted(row.name)) continue;
  print(row.name, row.flops, await profileOf(row));
  if (row.mode === 'train') console.log(`  ${await timeSteps(row, compiledStep(row))}`);
}
for (const n of [1024, 2048, 4096]) {
  const name = `matmul ${n} f16`;
  if (!wanted(name)) continue;
  const product = compile((a: Tensor, b: Tensor) => matmul(a, b));
  print(name, 2 * n ** 3, await product.profile(zeros([n, n], 'f16'), zeros([n, n], 'f16')));
}
await device.close();
