import {
  add,
  concat,
  expand,
  full,
  gather,
  matmul,
  max,
  mul,
  reshape,
  scatterAdd,
  sum,
  type Tensor,
  tensor,
  zeros,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { describe, expect, it } from 'vitest';
import { describeWebGPU } from '../../support/webgpu.ts';
import { graphOf, runDevice, runPlan, runReference } from './execute.ts';

function leaf(i: number, shape: readonly number[] = [4]): Tensor {
  const size = shape.reduce((product, extent) => product * extent, 1);
  return tensor(
    Float32Array.from({ length: size }, (_, j) => i + j / 8),
    shape,
  );
}

const many = Array.from({ length: 20 }, (_, i) => leaf(i));
const empty = tensor(new Float32Array(0), [0, 2]);
const index = tensor(Int32Array.of(2, 0, 5), [3]);

const cases: readonly (readonly [string, readonly Tensor[]])[] = [
  ['the sum of twenty tensors', [many.reduce((total, x) => add(total, x))]],
  ['twenty tensors joined', [concat(many)]],
  ['twenty products joined', [concat(many.map((x, i) => mul(x, many[(i + 1) % 20]!)))]],
  ['forty-three tensors joined', [concat([...many, ...many, ...many.slice(0, 3)])]],
  [
    'a table gathered at a sum of many',
    [
      gather(
        leaf(0, [9]),
        Array.from({ length: 9 }, () => tensor(Int32Array.of(1, 0))).reduce((total, x) => add(total, x)),
      ),
    ],
  ],
  [
    'a chain of two hundred',
    [Array.from({ length: 200 }, (_, i) => i / 256).reduce((y, c) => mul(add(y, c), 0.5), leaf(1))],
  ],
  ['sums over nothing', [sum(empty, 0), add(sum(empty), 1)]],
  ['nothing', [mul(empty, 2), reshape(empty, [2, 0]), expand(reshape(empty, [1, 0]), [3, 0]), sum(empty, 1)]],
  [
    'something beside nothing',
    [concat([empty, leaf(0, [3, 2]), empty]), matmul(zeros([2, 0]), zeros([0, 3]))],
  ],
  ['nothing gathered and scattered', [gather(empty, index), scatterAdd(empty, tensor(new Int32Array(0)), 3)]],
  ['constants', [full([3], 7), mul(full([2], 2), 3), max(full([2, 2], -1))]],
];

describe('a compiled graph', () => {
  it.each(cases)('is right for %s', async (_, outputs) => {
    const graph = graphOf(outputs);
    expect(runPlan(graph)).toEqual(await runReference(graph));
  });

  it('is right in all these cases on wasm', () => expectAllRight('wasm'));
});

describeWebGPU('a compiled graph', () => {
  it('is right in all these cases on WebGPU', () => expectAllRight('webgpu'));
});

/** The values are sums and products of few binary digits: exact in f32. */
async function expectAllRight(kind: 'wasm' | 'webgpu'): Promise<void> {
  const { device } = await openDevice(kind);
  for (const [name, outputs] of cases) {
    const graph = graphOf(outputs);
    expect(await runDevice(device, graph), name).toEqual(await runReference(graph));
  }
  await device.close();
}
