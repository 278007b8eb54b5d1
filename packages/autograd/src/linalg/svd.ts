/**
 * The thin singular value decomposition A = U diag(s) V^T, by QR and one-sided Jacobi rotations.
 *
 *     A = Q R,   W R = rows that are orthogonal (Hestenes),   s_i their lengths,   U = Q W^T                  (1)
 *
 * V comes from a QR of those rows, longest first, which keeps it orthonormal where s_i is 0. Small singular values are
 * accurate relative to the columns of A, not only to the largest one.
 *
 * With dP = U^T dA V, F_ij = 1 / (s_j^2 - s_i^2) and 0 where i = j (Giles 2008, section 3.2; Townsend 2016):
 *
 *     ds = diag(dP)                                                                                           (2)
 *     dU = U (F o (dP S + S dP^T)) + (I - U U^T) dA V S^-1                                                    (3)
 *     dV = V (F o (S dP + dP^T S)) + (I - V V^T) dA^T U S^-1                                                  (4)
 *
 * Vectors of equal singular values, and of a zero, have no derivative:
 * F and S^-1 are 0 where gaps or values lie within rounding of the largest, which is exact for functions that do not
 * depend on the choice of those vectors.
 */
import {
  abs,
  add,
  diagonal,
  div,
  expand,
  greater,
  greaterEqual,
  type Key,
  matmul,
  max,
  mul,
  narrow,
  randomNormal,
  sqrt,
  square,
  squeeze,
  stopGradient,
  sub,
  sum,
  type Tensor,
  transpose,
  triu,
  unsqueeze,
  where,
} from '@deftjs/tensor';
import { withJvp } from '../custom.ts';
import { inverseGaps, signsOfRows, sorting } from './eigh.ts';
import { jacobi } from './jacobi.ts';
import { expectFewColumns, extentsOf, roundingOf } from './matrix.ts';
import { householderRows, orthonormalBasis } from './qr.ts';

export interface Svd {
  /** [..., m, k] with k = min(m, n): orthonormal columns. */
  readonly U: Tensor;
  /** [..., k], largest first. */
  readonly S: Tensor;
  /** [..., n, k]: orthonormal columns (not transposed). The entry of largest size in each is positive. */
  readonly V: Tensor;
}

/** The values of U, S and V for A [..., m, n] with m >= n. */
function decompose(A: Tensor): Svd {
  const scale = max(max(abs(A), -1, true), -2, true); // [..., 1, 1]
  const scaled = div(A, where(greater(scale, 0), scale, 1));
  const Qt = householderRows(transpose(scaled));
  const n = A.shape.at(-1)!;
  const R = triu(matmul(Qt, scaled));
  const rotated = jacobi(R, 'orthogonal'); // [W R, W]
  const order = sorting(mul(sum(square(narrow(rotated, -1, 0, n)), -1), -1));
  const inOrder = matmul(order, rotated);
  const [sorted, W] = [narrow(inOrder, -1, 0, n), narrow(inOrder, -1, n, n)];
  const lengths = sqrt(sum(square(sorted), -1)); // [..., n]
  const basis = householderRows(sorted); // rows, each along the one of `sorted` or against it
  const along = where(greaterEqual(sum(mul(basis, sorted), -1, true), 0), basis, mul(basis, -1));
  const signs = signsOfRows(along);
  return {
    U: transpose(matmul(mul(W, signs), Qt)),
    S: mul(lengths, squeeze(scale, -1)),
    V: transpose(mul(along, signs)),
  };
}

/** x / s for columns x, and 0 for values within rounding of the largest. */
function overValues(x: Tensor, S: Tensor): Tensor {
  const k = S.shape.at(-1)!;
  const least = mul(max(S, -1, true), roundingOf(k, S.dtype));
  const apart = greater(S, least);
  return mul(x, unsqueeze(where(apart, div(1, where(apart, S, 1)), 0), -2));
}

