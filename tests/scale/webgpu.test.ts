/** Sizes beyond what ordinary runs can afford: `npm run test:scale`. Every element is checked. */
import { add, type Device, evaluate, flip, matmul, neg, permute, read, sum, tensor } from '@deftjs/tensor';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openWebGPUNode } from '../../packages/tensor/src/node/webgpu.ts';
import { describeWebGPU } from '../support/webgpu.ts';

/** Small whole numbers without structure: their sums are exact in f32 as long as they stay below 2^24. */
function whole(length: number, seed = 1): Float32Array {
  const values = new Float32Array(length);
  for (let i = 0; i < length; i += 1) values[i] = ((Math.imul(i + seed, 0x9e3779b1) >>> 16) % 8) - 3.5;
  return values;
}

/** The first element that is not what it should be, or -1. */
function firstWrong(got: ArrayLike<number>, length: number, want: (i: number) => number): number {
  if (got.length !== length) return got.length;
  for (let i = 0; i < length; i += 1) if (got[i] !== want(i)) return i;
  return -1;
}

describeWebGPU('large values on WebGPU', () => {
  let device: Device;
  beforeAll(async () => {
    device = await openWebGPUNode();
  });
  afterAll(() => device.close());

  const sizes = [
    ...[2 ** 22 - 1, 2 ** 22 + 1, 2 ** 24, 2 ** 24 + 1, 2 ** 25 - 1, 2 ** 25 + 1],
    ...[33_792_000, 65_535 * 1024 - 1, 65_535 * 1024 + 1, 100_000_000],
  ];
  test.each(sizes)('D1, D2: %i elements, all right', async (n) => {
    const host = whole(n);
    const x = tensor(host);
    const [y, back, total] = [add(neg(x), 2), flip(x, 0), sum(x)];
    await evaluate([y, back, total], device);
    expect(firstWrong((await read(y))!, n, (i) => 2 - host[i]!)).toBe(-1);
    y.dispose();
    expect(firstWrong((await read(back))!, n, (i) => host[n - 1 - i]!)).toBe(-1);
    back.dispose();
    const exact = host.reduce((a, b) => a + b, 0);
    // Partial sums beyond 2^24 round, each to one part in 2^24 of itself.
    expect(Math.abs((await read(total))[0]! - exact)).toBeLessThanOrEqual(2 ** -20 * n);
    for (const z of [x, total]) z.dispose();
  });

  test.each([65_536, 250_000])('D2: a batch of %i products', async (batch) => {
    const [a, b] = [whole(batch * 4), whole(batch * 4, 2)];
    const [x, y] = [tensor(a, [batch, 2, 2]), tensor(b, [batch, 2, 2])];
    const product = (i: number) => {
      const [s, m, n] = [i & ~3, (i >> 1) & 1, i & 1];
      return a[s + 2 * m]! * b[s + n]! + a[s + 2 * m + 1]! * b[s + 2 + n]!;
    };
    expect(firstWrong(await read(matmul(x, y), device), batch * 4, product)).toBe(-1);
  });

  test('D3: a weight of 600 MiB and an activation of 200 MiB', async () => {
    const [out, width] = [15_360, 10_240];
    const w = whole(out * width);
    const x = whole(4 * width, 3);
    const weight = tensor(w, [out, width]);
    const y = await read(matmul(tensor(x, [4, width]), permute(weight, [1, 0])), device);
    const dot = (i: number) => {
      const [row, column] = [Math.floor(i / out) * width, (i % out) * width];
      let total = 0;
      for (let k = 0; k < width; k += 1) total += x[row + k]! * w[column + k]!;
      return total;
    };
    expect(firstWrong(y, 4 * out, dot)).toBe(-1);
    weight.dispose();
    const a = whole(5120 * width, 5);
    const rows = await read(sum(add(tensor(a, [5120, width]), 1), 1), device);
    const rowSum = (i: number) => a.subarray(i * width, (i + 1) * width).reduce((t, v) => t + v + 1, 0);
    expect(firstWrong(rows, 5120, rowSum)).toBe(-1);
  });
});
