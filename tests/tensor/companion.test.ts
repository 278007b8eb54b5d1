import {
  add,
  compile,
  evaluate,
  exp,
  item,
  matmul,
  mul,
  read,
  scope,
  sum,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { openWasmNode } from '../../packages/tensor/src/node/wasm.ts';
import { openWebGPU, type WebGPUDevice } from '../../packages/tensor/src/webgpu/index.ts';
import { describeWebGPU, testAdapter } from '../support/webgpu.ts';

describeWebGPU('a companion', () => {
  let device: WebGPUDevice;
  beforeEach(async () => {
    const companion = await openWasmNode({ threads: 1 });
    device = await openWebGPU((await testAdapter()).adapter, { companion });
  });
  afterEach(() => device.close());

  const ramp = (length: number): Tensor => tensor(Float32Array.from({ length }, (_, i) => i / length));

  test('computes small tensors from values on the host, and the device hears nothing of it', async () => {
    const [a, b] = [tensor([[1, 2]]), tensor([[3], [4]])];
    const [product, total] = [matmul(a, b), sum(exp(mul(a, 0)))];
    await evaluate([product, total], device);
    expect(product.source.kind).toBe('host');
    expect(await item(product, device)).toBe(11);
    expect(await item(add(total, product), device)).toBe(13);
    expect(device.statistics).toMatchObject({ submits: 0, buffersCreated: 0, pipelinesCreated: 0 });
  });

  test('computes halves', async () => {
    const y = add(tensor([0.1, 2], [2], 'f16'), 1);
    expect([...(await read(y, device))]).toEqual([1.099609375, 3]);
    expect(device.statistics.submits).toBe(0);
  });

  test.each([
    ['1,024 elements stay', 1024, 0],
    ['1,025 go to the device', 1025, 1],
  ])('of %s', async (_, length, dispatches) => {
    await evaluate([add(ramp(length), 1)], device);
    expect(device.statistics.dispatches).toBe(dispatches);
  });

  test('leaves to the device what passes through a large tensor, and what reads its values', async () => {
    const total = sum(add(ramp(2000), 1));
    await evaluate([total], device);
    const { dispatches } = device.statistics;
    expect(total.source.kind).toBe('stored');
    const next = add(total, 1);
    await evaluate([next], device);
    expect(next.source.kind).toBe('stored');
    expect(device.statistics.dispatches).toBe(dispatches + 1);
    expect(await item(next, device)).toBeCloseTo(3000.5, 2);
  });

  test('gives its results to kernels of the device, eager and compiled, donated too', async () => {
    const small = add(ramp(4), 1);
    await evaluate([small], device);
    const large = add(small, tensor(new Float32Array(4000), [1000, 4]));
    expect([...(await read(large, device))].slice(0, 4)).toEqual([1, 1.25, 1.5, 1.75]);
    const doubled = compile((x: Tensor) => mul(x, 2), { device, donate: { 0: '' } });
    const y = await doubled(small);
    expect(y.source.kind).toBe('stored');
    expect([...(await read(y))]).toEqual([2, 2.5, 3, 3.5]);
    expect(() => add(small, 1)).toThrow(/was donated/);
  });

  test('keeps to scopes: what they end is gone, and its memory free; what they return is not', async () => {
    const x = tensor([1]);
    const made: Tensor[] = [];
    const inScope = (): Promise<Tensor> =>
      scope(async () => {
        const [a, b] = [add(x, 1), add(x, 2)];
        made.push(a);
        await evaluate([a, b], device);
        return b;
      });
    const kept = await inScope();
    expect(() => add(made[0]!, 1)).toThrow(/was disposed/);
    expect(await item(kept)).toBe(3);
    const bytes = device.companion!.bytesInUse;
    (await inScope()).dispose();
    expect(device.companion!.bytesInUse).toBe(bytes);
    kept.dispose();
    expect(() => add(kept, 1)).toThrow(/was disposed/);
    expect(device.companion!.bytesInUse).toBe(bytes);
  });

  test('is closed with the device', async () => {
    const closing = vi.spyOn(device.companion!, 'close');
    await device.close();
    expect(closing).toHaveBeenCalledOnce();
    await expect(evaluate([add(tensor([1]), 1)], device)).rejects.toThrow(/was closed/);
  });

  test('is opened by openDevice, unless told otherwise', async () => {
    const companionFor = async (word: string): Promise<unknown> => {
      vi.stubEnv('DEFT_COMPANION', word);
      const opened = await openDevice('webgpu');
      await opened.device.close();
      return opened.device.companion?.kind;
    };
    expect(await companionFor('')).toBe('wasm');
    expect(await companionFor('off')).toBe(undefined);
    await expect(companionFor('maybe')).rejects.toThrow('DEFT_COMPANION: expected on or off; got maybe');
    vi.unstubAllEnvs();
  });
});
