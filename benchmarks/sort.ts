/**
 * How long sorting a row takes, values and indices read back:
 *
 *     node --import tsx --conditions=@deftjs/source benchmarks/sort.ts [--device wasm|webgpu] [--json]
 *
 * `first` compiles, `ms` is the median of five more. Up to 8,192 elements are sorted by counting, more by merging.
 */
import { parseArgs } from 'node:util';
import { evaluate, keyOf, randomNormal, read, sort } from '@deftjs/tensor';
import { type DeviceName, openDevice } from '@deftjs/tensor/node';

const { values: options } = parseArgs({
  options: { device: { type: 'string', default: 'wasm' }, json: { type: 'boolean', default: false } },
});
const { device } = await openDevice(options.device as DeviceName);
const results: { readonly n: number; readonly first: number; readonly ms: number }[] = [];
for (const n of [1000, 8192, 10_000, 100_000, 1_000_000]) {
  const x = randomNormal(keyOf(n), [n]);
  await evaluate([x], device);
  const times: number[] = [];
  for (let i = 0; i < 6; i += 1) {
    const began = performance.now();
    const { values, indices } = sort(x);
    await evaluate([values, indices], device);
    const [inOrder] = await Promise.all([read(values), read(indices)]);
    times.push(performance.now() - began);
    for (const y of [values, indices]) y.dispose();
    if (inOrder.some((value, k) => k > 0 && inOrder[k - 1]! > value))
      throw new Error(`sort: ${n} not in order`);
  }
  const [first, ...later] = times as [number, ...number[]];
  results.push({ n, first, ms: later.sort((a, b) => a - b)[2]! });
  x.dispose();
}
if (options.json) console.log(JSON.stringify({ device: device.description, results }, null, 2));
else {
  console.log(device.description);
  console.log('        n  first ms        ms');
  for (const { n, first, ms } of results) {
    console.log([String(n).padStart(9), first.toFixed(0).padStart(9), ms.toFixed(1).padStart(9)].join(' '));
  }
}
await device.close();