/** (I - U U^T) x */
function outside(U: Tensor, x: Tensor): Tensor {
  return sub(x, matmul(U, matmul(transpose(U), x)));
}

function plusTransposed(M: Tensor): Tensor {
  return add(M, transpose(M));
}

/** `decompose` with its derivatives. */
function tallSvd(A: Tensor): Svd {
  const value = decompose(stopGradient(A));
  const isSquare = A.shape.at(-1) === A.shape.at(-2); // then nothing is outside of U
  const inner = (dA: Tensor): Tensor => matmul(matmul(transpose(U), dA), V); // dP
  const gaps = (): Tensor => {
    // Of squares without cancellation: 1 / ((s_j - s_i) (s_j + s_i)).
    const sums = add(unsqueeze(S, -2), unsqueeze(S, -1));
    const apart = greater(sums, 0);
    return mul(inverseGaps(S, max(S, -1, true)), where(apart, div(1, where(apart, sums, 1)), 0));
  };
  const S: Tensor = withJvp(value.S, [A], ([dA]) => diagonal(inner(dA!)));
  const U: Tensor = withJvp(value.U, [A], ([dA], u) => {
    const turn = matmul(u, mul(gaps(), plusTransposed(mul(inner(dA!), unsqueeze(S, -2)))));
    return isSquare ? turn : add(turn, overValues(outside(u, matmul(dA!, V)), S)); // (3)
  });
  const V: Tensor = withJvp(
    value.V,
    [A],
    ([dA], v) => matmul(v, mul(gaps(), plusTransposed(mul(inner(dA!), unsqueeze(S, -1))))), // (4), where V is square
  );
  return { U, S, V };
}

/**
 * U, S and V of matrices [..., m, n]. Differentiable to any order, each for itself.
 * @throws ShapeError; RangeError for min(m, n) above 128
 */
export function svd(A: Tensor): Svd {
  const [m, n] = extentsOf('svd', A);
  expectFewColumns('svd', Math.min(m, n), 'use randomizedSvd for the largest values, svdOnHost for all');
  if (m >= n) return tallSvd(A);
  const { U, S, V } = tallSvd(transpose(A));
  return { U: V, S, V: U };
}

export interface RandomizedSvdOptions {
  /** Columns drawn beyond the rank; default 8. */
  readonly oversample?: number;
  /** Powers of A A^T that sharpen the range; default 2. */
  readonly iterations?: number;
}

/**
 * The `rank` largest singular values of A [..., m, n] and their vectors, from the range of A Omega with random Omega
 * (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1). Exact when A has no larger rank; else the error is near the
 * next singular value. A pure function of the key; differentiable, as the algorithm computes it.
 * @throws ShapeError, RangeError when rank + oversample exceed 128 or the rank min(m, n)
 */
export function randomizedSvd(A: Tensor, rank: number, key: Key, options: RandomizedSvdOptions = {}): Svd {
  const [m, n] = extentsOf('randomizedSvd', A);
  const { oversample = 8, iterations = 2 } = options;
  const most = Math.min(m, n);
  if (!Number.isSafeInteger(rank) || rank < 1 || rank > most) {
    throw new RangeError(`randomizedSvd: expected a rank in [1, ${most}]; got ${rank}`);
  }
  const drawn = Math.min(rank + oversample, most);
  expectFewColumns('randomizedSvd', drawn, 'ask for a smaller rank');
  const omega = expand(randomNormal(key, [n, drawn], A.dtype), [...A.shape.slice(0, -2), n, drawn]);
  let Q = orthonormalBasis(matmul(A, omega));
  for (let i = 0; i < iterations; i += 1) {
    Q = orthonormalBasis(matmul(A, orthonormalBasis(matmul(transpose(A), Q))));
  }
  const { U, S, V } = svd(matmul(transpose(Q), A)); // [..., drawn, n]
  return {
    U: narrow(matmul(Q, U), -1, 0, rank),
    S: narrow(S, -1, 0, rank),
    V: narrow(V, -1, 0, rank),
  };
}
