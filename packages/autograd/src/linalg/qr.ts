/**
 * Householder QR of a tall matrix with LAPACK's signs, in tensor ops that run on every device.
 *
 *     A = Q R,  A [m, n], m >= n,  Q^T Q = I,  R upper triangular
 *
 *     v = x + sign(x_0) |x| e_0,   b = 2 / v.v,   H = I - b v v^T,   H x = -sign(x_0) |x| e_0                 (1)
 *     with x the first column, sign(0) = +, and H = I where x is zero below x_0 (LAPACK's dlarfg)
 *     H A = [[R_00, R_0], [0, A1]]   so that   Q(A) = H diag(1, Q(A1))                                        (2)
 *
 * The signs matter: DEFT's R is learnt against this Q, and a QR of other signs loads the same file as another model.
 * Tangent of Q along dA (Walter and Lehmann 2010), of which the derivative in reverse is the transpose:
 *
 *     M = Q^T dA R^-1,   dQ = dA R^-1 - Q (M - N + N^T),   N = strict_tril(M)                                 (3)
 *
 * It needs full column rank; a column that depends on those before it gives infinities.
 */
import {
  add,
  and,
  cast,
  div,
  equal,
  expand,
  eye,
  formatShape,
  greater,
  greaterEqual,
  iota,
  matmul,
  mul,
  narrow,
  neg,
  pad,
  ShapeError,
  sqrt,
  square,
  stopGradient,
  sub,
  sum,
  type Tensor,
  transpose,
  tril,
  triu,
  where,
} from '@deftjs/tensor';
import { withJvp } from '../custom.ts';
import { inBatches } from './batches.ts';
import { expectFewColumns } from './matrix.ts';
import { solveTriangular } from './triangular.ts';

/**
 * Q^T of (2) for A^T = `rows` [..., n, m]. Vectors lie in rows because folds along the last axis read memory in order.
 * Two folds for each row, one on the way down and one on the way up.
 */
export function householderRows(rows: Tensor): Tensor {
  const [n, m] = rows.shape.slice(-2) as [number, number];
  const x = narrow(rows, -2, 0, 1); // [..., 1, m]
  const head = narrow(x, -1, 0, 1); // [..., 1, 1]
  const isHead = equal(iota([1, m], 1), 0);
  const tail = where(isHead, 0, x);
  const alongTail = sum(mul(tail, rows), -1, true); // [..., n, 1]
  const tailSquared = narrow(alongTail, -2, 0, 1);
  const length = sqrt(add(tailSquared, square(head)));
  const pivot = add(head, where(greaterEqual(head, 0), length, neg(length)));
  const v = where(isHead, pivot, x); // (1)
  const reflects = greater(tailSquared, 0);
  const b = where(reflects, div(2, where(reflects, add(tailSquared, square(pivot)), 1)), 0);
  const corner = cast(and(isHead, equal(iota([n, m], 0), 0)), rows.dtype); // [n, m], e_0 in row 0
  const reflect = (y: Tensor, along: Tensor): Tensor => sub(y, mul(mul(b, along), v));
  if (n === 1) return reflect(corner, pivot);
  const reflected = reflect(rows, add(alongTail, mul(pivot, narrow(rows, -1, 0, 1))));
  const rest = narrow(narrow(reflected, -2, 1, n - 1), -1, 1, m - 1);
  const lead = rows.shape.slice(0, -2).map(() => [0, 0]);
  const inner = pad(householderRows(rest), [...lead, [1, 0], [1, 0]]);
  const block = add(inner, corner);
  return reflect(block, sum(mul(v, block), -1, true)); // (2)
}

/** Q [..., m, n]. */
function basisOf(A: Tensor): Tensor {
  return transpose(householderRows(transpose(A)));
}

/** R^-1 of A = Q R. */
function inverseFactor(Q: Tensor, A: Tensor): Tensor {
  const R = triu(matmul(transpose(Q), A));
  return solveTriangular(R, expand(eye(R.shape.at(-1)!, R.shape.at(-1)!, R.dtype), R.shape), 'upper');
}

/** @throws ShapeError, RangeError */
function expectTall(A: Tensor): void {
  const [m, n] = A.shape.slice(-2);
  if (A.rank < 2 || n! < 1 || m! < n!) {
    throw new ShapeError(`qr: expected [..., m, n] with m >= n >= 1; got ${formatShape(A.shape)}`);
  }
  expectFewColumns('qr', n!, 'use qrOnHost');
}

/** Q of A with its value, and that of R^-1, computed already. */
function basisWithRule(A: Tensor, value: Tensor, inverse: Tensor): Tensor {
  return withJvp(value, [A], ([dA], Q, a) => {
    const R = triu(matmul(transpose(Q), a!));
    const inverseR = withJvp(inverse, [R], ([dR], X) => neg(matmul(matmul(X, dR!), X)));
    const scaled = matmul(dA!, inverseR);
    const M = matmul(transpose(Q), scaled);
    const N = tril(M, -1);
    return sub(scaled, matmul(Q, add(sub(M, N), transpose(N)))); // (3)
  });
}

/**
 * Q of the QR decomposition of A [..., m, n]: orthonormal columns that span A's, with LAPACK's signs. Differentiable
 * by (3). Entries whose squares underflow count as zero; a column of zeros gives a unit vector.
 * @throws ShapeError unless m >= n >= 1, RangeError for more than 128 columns
 */
export function orthonormalBasis(A: Tensor): Tensor {
  expectTall(A);
  const constant = stopGradient(A);
  const value = basisOf(constant);
  return basisWithRule(A, value, inverseFactor(value, constant));
}

/**
 * `orthonormalBasis` of each matrix [m, n]. All of one shape are decomposed as one batch, in as many kernels as one, and so
 * are their derivatives.
 * @throws as `orthonormalBasis`
 */
export function orthonormalBases(matrices: readonly Tensor[]): Tensor[] {
  for (const A of matrices) expectTall(A);
  return inBatches(matrices, orthonormalBasis);
}

/**
 * Q [..., m, n] and R [..., n, n] of A [..., m, n], with LAPACK's signs. R = Q^T A to any order, so its derivatives
 * are those of the product.
 * @throws as `orthonormalBasis`
 */
export function qr(A: Tensor): { readonly Q: Tensor; readonly R: Tensor } {
  const Q = orthonormalBasis(A);
  return { Q, R: triu(matmul(transpose(Q), A)) };
}
