/**
 * Eigenvalues and eigenvectors of symmetric matrices, A = V diag(w) V^T, by Jacobi's rotations.
 *
 * With F_ij = 1 / (w_j - w_i) and 0 where i = j (Giles 2008, section 3.1):
 *
 *     dw = diag(V^T dA V),                    dV = V (F o (V^T dA V))                                         (1)
 *
 * Equal eigenvalues: their vectors are any basis of the space that they share, and have no derivative. F is 0 between
 * eigenvalues closer than rounding, which is exact for every function that does not depend on the choice of the basis:
 * eigenvalues' sums, projectors on whole spaces.
 */
import {
  abs,
  and,
  cast,
  diagonal,
  div,
  equal,
  expand,
  eye,
  greater,
  greaterEqual,
  less,
  matmul,
  max,
  mul,
  narrow,
  neg,
  or,
  squeeze,
  stopGradient,
  sub,
  sum,
  type Tensor,
  transpose,
  unsqueeze,
  where,
} from '@deftjs/tensor';
import { withJvp } from '../custom.ts';
import { jacobi } from './jacobi.ts';
import { expectFewColumns, expectSquare, positions, roundingOf, symmetricPart } from './matrix.ts';

export interface Eigen {
  /** [..., n], smallest first. */
  readonly values: Tensor;
  /** [..., n, n]: column i belongs to value i. The entry of largest size in each column is positive. */
  readonly vectors: Tensor;
}

/** Permutation matrices [..., n, n] that put `keys` [..., n] in ascending order: P x is sorted. Ties keep their order. */
export function sorting(keys: Tensor): Tensor {
  const n = keys.shape.at(-1)!;
  const { row, column } = positions(n, n);
  const [own, other] = [unsqueeze(keys, -1), unsqueeze(keys, -2)];
  const before = or(less(other, own), and(equal(other, own), less(column, row)));
  const place = sum(cast(before, keys.dtype), -1); // of each in the order
  return cast(equal(unsqueeze(place, -2), cast(row, keys.dtype)), keys.dtype);
}

/** +1 or -1 for each row: what makes its entry of largest size positive. */
export function signsOfRows(rows: Tensor): Tensor {
  const positive = greaterEqual(max(rows, -1, true), max(neg(rows), -1, true));
  return where(positive, 1, expand(neg(eye(1, 1, rows.dtype)), [...rows.shape.slice(0, -1), 1]));
}

/** F of (1), without what lies within rounding of the largest value. */
export function inverseGaps(values: Tensor, size: Tensor): Tensor {
  const n = values.shape.at(-1)!;
  const gap = sub(unsqueeze(values, -2), unsqueeze(values, -1));
  const apart = greater(abs(gap), mul(unsqueeze(size, -1), roundingOf(n, values.dtype)));
  return where(apart, div(1, where(apart, gap, 1)), 0);
}

/**
 * Eigenvalues and eigenvectors of the symmetric parts (A + A^T) / 2 of matrices [..., n, n]. Differentiable to any order.
 * @throws ShapeError; RangeError for n above 128
 */
export function eigh(A: Tensor): Eigen {
  const n = expectSquare('eigh', A);
  expectFewColumns('eigh', n, 'use eighOnHost');
  const symmetric = symmetricPart(stopGradient(A));
  const scale = max(max(abs(symmetric), -1, true), -2, true); // [..., 1, 1]
  const rotated = jacobi(div(symmetric, where(greater(scale, 0), scale, 1)), 'diagonal'); // [W A, W]
  const [images, vectorRows] = [narrow(rotated, -1, 0, n), narrow(rotated, -1, n, n)];
  const unsorted = sum(mul(images, vectorRows), -1, true); // [..., n, 1]
  const order = sorting(squeeze(unsorted, -1));
  const rows = matmul(order, vectorRows);

  const sortedValues = squeeze(mul(matmul(order, unsorted), scale), -1);
  const sortedVectors = transpose(mul(rows, signsOfRows(rows)));
  const inner = (V: Tensor, dA: Tensor): Tensor => matmul(matmul(transpose(V), symmetricPart(dA)), V);
  const values: Tensor = withJvp(sortedValues, [A], ([dA]) => diagonal(inner(vectors, dA!)));
  const vectors: Tensor = withJvp(sortedVectors, [A], ([dA], V) => {
    const gaps = inverseGaps(values, max(abs(values), -1, true));
    return matmul(V, mul(gaps, inner(V, dA!)));
  });
  return { values, vectors };
}
