/**
 * Cholesky factors and triangular systems, by halving: matrix products of half the size, n divisions at the bottom.
 *
 *     [L11  0 ] [X1]   [B1]        X1 = L11^-1 B1
 *     [L21 L22] [X2] = [B2],       X2 = L22^-1 (B2 - L21 X1)                                                  (1)
 *
 *     A = L L^T:  L11 = chol(A11),  L21 = A21 L11^-T,  L22 = chol(A22 - L21 L21^T)                            (2)
 *
 * Derivatives (Murray 2016, arXiv 1602.07527), with Phi(M) the lower triangle of M, its diagonal halved, X- the
 * cotangent of X:
 *
 *     T X = B:      B- = T^-T X-,   T- = -tri(B- X^T)                                                         (3)
 *     A = L L^T:    dL = L Phi(L^-1 dA L^-T)                                                                  (4)
 *
 * A zero on T's diagonal gives infinities; a matrix that is not positive definite gives NaN.
 */
import {
  concat,
  div,
  equal,
  formatShapes,
  lessEqual,
  matmul,
  mul,
  narrow,
  neg,
  ShapeError,
  sqrt,
  stopGradient,
  sub,
  type Tensor,
  transpose,
  tril,
  triu,
  where,
  zeros,
} from '@deftjs/tensor';
import { withJvp, withVjp } from '../custom.ts';
import { expectSquare, positions, symmetricPart } from './matrix.ts';

/** The rows [from, to) and columns [left, right). */
function block(A: Tensor, from: number, to: number, left: number, right: number): Tensor {
  return narrow(narrow(A, -2, from, to - from), -1, left, right - left);
}

/** (1) for lower triangles [..., n, n]; what is above the diagonal is not read. */
function forwardSubstitution(L: Tensor, B: Tensor): Tensor {
  const n = L.shape.at(-1)!;
  if (n === 1) return div(B, L);
  const h = n >> 1;
  const X1 = forwardSubstitution(block(L, 0, h, 0, h), narrow(B, -2, 0, h));
  const rest = sub(narrow(B, -2, h, n - h), matmul(block(L, h, n, 0, h), X1));
  return concat([X1, forwardSubstitution(block(L, h, n, h, n), rest)], -2);
}

/** The same from the last row up, for upper triangles. */
function backSubstitution(U: Tensor, B: Tensor): Tensor {
  const n = U.shape.at(-1)!;
  if (n === 1) return div(B, U);
  const h = n >> 1;
  const X2 = backSubstitution(block(U, h, n, h, n), narrow(B, -2, h, n - h));
  const rest = sub(narrow(B, -2, 0, h), matmul(block(U, 0, h, h, n), X2));
  return concat([backSubstitution(block(U, 0, h, 0, h), rest), X2], -2);
}

/**
 * X with T X = B, for triangles T [..., n, n] and B [..., n, k] with the same leading axes. The other triangle of T is
 * not read.
 * @throws ShapeError
 */
export function solveTriangular(T: Tensor, B: Tensor, side: 'lower' | 'upper'): Tensor {
  const n = expectSquare('solveTriangular', T);
  const fits = B.rank === T.rank && B.shape.at(-2) === n;
  if (!fits || B.shape.slice(0, -2).some((extent, axis) => extent !== T.shape[axis])) {
    throw new ShapeError(
      `solveTriangular: expected [..., n, n] and [..., n, k]; got ${formatShapes([T.shape, B.shape])}`,
    );
  }
  const lower = side === 'lower';
  const own = lower ? tril : triu;
  const substitute = lower ? forwardSubstitution : backSubstitution;
  return withVjp(
    substitute(stopGradient(T), stopGradient(B)),
    [T, B],
    (t, b) => substitute(t!, b!),
    (dX, X, t) => {
      const dB = solveTriangular(transpose(t!), dX, lower ? 'upper' : 'lower');
      return [neg(own(matmul(dB, transpose(X)))), dB]; // (3)
    },
  );
}

/** (2), reading the lower triangle. */
function factor(A: Tensor): Tensor {
  const n = A.shape.at(-1)!;
  if (n === 1) return sqrt(A);
  const h = n >> 1;
  const L11 = factor(block(A, 0, h, 0, h));
  const L21 = transpose(forwardSubstitution(L11, transpose(block(A, h, n, 0, h))));
  const L22 = factor(sub(block(A, h, n, h, n), matmul(L21, transpose(L21))));
  const above = zeros([...A.shape.slice(0, -2), h, n - h], A.dtype);
  return concat([concat([L11, above], -1), concat([L21, L22], -1)], -2);
}

/** Phi of (4). */
function halvedLower(M: Tensor): Tensor {
  const { row, column } = positions(...(M.shape.slice(-2) as [number, number]));
  return where(equal(row, column), mul(M, 0.5), where(lessEqual(column, row), M, 0));
}

/**
 * L, lower triangular with a positive diagonal, of A = L L^T: positive definite matrices [..., n, n]. The symmetric
 * part of A is what is factored. NaN where A is not positive definite.
 * @throws ShapeError
 */
export function cholesky(A: Tensor): Tensor {
  expectSquare('cholesky', A);
  return withJvp(factor(symmetricPart(stopGradient(A))), [A], ([dA], L) => {
    const left = solveTriangular(L, symmetricPart(dA!), 'lower'); // L^-1 dA
    return matmul(L, halvedLower(solveTriangular(L, transpose(left), 'lower'))); // (4)
  });
}
