import * as T from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { lower } from '../../../packages/tensor/src/compiler/lower.ts';
import type { Device, Graph } from '../../../packages/tensor/src/device.ts';
import { describeWebGPU } from '../../support/webgpu.ts';
import { graphOf, runDevice, runPlan, runReference } from './execute.ts';

type Tensor = T.Tensor;

/** Small whole numbers, exact in every type and sum of these tests. */
function whole(seed: number, shape: readonly number[]): Tensor {
  const length = shape.reduce((product, extent) => product * extent, 1);
  return T.tensor(
    Float32Array.from({ length }, (_, i) => ((i * 7 + seed * 5) % 9) - 4),
    shape,
  );
}

/** Ways to compute a part [rows, 3]. */
const kinds: Readonly<Record<string, (rows: number, seed: number) => Tensor>> = {
  input: (rows, seed) => whole(seed, [rows, 3]),
  cut: (rows, seed) => T.narrow(whole(seed, [rows + 2, 3]), 0, 1, rows),
  elementwise: (rows, seed) => T.add(T.mul(whole(seed, [rows, 3]), 2), 1),
  product: (rows, seed) => T.matmul(whole(seed, [rows, 5]), whole(seed + 1, [5, 3])),
  transposed: (rows, seed) => T.transpose(T.matmul(whole(seed, [3, 5]), whole(seed + 1, [5, rows]))),
  scaled: (rows, seed) => T.mul(T.matmul(whole(seed, [rows, 5]), whole(seed + 1, [5, 3])), 2),
  sum: (rows, seed) => T.sum(whole(seed, [rows, 3, 6]), [2]),
  outerSum: (rows, seed) => T.sum(whole(seed, [6, rows, 3]), [0]),
  largest: (rows, seed) => T.sub(T.max(whole(seed, [rows, 3, 4]), [2]), 1),
  centred: (rows, seed) => {
    const x = whole(seed, [rows, 3]);
    return T.sub(x, T.max(x, [1], true));
  },
  scattered: (rows, seed) => T.scatterAdd(whole(seed, [4, 3]), T.tensor(Int32Array.of(0, 1, 0, 2)), rows, 0),
};

/** What becomes of the parts and their whole. */
const uses: Readonly<Record<string, (joined: Tensor, parts: readonly Tensor[]) => Tensor[]>> = {
  'the whole': (joined) => [joined],
  'a map of it': (joined) => [T.mul(T.add(joined, 1), 2)],
  'it and a fold of it': (joined) => [joined, T.sum(T.cast(joined, 'f32'), [0])],
  'a product of it': (joined) => [T.matmul(T.cast(joined, 'f32'), whole(3, [3, 4]))],
  'rows of it, twice': (joined) => [T.add(T.narrow(joined, 0, 1, 1), T.narrow(joined, 0, 0, 1))],
  'it and a part': (joined, parts) => [joined, parts[0]!],
  'it beside its first part': (joined, parts) => [T.concat([joined, parts[0]!, joined])],
};

const cases = fc.record({
  parts: fc.array(fc.tuple(fc.constantFrom(...Object.keys(kinds)), fc.integer({ min: 1, max: 9 })), {
    minLength: 2,
    maxLength: 11,
  }),
  half: fc.boolean(),
  use: fc.constantFrom(...Object.keys(uses)),
});

async function expectAgreement(
  run: (graph: Graph) => Promise<Float64Array[]> | Float64Array[],
  numRuns: number,
): Promise<void> {
  const property = fc.asyncProperty(cases, async ({ parts, half, use }) => {
    const made = parts.map(([kind, rows], i) => {
      const part = kinds[kind]!(rows, i);
      return half ? T.cast(part, 'f16') : part;
    });
    const outputs = uses[use]!(T.concat(made), made).map((x) => T.cast(x, 'f32'));
    const graph = graphOf(use === 'the whole' ? [T.concat(made)] : outputs);
    const [got, expected] = [await run(graph), await runReference(graph)];
    expect(got.map((values) => [...values])).toEqual(expected.map((values) => [...values]));
  });
  await fc.assert(property, { numRuns });
}

async function expectDevice(kind: Device['kind'], numRuns: number): Promise<void> {
  const { device } = await openDevice(kind);
  await expectAgreement((graph) => runDevice(device, graph), numRuns);
  await device.close();
}

describe('parts of a whole', () => {
  it('are what concatenation defines when compiled', () => expectAgreement(runPlan, 200));
  it('are what concatenation defines on wasm', () => expectDevice('wasm', 100));

  it('cost nothing where loops compute them', () => {
    const names = ['product', 'transposed', 'scaled', 'sum', 'outerSum', 'largest', 'centred'];
    const made = names.map((kind, i) => kinds[kind]!(4, i));
    const { kernels, buffers } = lower(graphOf([T.concat(made)]));
    expect(kernels.map(({ label }) => label)).not.toContain('concat');
    expect(kernels).toHaveLength(names.length);
    expect(buffers.filter(({ role }) => role === 'temporary')).toEqual([]);
  });

  it('are copied several at a time where they are inputs', () => {
    const made = Array.from({ length: 30 }, (_, i) => whole(i, [4, 3]));
    expect(lower(graphOf([T.concat(made)])).kernels).toHaveLength(5);
  });
});

describeWebGPU('parts of a whole', () => {
  it('are what concatenation defines on WebGPU', () => expectDevice('webgpu', 15));
});
