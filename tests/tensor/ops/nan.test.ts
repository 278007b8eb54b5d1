/**
 * What is promised of NaN: max, min, maximum, minimum, argmax and argmin pass it on wherever it stands on the reference and
 * on wasm (a shader may assume that there is none); tests of bits, and orders by them, hold on every device.
 */
import * as api from '@deftjs/tensor';
import { type Device, read, referenceDevice, type Tensor, tensor } from '@deftjs/tensor';
import { afterAll, describe, expect, it } from 'vitest';
import { openWasmNode } from '../../../packages/tensor/src/node/wasm.ts';
import { openWebGPU } from '../../../packages/tensor/src/webgpu/index.ts';
import { hasWebGPU, testAdapter } from '../../support/webgpu.ts';

const wasm = await openWasmNode({ threads: 2 });
const webgpu = hasWebGPU ? await openWebGPU((await testAdapter()).adapter) : null;
afterAll(async () => {
  await wasm.close();
  await webgpu?.close();
});

const exact: readonly (readonly [string, Device])[] = [
  ['reference', referenceDevice()],
  ['wasm', wasm],
];
const every: readonly (readonly [string, Device])[] = webgpu ? [...exact, ['WebGPU', webgpu]] : exact;

/** Lengths of less than a vector, of vectors with a tail, and of several runs. */
const lengths = [1, 2, 3, 5, 8, 33, 300];

/** Rows that hold one NaN each, at every place (of the first and last nine), of both signs. */
function rowsWith(length: number): { x: Tensor; places: number[] } {
  const places = [...Array(length).keys()].filter((i) => i < 9 || i >= length - 9);
  const rows = places.map((place) => {
    const row = Float32Array.from({ length }, (_, i) => Math.sin(i));
    new Uint32Array(row.buffer)[place] = place % 2 === 0 ? 0x7fc00000 : 0xffc00001;
    return [...row.keys()].map((i) => row[i]!);
  });
  return { x: tensor(Float32Array.from(rows.flat()), [places.length, length]), places };
}

describe.each(exact)('on %s', (_name, device) => {
  it.each(lengths)('max and min of %i elements are NaN wherever one stands', async (length) => {
    const { x, places } = rowsWith(length);
    for (const y of [api.max(x, 1), api.min(x, 1)])
      expect([...(await read(y, device))]).toEqual(places.map(() => Number.NaN));
    expect(await read(api.max(x), device)).toEqual(Float32Array.of(Number.NaN));
  });

  it.each(lengths)('argmax and argmin of %i elements find the first NaN', async (length) => {
    const { x, places } = rowsWith(length);
    for (const y of [api.argmax(x, 1), api.argmin(x, 1)])
      expect([...(await read(y, device))]).toEqual(places);
  });

  it('maximum and minimum pass it on from either side', async () => {
    const [a, b] = [tensor([Number.NaN, 1, Number.NaN]), tensor([1, Number.NaN, Number.NaN])];
    for (const y of [api.maximum(a, b), api.minimum(a, b)])
      expect([...(await read(y, device))]).toEqual([Number.NaN, Number.NaN, Number.NaN]);
  });
});

describe.each(every)('on %s', (_name, device) => {
  it('the bits tell NaN, infinity and numbers', async () => {
    const { NaN: nan, POSITIVE_INFINITY: inf } = Number;
    const x = tensor([nan, inf, -inf, 0, -0, 3.4028234663852886e38, 1.1754943508222875e-38, -1]);
    const kinds = [api.isnan(x), api.isinf(x), api.isfinite(x)];
    const got = await Promise.all(kinds.map(async (y) => [...(await read(y, device))].join('')));
    expect(got).toEqual(['10000000', '01100000', '00011111']);
  });

  it('sorting puts it last, and first when descending', async () => {
    const x = tensor([2, Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, Number.NaN, 2]);
    expect([...(await read(api.argsort(x), device))]).toEqual([2, 0, 5, 3, 1, 4]);
    expect([...(await read(api.argsort(x, { descending: true }), device))]).toEqual([1, 4, 3, 0, 5, 2]);
  });
});

describe.each(every.slice(1))('on %s', (_name, device) => {
  it('one bad element among 2^20 is found at 20 places', async () => {
    const values = new Float32Array(2 ** 20).fill(1);
    for (let i = 0; i < 20; i += 1) {
      const place = Math.imul(i + 1, 0x9e3779b1) >>> 12;
      values[place] = i % 2 === 0 ? Number.NaN : Number.NEGATIVE_INFINITY;
      const finite = api.all(api.isfinite(tensor(values.slice())));
      expect([...(await read(finite, device))], `at ${place}`).toEqual([0]);
      values[place] = 1;
    }
    expect([...(await read(api.all(api.isfinite(tensor(values))), device))]).toEqual([1]);
  });
});
