import * as T from '@deftjs/tensor';
import { expect, it } from 'vitest';
import { formulasOf } from '../../../packages/tensor/src/compiler/formulas.ts';
import { lower } from '../../../packages/tensor/src/compiler/lower.ts';
import { graphOf } from './execute.ts';

const formulas = (y: T.Tensor): string[] => lower(graphOf([y])).kernels.flatMap(formulasOf);

it('writes rows with their folds in order', () => {
  expect(formulas(T.softmax(T.tensor(new Float32Array(32), [4, 8])))).toEqual([
    'f0 = max b0[8 x0 + x1]',
    'f1 = sum exp((b0[8 x0 + x1] - f0))',
    'o0 = (exp((b0[8 x0 + x1] - f0)) / f1)',
  ]);
});

it('writes what is used twice once', () => {
  const exponential = T.exp(T.tensor(new Float32Array(8)));
  expect(formulas(T.mul(exponential, T.sub(exponential, 1)))).toEqual([
    't0 = exp(b0[x0])',
    'o0 = (t0 * (t0 - 1))',
  ]);
});

it('writes the operands of contractions and their epilogues', () => {
  const [a, b] = [T.tensor(new Float32Array(6), [2, 3]), T.tensor(new Float32Array(12), [3, 4])];
  expect(formulas(T.add(T.matmul(a, b), 1))).toEqual([
    expect.stringMatching(/^f0 = sum b0\[.*x.*\] \* b1\[.*x.*\]$/),
    'o0 = (f0 + 1)',
  ]);
});
