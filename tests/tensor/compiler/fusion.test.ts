import * as ops from '@deftjs/tensor';
import { describe, expect, it } from 'vitest';
import { lower } from '../../../packages/tensor/src/compiler/lower.ts';
import { conv2d } from '../../../packages/tensor/src/ops/conv.ts';
import { type Tensor, tensor } from '../../../packages/tensor/src/tensor.ts';
import { graphOf, runPlan, runReference } from './execute.ts';

function filled(shape: readonly number[], seed = 1): Tensor {
  const size = shape.reduce((product, extent) => product * extent, 1);
  return tensor(
    Float32Array.from({ length: size }, (_, i) => Math.sin(seed * 12.9898 + i * 78.233)),
    shape,
  );
}

async function expectKernels(outputs: readonly Tensor[], count: number): Promise<void> {
  const graph = graphOf(outputs);
  const expected = await runReference(graph);
  const got = runPlan(graph);
  got.forEach((values, i) => {
    values.forEach((value, j) => {
      expect(value).toBeCloseTo(expected[i]![j]!, 6);
    });
  });
  const labels = lower(graph).kernels.map(({ kind, label }) => `${kind} ${label}`);
  expect(labels, labels.join('\n')).toHaveLength(count);
}

describe('fusion', () => {
  it('computes softmax in three kernels', () => expectKernels([ops.softmax(filled([4, 7]))], 3));
  it('computes a layer norm in three kernels', () =>
    expectKernels([ops.layerNorm(filled([4, 7]), filled([7], 2), filled([7], 3))], 3));
  it('computes a group norm with silu in three kernels', () =>
    expectKernels([ops.silu(ops.groupNorm(filled([2, 4, 3, 3]), 2, filled([4], 2), filled([4], 3)))], 3));
  it('computes a convolution with bias and silu in one kernel', () =>
    expectKernels(
      [ops.silu(conv2d(filled([2, 3, 5, 5]), filled([4, 3, 3, 3], 2), filled([4], 3), { padding: 1 }))],
      1,
    ));
});
