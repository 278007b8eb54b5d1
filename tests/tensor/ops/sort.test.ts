/** Long rows, which are sorted by merging: the very order of a stable sort on the host. */
import { argsort, type Device, type DType, read, sort, type Tensor, tensor, topk } from '@deftjs/tensor';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encode } from '../../../packages/tensor/src/dtype.ts';
import { openWasmNode } from '../../../packages/tensor/src/node/wasm.ts';
import { referenceDevice } from '../../../packages/tensor/src/reference.ts';
import { openWebGPU } from '../../../packages/tensor/src/webgpu/index.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';

/** a - b, where NaN is larger than every number. */
function compare(a: number, b: number): number {
  if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
  return a < b ? -1 : Number(a > b);
}

/** Positions in order, equal elements as they come. */
function expectedOrder(row: readonly number[], descending: boolean): number[] {
  const sign = descending ? -1 : 1;
  return row.map((_, i) => i).sort((a, b) => sign * compare(row[a]!, row[b]!) || a - b);
}

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;
const odd = [nan, inf, -inf, 0, -0, 1, -1, 65504, -65504, 2 ** -14];
const whole = { i32: [2 ** 31 - 1, -(2 ** 31), 0, -1, 1], u32: [0, 1, 2 ** 31, 2 ** 32 - 1] };

type Sorted = 'f32' | 'f16' | 'i32' | 'u32';

/** Values with many equal ones among them, some of them odd. */
function valuesOf(dtype: Sorted, length: number, seed: number): number[] {
  const special = dtype === 'f32' || dtype === 'f16' ? odd : whole[dtype];
  let state = seed;
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const drawn = state >>> 8;
    if (drawn % 7 === 0) return special[(drawn >>> 4) % special.length]!;
    const number = (drawn >>> 4) % 3000;
    return dtype === 'u32' ? number : number - 1500;
  });
}

const leaf = (dtype: Sorted, values: readonly number[], shape: readonly number[]): Tensor =>
  tensor(encode(dtype, values), shape, dtype as DType);

async function expectSorted(device: Device, dtype: Sorted, n: number, seed: number, descending: boolean) {
  const rows = 2;
  const values = valuesOf(dtype, rows * n, seed);
  const x = leaf(dtype, values, [rows, n]);
  const indices = await read(argsort(x, { descending }), device);
  for (let r = 0; r < rows; r += 1) {
    const order = Array.from(indices.slice(r * n, (r + 1) * n), Number);
    expect(order).toEqual(expectedOrder(values.slice(r * n, (r + 1) * n), descending));
  }
}

describe('long rows', () => {
  let device: Device;
  beforeAll(async () => {
    device = await openWasmNode({ threads: 2 });
  });
  afterAll(() => device.close());

  it('are in the order of a stable sort, whatever their type', async () => {
    const types = fc.constantFrom<Sorted>('f32', 'f16', 'i32', 'u32');
    await fc.assert(
      fc.asyncProperty(
        types,
        fc.integer({ min: 8193, max: 20_000 }),
        fc.nat(),
        fc.boolean(),
        (dtype, n, seed, descending) => expectSorted(device, dtype, n, seed, descending),
      ),
      { numRuns: 8 },
    );
  });

  it('are sorted along any axis, and give their largest elements', async () => {
    const n = 9000;
    const values = valuesOf('f32', 2 * n, 5);
    const x = leaf('f32', values, [n, 2]);
    const sorted = sort(x, { axis: 0 });
    const best = topk(x, 5, 0);
    const [byAxis, at, top] = await Promise.all(
      [sorted.values, sorted.indices, best.indices].map((y) => read(y, device)),
    );
    for (const column of [0, 1]) {
      const own = values.filter((_, i) => i % 2 === column);
      const order = expectedOrder(own, false);
      const ofColumn = (y: ArrayLike<number>): number[] =>
        Array.from(y, Number).filter((_, i) => i % 2 === column);
      expect(ofColumn(at!)).toEqual(order);
      expect(ofColumn(byAxis!)).toEqual(order.map((i) => Math.fround(own[i]!)));
      expect(ofColumn(top!)).toEqual(expectedOrder(own, true).slice(0, 5));
    }
  });

  it('are sorted the same by the reference', () => expectSorted(referenceDevice(), 'f32', 8300, 3, true));

  it('of f64 are compared as f64', async () => {
    const n = 8200;
    // Neighbours differ by less than an f32 tells apart.
    const values = Float64Array.from({ length: n }, (_, i) => 1 + ((i * 4099) % n) * 2 ** -40);
    const indices = await read(argsort(tensor(values, [n], 'f64')), referenceDevice());
    expect(Array.from(indices, Number)).toEqual(expectedOrder([...values], false));
  });
});

describeWebGPU('long rows', () => {
  it('are in the order of a stable sort', async () => {
    const device = await openWebGPU((await testAdapter()).adapter);
    await expectSorted(device, 'f32', 8193, 11, false);
    await device.close();
  });
});
