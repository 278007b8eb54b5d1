/** Products whose second operand is copied with its rows apart, on software adapters. */
import { compile, matmul, narrow, read, type Tensor, tensor } from '@deftjs/tensor';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openWebGPU, type WebGPUDevice } from '../../../packages/tensor/src/webgpu/index.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';

/** Whole numbers from -2 to 2: their sums are exact. */
function whole(shape: readonly number[], seed: number): { x: Tensor; values: Float32Array } {
  let state = seed;
  const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return ((state >>> 16) % 5) - 2;
  });
  return { x: tensor(values, shape), values };
}

describeWebGPU('rows of B apart', () => {
  let device: WebGPUDevice;
  beforeAll(async () => {
    device = await openWebGPU((await testAdapter()).adapter, { capabilities: { software: true } });
  });
  afterAll(() => device.close());

  test.each<[string, { batch?: number; m: number; k: number; n: number; width?: number; copied: boolean }]>([
    ['a matrix', { m: 256, k: 512, n: 2048, copied: true }],
    ['a batch', { batch: 2, m: 256, k: 512, n: 2048, copied: true }],
    ['the first columns of a matrix', { m: 260, k: 516, n: 1001, width: 2048, copied: true }],
    ['pages apart, few rows of A', { m: 512, k: 512, n: 1024, copied: false }],
    ['pages apart, many rows of A', { m: 1024, k: 512, n: 1024, copied: true }],
    ['another width', { m: 256, k: 512, n: 2052, copied: false }],
  ])('%s', async (_, { batch = 1, m, k, n, width = n, copied }) => {
    const [a, b] = [whole([batch, m, k], 1), whole([batch, k, width], 2)];
    const product = compile((x: Tensor, y: Tensor) => matmul(x, narrow(y, 2, 0, n)), { device });
    const text = await product.explain(a.x, b.x);
    expect(text.includes('rows apart')).toBe(copied);
    const result = await read(await product(a.x, b.x));
    for (let slice = 0; slice < batch; slice += 1) {
      for (const row of [0, 1, 17, m - 1]) {
        const expected = new Float32Array(n);
        for (let i = 0; i < k; i += 1) {
          const factor = a.values[(slice * m + row) * k + i]!;
          const start = (slice * k + i) * width;
          for (let j = 0; j < n; j += 1) expected[j]! += factor * b.values[start + j]!;
        }
        expect(result.subarray((slice * m + row) * n, (slice * m + row + 1) * n)).toEqual(expected);
      }
    }
    product.dispose();
  });
});
