import * as T from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { lower } from '../../../packages/tensor/src/compiler/lower.ts';
import type { Device, Graph } from '../../../packages/tensor/src/device.ts';
import { describeWebGPU } from '../../support/webgpu.ts';
import { graphOf, runDevice, runPlan, runReference } from './execute.ts';

type Tensor = T.Tensor;

/** Small whole numbers: sums of them are exact. */
function whole(seed: number, shape: readonly number[]): Tensor {
  const length = shape.reduce((product, extent) => product * extent, 1);
  return T.tensor(
    Float32Array.from({ length }, (_, i) => ((i * 7 + seed * 5) % 9) - 4),
    shape,
  );
}

/** Folds of x and y over the given axes. */
const folds: Readonly<Record<string, (x: Tensor, y: Tensor, axes: readonly number[]) => Tensor>> = {
  sum: (x, _y, axes) => T.sum(x, axes),
  product: (x, y, axes) => T.sum(T.mul(x, y), axes),
  largest: (_x, y, axes) => T.max(y, axes),
  scaled: (x, y, axes) => T.mul(T.sum(T.sub(x, y), axes), 2),
  'plus another value': (x, y, axes) => T.add(T.sum(T.square(y), axes), T.sum(x, axes)),
  'of a fold': (x, y, axes) => T.sum(T.sub(y, T.max(x, axes, true)), axes),
  half: (x, y, axes) => T.cast(T.sum(T.add(x, y), axes), 'f16'),
};

const cases = fc.record({
  names: fc.array(fc.constantFrom(...Object.keys(folds)), { minLength: 2, maxLength: 6 }),
  shape: fc.tuple(
    fc.integer({ min: 1, max: 3 }),
    fc.integer({ min: 1, max: 9 }),
    fc.constantFrom(1, 3, 4, 8, 33),
  ),
  axes: fc.constantFrom([0, 1], [2], [0, 2], [1], [0, 1, 2]),
  joined: fc.boolean(),
});

/** Values with zeros of one sign: WGSL promises neither. */
const unsigned = (values: Float64Array): number[] => [...values].map((value) => value + 0);

async function expectAgreement(
  run: (graph: Graph) => Promise<Float64Array[]> | Float64Array[],
  numRuns: number,
): Promise<void> {
  const property = fc.asyncProperty(cases, async ({ names, shape, axes, joined }) => {
    const inputs = names.map((_, i) => [whole(i % 3, shape), whole(i % 2, shape)] as const);
    const results = names.map((name, i) => folds[name]!(...inputs[i]!, axes));
    const flat = results.map((x) => T.reshape(T.cast(x, 'f32'), [-1]));
    const graph = graphOf(joined ? [T.concat(flat)] : results);
    const [got, expected] = [await run(graph), await runReference(graph)];
    expect(got.map(unsigned)).toEqual(expected.map(unsigned));
  });
  await fc.assert(property, { numRuns });
}

async function expectDevice(kind: Device['kind'], numRuns: number): Promise<void> {
  const { device } = await openDevice(kind);
  await expectAgreement((graph) => runDevice(device, graph), numRuns);
  await device.close();
}

describe('folds side by side', () => {
  it('are what each of them defines when compiled', () => expectAgreement(runPlan, 200));
  it('are what each of them defines on wasm', () => expectDevice('wasm', 100));

  it.each([
    ['of channels', [0, 2]],
    ['of columns', [0, 1]],
  ])('%s are one kernel', (_, axes) => {
    const [x, y] = [whole(0, [4, 8, 16]), whole(1, [4, 8, 16])];
    const graph = graphOf([T.sum(T.mul(x, y), axes), T.sum(y, axes), T.max(x, axes)]);
    expect(lower(graph).kernels).toHaveLength(1);
  });

  it('stay apart where one reads what another leads to', () => {
    const x = whole(0, [4, 8, 16]);
    const columns = T.sum(x, [0, 1]);
    const further = T.matmul(T.reshape(columns, [1, 16]), whole(1, [16, 16 * 32]));
    const graph = graphOf([columns, T.sum(T.add(x, T.reshape(further, [4, 8, 16])), [0, 1])]);
    expect(lower(graph).kernels).toHaveLength(3);
  });
});

describeWebGPU('folds side by side', () => {
  it('are what each of them defines on WebGPU', () => expectDevice('webgpu', 20));
});
