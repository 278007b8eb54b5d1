import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BufferPool, sizeClass, usage } from '../../../packages/tensor/src/webgpu/pool.ts';
import { describeWebGPU, testDevice } from '../../support/webgpu.ts';

test('a size class holds the request, in whole words, with a quarter to spare at most', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 40 }), (bytes) => {
      const size = sizeClass(bytes);
      expect(size).toBeGreaterThanOrEqual(bytes);
      expect(size % 16).toBe(0);
      expect(size).toBeLessThanOrEqual(Math.max(256, bytes * 1.25));
      expect(sizeClass(size)).toBe(size);
    }),
  );
});

describeWebGPU('a buffer pool', () => {
  test('leases again what was given back, the latest first', async () => {
    await using test = await testDevice();
    const pool = new BufferPool(test.device, usage.storage, 'test', () => {});
    const [a, b] = [pool.lease(1000), pool.lease(1000)];
    expect(pool.leasedBytes).toBe(2048);
    pool.giveBack(a);
    pool.giveBack(b);
    expect([pool.lease(900).id, pool.lease(1024).id, pool.lease(1000).id]).toEqual([b.id, a.id, 3]);
    expect(pool.created).toBe(3);
  });

  test('destroys what was free for longest when much is free', async () => {
    await using test = await testDevice();
    const pool = new BufferPool(test.device, usage.storage, 'test', () => {});
    const size = 48 * 2 ** 20;
    const leased = [1, 2, 3].map(() => pool.lease(size));
    for (const buffer of leased) pool.giveBack(buffer);
    expect([pool.lease(size).id, pool.lease(size).id]).toEqual([3, 2]);
    expect(pool.lease(size).id).toBe(4);
  });
});
