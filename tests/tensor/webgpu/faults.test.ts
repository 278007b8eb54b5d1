/** What goes wrong on the device is an error of the run that it spoils, with what was needed and what there was. */
import {
  add,
  apply,
  DeviceError,
  evaluate,
  mul,
  neg,
  ops,
  read,
  sum,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import {
  openWebGPU,
  type WebGPUDevice,
  type WebGPUOptions,
} from '../../../packages/tensor/src/webgpu/index.ts';
import { leaf, samplesOf, withFloats } from '../../support/op-samples.ts';
import { describeWebGPU, nullAdapter, testAdapter } from '../../support/webgpu.ts';

const opened: WebGPUDevice[] = [];
async function open(adapter: GPUAdapter, options: WebGPUOptions = {}): Promise<WebGPUDevice> {
  const device = await openWebGPU(adapter, options);
  opened.push(device);
  return device;
}
afterEach(async () => {
  await Promise.all(opened.splice(0).map((device) => device.close()));
});

describe('on a device', () => {
  test('memory that runs out is an error with what was needed, and the device works on', async () => {
    const device = await open(await nullAdapter()); // which gives out half a gigabyte
    const pages = Array.from({ length: 6 }, () => device.allocate('f32', 2 ** 25));
    await expect(device.idle()).rejects.toThrow(
      /^webgpu: out of memory; a buffer needs 134217728 bytes; got 805306368 bytes in use/,
    );
    for (const page of pages) page.dispose();
    expect(device.bytesInUse).toBe(0);
    await device.idle(); // for what the pool does not keep to be destroyed
    // What there was no memory for is not leased again: writing to it would be an error.
    const again = [1, 2, 3].map(() => device.allocate('f32', 2 ** 25));
    for (const { pages: buffers } of again)
      device.gpu.queue.writeBuffer(buffers[0]!.buffer, 0, Float32Array.of(1));
    await device.idle();
    await evaluate([neg(tensor([1, 2]))], device);
    await device.idle();
  });

  test('what WebGPU reports on its own fails the next run, naming the kernels that did not run', async () => {
    // A limit that the device does not have: WebGPU refuses the dispatch.
    const device = await open(await nullAdapter(), { capabilities: { maxWorkgroupsPerDimension: 2 ** 31 } });
    const x = tensor(new Float32Array(2 ** 25));
    await evaluate([neg(mul(x, 3))], device);
    await device.gpu.queue.onSubmittedWorkDone(); // the report has arrived by then
    await expect(evaluate([add(tensor([1]), 1)], device)).rejects.toThrow(/Dispatch.*mul\+neg/s);
    await evaluate([add(tensor([1]), 1)], device);
    await device.idle();
  });

  test('a lost device rejects what waits for it, and another opens in its place', async () => {
    const device = await open(await nullAdapter());
    const x = neg(tensor(new Float32Array(1000)));
    await evaluate([x], device);
    const pending = [read(x), device.idle()].map((promise) =>
      expect(promise).rejects.toThrow(/^webgpu: the device is gone; destroyed/),
    );
    device.gpu.destroy();
    await Promise.all(pending);
    await expect(evaluate([neg(tensor([1]))], device)).rejects.toThrow(DeviceError);
    const next = await open(await nullAdapter());
    await evaluate([neg(tensor([1]))], next);
    await next.idle();
  });
});

describeWebGPU('A14: a kernel is never another', () => {
  /** Two samples of every third op: small graphs whose kernels look alike. */
  const some = ops.filter((_, i) => i % 3 === 0);
  const samples = some.flatMap((op) =>
    fc
      .sample(samplesOf(op).valid, { numRuns: 2, seed: 5 })
      .map((sample) => withFloats(sample, 'f32'))
      .flatMap(({ inputs, attrs }) => {
        if (inputs.some(({ dtype }) => dtype === 'f64')) return [];
        const make = (): Tensor => apply(op as never, inputs.map(leaf), attrs as never) as Tensor;
        return make().dtype === 'f64' ? [] : [make];
      }),
  );

  test('results do not depend on what ran before, in any order', async () => {
    const run = async (order: readonly number[]) => {
      const device = await open((await testAdapter()).adapter);
      const results = new Map<number, string>();
      for (const i of order) {
        const values = await read(samples[i]!(), device);
        results.set(i, Buffer.from(values.buffer).toString('base64'));
      }
      return results;
    };
    const forwards = [...samples.keys()];
    const shuffled = forwards.map((i) => (i * 7919 + 13) % samples.length);
    expect(new Set(shuffled).size).toBe(samples.length);
    const expected = await run(forwards);
    for (const order of [forwards.toReversed(), shuffled]) {
      for (const [i, bits] of await run(order)) expect(bits, `sample ${i}`).toBe(expected.get(i));
    }
  });

  test('texts that differ in one number have pipelines of their own', async () => {
    const device = await open((await testAdapter()).adapter);
    const x = tensor([1, 2, 3, 4]);
    const constants = [2, 3, 2.5, -2];
    for (const c of constants) {
      expect([...(await read(sum(mul(x, c)), device))]).toEqual([10 * c]);
    }
    const { pipelinesCreated } = device.statistics;
    expect(pipelinesCreated).toBe(constants.length);
    for (const c of constants) await read(sum(mul(tensor([4, 3, 2, 1]), c)), device);
    expect(device.statistics.pipelinesCreated).toBe(pipelinesCreated);
  });
});
