import { valueAndGrad } from '@deftjs/autograd';
import { adamW, sgd } from '@deftjs/autograd/optim';
import { linear, meanSquaredError, randomNormal, relu, type Tensor, treeLeaves } from '@deftjs/tensor';
import { describe, expect, it } from 'vitest';
import { lower } from '../../packages/tensor/src/compiler/lower.ts';
import { graphOf } from '../tensor/compiler/execute.ts';

const kernels = (outputs: readonly Tensor[]): number => lower(graphOf(outputs)).kernels.length;

/** A ReLU network of `depth` layers and its loss. */
function network(depth: number, bias: boolean) {
  const width = (i: number): number => 8 + 2 * i;
  const weights = Array.from({ length: depth }, (_, i) => ({
    W: randomNormal([1, i], [width(i + 1), width(i)]),
    ...(bias && { b: randomNormal([2, i], [width(i + 1)]) }),
  }));
  const [x, y] = [randomNormal([3, 1], [6, width(0)]), randomNormal([3, 2], [6, width(depth)])];
  const loss = (layers: typeof weights): Tensor =>
    meanSquaredError(
      layers.reduce((h, { W, b }, i) => linear(i === 0 ? h : relu(h), W, b), x),
      y,
    );
  return { weights, loss };
}

/** Kernels of a step, in forward passes. */
function cost(depth: number, bias: boolean, update: 'none' | 'sgd' | 'adamW'): number {
  const { weights, loss } = network(depth, bias);
  const { value, gradient } = valueAndGrad(loss)(weights);
  const forward = kernels([loss(weights)]);
  if (update === 'none') return kernels([value, ...treeLeaves(gradient)]) / forward;
  const optimizer = update === 'sgd' ? sgd() : adamW();
  const state = optimizer.init(weights);
  const next = optimizer.update(weights, gradient, state as never, { learningRate: 0.1 });
  return kernels([value, ...treeLeaves([next.parameters, next.state])]) / forward;
}

describe('what a training step of a ReLU network costs in kernels', () => {
  it.each([2, 4, 8])('is at most three forward passes with %i layers, the update included', (depth) => {
    expect(cost(depth, false, 'sgd')).toBeLessThanOrEqual(3);
  });

  it('is one kernel more for each bias, and for each parameter that has moments', () => {
    const layers = 8;
    const one = layers / (layers + 1); // in forward passes: a kernel for each layer and one for the loss
    const plain = cost(layers, false, 'sgd');
    expect(cost(layers, true, 'sgd')).toBeCloseTo(plain + one, 10);
    // Besides, AdamW counts its steps: scalars that all parameters share.
    expect(cost(layers, false, 'adamW')).toBeLessThanOrEqual(plain + one + 2 / (layers + 1));
  });
});
