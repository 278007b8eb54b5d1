/** Kernels on parts of buffers: wherever in a vector a value begins, results are those of the definitions. */
import {
  cast,
  conv2d,
  type Device,
  flip,
  gather,
  keyOf,
  matmul,
  narrow,
  randomNormal,
  reshape,
  softmax,
  sum,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encode } from '../../../packages/tensor/src/dtype.ts';
import { openWasmNode } from '../../../packages/tensor/src/node/wasm.ts';
import { openWebGPU, type WebGPUDevice } from '../../../packages/tensor/src/webgpu/index.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';
import { graphOf, runDevice, runReference } from './execute.ts';

const length = 6000;

/** What reads a part of the vector that begins at `start`. */
type Reader = (vector: Tensor, start: number) => Tensor;

const part = (vector: Tensor, start: number, shape: readonly number[]): Tensor =>
  cast(
    reshape(
      narrow(
        vector,
        0,
        start,
        shape.reduce((product, extent) => product * extent, 1),
      ),
      shape,
    ),
    'f32',
  );
const random = (seed: number, shape: readonly number[]): Tensor => randomNormal(keyOf(seed), shape);

const readers: { readonly [name: string]: Reader } = {
  'a sum of rows': (vector, start) => sum(part(vector, start, [8, 24]), 1),
  'a softmax': (vector, start) => softmax(part(vector, start, [6, 20])),
  'a product': (vector, start) => matmul(random(2, [5, 24]), part(vector, start, [24, 16])),
  'a product with its transposed': (vector, start) => {
    const w = part(vector, start, [16, 12]);
    return matmul(w, reshape(part(vector, start, [16, 12]), [12, 16]));
  },
  'a padded convolution': (vector, start) =>
    conv2d(part(vector, start, [1, 4, 6, 6]), random(3, [8, 4, 3, 3]), null, { padding: 1 }),
  'filters of a convolution': (vector, start) =>
    conv2d(random(4, [1, 4, 6, 6]), part(vector, start, [8, 4, 3, 3]), null, { padding: 1 }),
  'rows looked up': (vector, start) =>
    gather(part(vector, start, [10, 16]), tensor(Int32Array.of(3, 0, 9, 3), [4]), 0),
  'elements backwards': (vector, start) => flip(part(vector, start, [12, 8]), [0, 1]),
  'the end beside the start': (vector, start) =>
    sum(matmul(part(vector, start, [4, 8]), part(vector, length - 64, [8, 8])), 0),
};

async function expectAgreement(device: Device): Promise<void> {
  const values = Float32Array.from({ length }, (_, i) => ((i * 7919) % 2048) / 1024 - 1);
  const vectors = { f32: tensor(values, [length]), f16: tensor(encode('f16', values), [length], 'f16') };
  const starts = fc.oneof(fc.constantFrom(0, 4, 64, 100, 256, 4096), fc.nat(length - 400));
  const names = fc.constantFrom(...Object.keys(readers));
  const dtypes = fc.constantFrom('f32' as const, 'f16' as const);
  await fc.assert(
    fc.asyncProperty(names, dtypes, starts, async (name, dtype, start) => {
      const graph = graphOf([readers[name]!(vectors[dtype], start)]);
      const [got, want] = [await runDevice(device, graph), await runReference(graph)];
      got.forEach((values, o) => {
        values.forEach((value, i) => {
          expect(Math.abs(value - want[o]![i]!), `${name} from ${start}, element ${i}`).toBeLessThan(1e-4);
        });
      });
    }),
    { numRuns: 60 },
  );
}

describe('on wasm', () => {
  let device: Device;
  beforeAll(async () => {
    device = await openWasmNode({ threads: 2 });
  });
  afterAll(() => device.close());

  it('parts of a vector are read from wherever they begin', () => expectAgreement(device));
});

describeWebGPU('on WebGPU', () => {
  let device: WebGPUDevice;
  beforeAll(async () => {
    device = await openWebGPU((await testAdapter()).adapter);
  });
  afterAll(() => device.close());

  it('parts of a vector are read from wherever they begin', () => expectAgreement(device));

  it('layers of one shape in one vector share their pipelines', async () => {
    const vector = random(1, [4 * 1024]);
    const x = random(2, [4, 32]);
    const layers = [0, 1, 2, 3].map((i) => matmul(x, part(vector, 1024 * i, [32, 32])));
    const before = device.statistics;
    const graph = graphOf(layers);
    const [got, want] = [await runDevice(device, graph), await runReference(graph)];
    got.forEach((values, layer) => {
      values.forEach((value, i) => {
        expect(Math.abs(value - want[layer]![i]!)).toBeLessThan(1e-4);
      });
    });
    const { pipelinesCreated, dispatches } = device.statistics;
    expect(dispatches - before.dispatches).toBe(4);
    expect(pipelinesCreated - before.pipelinesCreated).toBe(1);
  });
});
