import { valueAndGrad } from '@deftjs/autograd';
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
  const rowwise: { readonly [name: string]: (x: Tensor) => Tensor } = {
    softmax: (x) => ops.softmax(x),
    'log softmax': (x) => ops.logSoftmax(x),
    'a layer norm': (x) => ops.layerNorm(x, filled([36], 2), filled([36], 3)),
    'a group norm with silu': (x) => {
      const pixels = ops.reshape(x, [2, 4, 6, 6]);
      return ops.silu(ops.groupNorm(pixels, 2, filled([4], 2), filled([4], 3)));
    },
    'an RMS norm of a sum': (x) => ops.rmsNorm(ops.add(x, 1), filled([36], 2)),
  };
  for (const [name, f] of Object.entries(rowwise)) {
    it(`computes ${name} in one kernel`, () => expectKernels([f(filled([8, 36]))], 1));
    it(`computes the input gradient of ${name} in one kernel`, () => {
      const x = filled([8, 36]);
      const { gradient } = valueAndGrad((v: Tensor) => ops.sum(ops.mul(f(v), filled(f(x).shape, 5))))(x);
      return expectKernels([gradient], 1);
    });
  }
  it('keeps a softmax of few long rows in kernels that all threads share', () =>
    expectKernels([ops.softmax(filled([2, 10000]))], 3));
  it('saves the mean and scale of a norm with it, for its gradient', async () => {
    const x = filled([8, 36]);
    const y = ops.standardize(x, -1, 1e-5);
    const { gradient } = valueAndGrad((v: Tensor) => ops.sum(ops.square(ops.standardize(v, -1, 1e-5))))(x);
    await expectKernels([y, gradient], 1);
  });
  it('computes a convolution with bias and silu in one kernel', () =>
    expectKernels(
      [ops.silu(conv2d(filled([2, 3, 5, 5]), filled([4, 3, 3, 3], 2), filled([4], 3), { padding: 1 }))],
      1,
    ));
});
