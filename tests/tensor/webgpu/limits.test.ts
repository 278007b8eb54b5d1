/** Sizes around every limit: the right answer, or a typed error with need and limit. Names are reliability.md's. */
import {
  add,
  argmax,
  cast,
  compile,
  concat,
  cumsum,
  type Device,
  DeviceError,
  evaluate,
  expand,
  flip,
  gather,
  less,
  matmul,
  max,
  mul,
  neg,
  permute,
  placeholder,
  read,
  relu,
  reshape,
  scatterAdd,
  slice,
  sum,
  type Tensor,
  tensor,
  where,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openWebGPU, type WebGPUDevice } from '../../../packages/tensor/src/webgpu/index.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';

/** Small whole numbers without structure: their sums are exact in f32 whatever the order. */
function whole(length: number, seed = 1): Float32Array {
  return Float32Array.from({ length }, (_, i) => ((Math.imul(i + seed, 0x9e3779b1) >>> 16) % 8) - 3);
}

/** Where two arrays differ first, or null. Matchers that print differences take seconds for long arrays. */
function difference(got: ArrayLike<number>, want: ArrayLike<number>): string | null {
  if (got.length !== want.length) return `length ${got.length}; expected ${want.length}`;
  for (let i = 0; i < want.length; i += 1) {
    if (got[i] !== want[i]) return `element ${i} is ${got[i]}; expected ${want[i]}`;
  }
  return null;
}

async function valuesOf(device: Device, tensors: readonly Tensor[]) {
  await evaluate(tensors, device);
  return Promise.all(tensors.map((x) => read(x, device)));
}

