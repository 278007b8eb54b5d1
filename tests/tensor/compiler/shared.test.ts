/** Code that several programs and kernels share: graphs of one structure, kernels that differ in their buffers. */
import { compile, conv2d, type Device, read, sum, type Tensor, tensor } from '@deftjs/tensor';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { kernelKey } from '../../../packages/tensor/src/compiler/kernelKey.ts';
import { openWasmNode } from '../../../packages/tensor/src/node/wasm.ts';
import { engine } from '../../../packages/tensor/src/wasm/engine.ts';
import { openWebGPU } from '../../../packages/tensor/src/webgpu/index.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';
import { binary, constant, PlanBuilder } from '../webgpu/plans.ts';

/** Small whole numbers. */
function numbers(shape: readonly number[], step: number): Tensor {
  const length = shape.reduce((product, extent) => product * extent, 1);
  return tensor(
    Float32Array.from({ length }, (_, i) => ((i * step) % 11) - 5),
    shape,
  );
}

/** Padding, so that wasm reads tables of masks. */
const layer = (x: Tensor, w: Tensor): Tensor => conv2d(x, w, null, { padding: 1 });

/** Two compiled functions of equal graphs, the first of them disposed between. */
async function expectIndependent(device: Device): Promise<void> {
  const before = device.bytesInUse;
  const [picture, filter] = [numbers([2, 3, 5, 5], 7), numbers([4, 3, 3, 3], 5)];
  const [first, second] = [compile(layer, { device }), compile(layer, { device })];
  const results = [await first(picture, filter), await second(picture, filter)];
  first.dispose();
  const after = compile(layer, { device });
  results.push(await second(picture, filter), await after(picture, filter));
  const values = await Promise.all(results.map((result) => read(result)));
  for (const value of values) expect(value).toEqual(values[0]);
  for (const owner of [second, after]) owner.dispose();
  for (const result of results) result.dispose();
  for (const given of [picture, filter]) given.dispose();
  await device.idle();
  expect(device.bytesInUse).toBe(before);
}

describe('graphs of one structure', () => {
  let device: Device;
  beforeAll(async () => {
    device = await openWasmNode({ threads: 2 });
  });
  afterAll(() => device.close());
  afterEach(() => {
    vi.restoreAllMocks();
  });

  it('are compiled once for programs that do not depend on each other', async () => {
    const compiling = vi.spyOn(engine, 'compile');
    await expectIndependent(device);
    expect(compiling).toHaveBeenCalledTimes(1);
  });

  it('are compiled apart where an attribute differs', async () => {
    const compiling = vi.spyOn(engine, 'compile');
    for (const axis of [0, 1]) {
      const folded = compile((x: Tensor) => sum(x, axis), { device });
      const y = await folded(tensor([1, 2, 4, 8], [2, 2]));
      expect(await read(y)).toEqual(axis === 0 ? Float32Array.of(5, 10) : Float32Array.of(3, 12));
      folded.dispose();
    }
    expect(compiling).toHaveBeenCalledTimes(2);
  });
});

describeWebGPU('graphs of one structure', () => {
  it('are compiled once for programs that do not depend on each other', async () => {
    const device = await openWebGPU((await testAdapter()).adapter);
    await expectIndependent(device);
    await device.close();
  });
});

describe('the key of a kernel', () => {
  const length = 8;
  /** out = in + addend, from the given one of three buffers into another. */
  function kernelOf({ addend = 1, from = 0, to = 2, label = 'add', lengths = [length, length, length] }) {
    const builder = new PlanBuilder();
    const buffers = lengths.map((own) => builder.input('f32', new Float32Array(own)));
    const expr = binary('add', builder.load(buffers[from]!, [length]), constant(addend));
    const outputs = [{ dtype: 'f32' as const, buffer: buffers[to]!, expr }];
    builder.kernel({ kind: 'map', label, shape: [length], outputs });
    const { plan } = builder.build();
    return kernelKey(plan.kernels[0]!, (buffer) => lengths[buffer]!);
  }
  const key = kernelOf({});

  it('leaves out its label and which buffers it touches', () => {
    expect(kernelOf({ label: 'sum' })).toBe(key);
    expect(kernelOf({ from: 1, to: 0 })).toBe(key);
  });

  it.each([
    ['a constant', { addend: 2 }],
    ['the sign of a zero', { addend: -0 }],
    ['whether buffers are the same', { to: 0 }],
    ['the length of a buffer', { lengths: [2 * length, length, length] }],
  ])('tells apart %s', (_, changed) => {
    const base = 'addend' in changed && changed.addend === 0 ? kernelOf({ addend: 0 }) : key;
    expect(kernelOf(changed)).not.toBe(base);
  });
});