describeWebGPU('limits of WebGPU', () => {
  let device: WebGPUDevice;
  let paged: WebGPUDevice;
  beforeAll(async () => {
    device = await openWebGPU((await testAdapter()).adapter);
    paged = await openWebGPU((await testAdapter()).adapter, { capabilities: { maxBindingBytes: 4096 } });
  });
  afterAll(() => Promise.all([device.close(), paged.close()]));

  const sizes = [0, 1, 2, 3, 4, 5, 63, 64, 65, 255, 256, 257, 4095, 4097, 65535, 65536, 65537];
  test.each(sizes)('D1: %i elements are right in every kind of kernel', async (n) => {
    const [a, b] = [whole(n), whole(n, 2)];
    const to = Int32Array.from({ length: n }, (_, i) => (i * 7919) % Math.max(1, n));
    const [x, y, index] = [tensor(a), tensor(b), tensor(to)];
    const total = (values: Float32Array) => values.reduce((t, v) => t + v, 0);
    const scattered = new Float32Array(n);
    a.forEach((v, i) => {
      scattered[to[i]!]! += v;
    });
    let running = 0;
    const cases: [op: string, got: Tensor, want: ArrayLike<number>][] = [
      ['neg', neg(x), a.map((v) => -v)],
      ['mul', mul(x, y), a.map((v, i) => v * b[i]!)],
      ['where', where(less(x, y), x, 7), a.map((v, i) => (v < b[i]! ? v : 7))],
      ['cast', cast(x, 'i32'), Int32Array.from(a)],
      ['flip', flip(x, 0), a.toReversed()],
      ['concat', concat([x, y, x]), [a, b, a].flatMap((part) => [...part])],
      ['gather', gather(x, index), a.map((_, i) => a[to[i]!]!)],
      ['scatterAdd', scatterAdd(x, index, n), scattered],
      ['cumsum', cumsum(x), a.map((v) => (running += v))],
      ['sum', sum(x), [total(a)]],
      ['matmul', matmul(reshape(x, [1, n]), reshape(y, [n, 1])), [total(a.map((v, i) => v * b[i]!))]],
    ];
    if (n > 0) {
      const largest = a.reduce((m, v) => Math.max(m, v));
      cases.push(['max', max(x), [largest]], ['argmax', argmax(x), [a.indexOf(largest)]]);
    }
    const got = await valuesOf(
      device,
      cases.map(([, tensor]) => tensor),
    );
    cases.forEach(([op, , want], i) => {
      expect(difference(got[i]!, want), op).toBeNull();
    });
  });

  test('D2: a batch beyond the workgroups of one dimension is right', async () => {
    const batch = 70_001;
    const [a, b] = [whole(batch * 6), whole(batch * 6, 2)];
    const [product] = await valuesOf(device, [matmul(tensor(a, [batch, 2, 3]), tensor(b, [batch, 3, 2]))]);
    const expected = Float32Array.from({ length: batch * 4 }, (_, i) => {
      const [s, m, n] = [i >> 2, (i >> 1) & 1, i & 1];
      return [0, 1, 2].reduce((t, k) => t + a[s * 6 + m * 3 + k]! * b[s * 6 + k * 2 + n]!, 0);
    });
    expect(difference(product!, expected)).toBeNull();
  });

  describe('D3: what is larger than a binding', () => {
    const [rows, columns] = [50, 68]; // 13,600 bytes: four pages of 4,096, which end within a row
    const x = tensor(whole(rows * columns), [rows, columns]);
    const half = tensor(
      Uint16Array.from(whole(rows * columns), (v) => (v < 0 ? 0xbc00 : 0x3c00)),
      [rows, columns],
    );
    const w = tensor(whole(columns * 33, 3), [columns, 33]);
    const index = tensor(Int32Array.from({ length: 40 }, (_, i) => (i * 17) % rows));
    const cases: { readonly [name: string]: () => Tensor } = {
      'read and written': () => neg(x),
      'halves, packed or not': () => neg(half),
      transposed: () => relu(permute(x, [1, 0])),
      'reduced along rows': () => sum(x, 1),
      'reduced along columns': () => max(x, 0),
      'reduced in whole': () => sum(x),
      'multiplied from the left': () => matmul(x, w),
      'multiplied from the right': () => matmul(permute(w, [1, 0]), permute(x, [1, 0])),
      gathered: () => gather(x, index),
      scattered: () => scatterAdd(slice(x, [0, 0], [40, columns]), index, rows),
    };
    test.each(Object.keys(cases))('is right when it is %s', async (name) => {
      expect(await read(cases[name]!(), paged)).toEqual(await read(cases[name]!(), device));
    });

    test('is updated in place', async () => {
      const n = 3000;
      const step = compile((state: Tensor) => add(mul(state, 2), 1), { device: paged, donate: { 0: '' } });
      let state = add(tensor(whole(n)), 0);
      const made = () => paged.statistics.buffersCreated;
      for (let i = 0; i < 3; i += 1) state = await step(state);
      const created = made();
      for (let i = 0; i < 3; i += 1) state = await step(state);
      expect(made()).toBe(created);
      expect(await read(state, paged)).toEqual(whole(n).map((v) => v * 64 + 63));
    });

    test('in more pages than a kernel binds is refused with need and limit', async () => {
      const n = 1024 * (paged.capabilities.maxStorageBuffers + 1);
      await expect(evaluate([neg(tensor(new Float32Array(n)))], paged)).rejects.toThrow(
        /^kernel "neg": too many buffers; expected at most \d+; got \d+ \(buffers of more than 4096 bytes/,
      );
    });
  });

  test('D5: indices beyond 32 bits are refused before anything is allocated', async () => {
    const held = device.bytesInUse;
    const refused = async (output: Tensor, inputs: readonly Tensor[]) =>
      expect(device.prepare({ inputs, outputs: [output], donations: new Map() })).rejects.toThrow(
        /too many (elements|steps|addresses); expected at most 2147483644; got \d+$/,
      );
    const scalar = placeholder([1], 'f32');
    for (const n of [2 ** 31 - 3, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1]) {
      await refused(neg(expand(scalar, [n])), [scalar]);
      const x = placeholder([n], 'f32');
      await refused(sum(x), [x]);
    }
    const row = placeholder([2 ** 20], 'f32');
    await refused(sum(mul(expand(reshape(row, [1, 2 ** 20]), [2 ** 13, 2 ** 20]), 2)), [row]);
    expect(() => device.allocate('f32', 2 ** 31)).toThrow(
      new DeviceError('storage: too many elements; expected at most 2147483644; got 2147483648', {
        need: 2 ** 31,
        limit: 2 ** 31 - 4,
      }),
    );
    expect(device.bytesInUse).toBe(held);
  });

  test.each([true, false])(
    'D7: halves keep their place at every length and offset (f16: %s)',
    async (f16) => {
      const own = await openWebGPU((await testAdapter()).adapter, {
        capabilities: f16 ? {} : { f16 },
      });
      const bits = (length: number) => Uint16Array.from({ length }, (_, i) => 0x3c00 + i);
      for (let n = 1; n <= 33; n += 1) expect(await own.read(own.upload('f16', bits(n)))).toEqual(bits(n));
      const cuts = [9, 16, 33].flatMap((n) => [0, 1, 2, 3, 4, 5, 6, 7].map((offset) => ({ n, offset })));
      const parts = cuts.map(({ n, offset }) =>
        neg(slice(tensor(bits(n), [n]), [offset], [n - Math.min(1, offset)])),
      );
      const got = await valuesOf(own, parts);
      cuts.forEach(({ n, offset }, i) => {
        const expected = Float32Array.from(bits(n), (_, j) => -(1 + j / 1024));
        expect(got[i], `${n} from ${offset}`).toEqual(expected.slice(offset, n - Math.min(1, offset)));
      });
      // Each of three neighbours in one buffer is written by a kernel of its own: none may touch the others' halves.
      for (const n of [1, 2, 3, 4, 5, 8, 31, 32, 33]) {
        const [left, middle, right] = [1, n, 3].map((length) => tensor(bits(length), [length]));
        const row = concat([neg(left!), mul(cumsum(middle!), 0), neg(right!)]);
        const [halves] = await valuesOf(own, [row]);
        expect(halves, `${n}`).toEqual(
          Float32Array.of(-1, ...new Float32Array(n), -1, -(1 + 1 / 1024), -(1 + 2 / 1024)),
        );
      }
      await own.close();
    },
  );
});

describe('limits of wasm', () => {
  test('a value beyond the memory is refused with need and limit', async () => {
    const { device } = await openDevice('wasm');
    const huge = expand(tensor([1]), [2 ** 31]);
    const refused = evaluate([neg(huge)], device);
    await expect(refused).rejects.toThrow(
      /out of memory; needs 8589934592 bytes more; got \d+ bytes in use of \d+$/,
    );
    const error: DeviceError = await refused.then(Promise.reject, (reason) => reason);
    expect(error.need).toBeGreaterThanOrEqual(2 ** 33);
    expect(error.limit).toBeLessThanOrEqual(2 ** 32);
    expect(await read(neg(tensor([1, 2])), device)).toEqual(Float32Array.of(-1, -2));
    await device.close();
    await expect(read(neg(tensor([3])), device)).rejects.toThrow(DeviceError);
  });
});
