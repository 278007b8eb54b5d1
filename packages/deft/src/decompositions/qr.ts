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
 * Cotangent of A from that G of Q (R then is the constant Q^T A of the factorisation):
 *
 *     M = -G^T Q,   S = tril(M) + strict_tril(M)^T,   dA = (G + Q S) R^-T                                     (3)
 *
 * It needs full column rank; a column that depends on those before it gives infinite cotangents.
 */
import { customVjp } from '@deftjs/autograd';
import {
  add,
  and,
  cast,
  concat,
  div,
  equal,
  formatShape,
  greater,
  greaterEqual,
  iota,
  lessEqual,
  matmul,
  mul,
  narrow,
  neg,
  pad,
  type Shape,
  ShapeError,
  sqrt,
  square,
  sub,
  sum,
  type Tensor,
  transpose,
  where,
} from '@deftjs/tensor';

/** Row and column numbers of a matrix, as tensors of its shape. */
function positions(shape: Shape): { row: Tensor; column: Tensor } {
  return { row: iota(shape, 0), column: iota(shape, 1) };
}

/** The entries on and above the diagonal; zeros below. */
export function upperTriangle(A: Tensor): Tensor {
  const { row, column } = positions(A.shape);
  return where(lessEqual(row, column), A, 0);
}

/** tril(M) + strict_tril(M)^T: the lower triangle mirrored at the diagonal. */
function mirrorLower(M: Tensor): Tensor {
  const { row, column } = positions(M.shape);
  return where(lessEqual(column, row), M, transpose(M));
}

/**
 * Q^T of (2) for A^T = `rows` [n, m]. Vectors lie in rows because folds along the last axis read memory in order.
 * Two folds for each row, one on the way down and one on the way up.
 */
function householderRows(rows: Tensor): Tensor {
  const [n, m] = rows.shape as [number, number];
  const x = narrow(rows, 0, 0, 1); // [1, m]
  const head = narrow(x, 1, 0, 1); // [1, 1]
  const isHead = equal(iota([1, m], 1), 0);
  const tail = where(isHead, 0, x);
  const alongTail = sum(mul(tail, rows), 1, true); // [n, 1]
  const tailSquared = narrow(alongTail, 0, 0, 1);
  const length = sqrt(add(tailSquared, square(head)));
  const pivot = add(head, where(greaterEqual(head, 0), length, neg(length)));
  const v = where(isHead, pivot, x); // (1)
  const reflects = greater(tailSquared, 0);
  const b = where(reflects, div(2, where(reflects, add(tailSquared, square(pivot)), 1)), 0);
  const corner = cast(and(isHead, equal(iota([n, m], 0), 0)), rows.dtype); // [n, m], e_0 in row 0
  const reflect = (y: Tensor, along: Tensor): Tensor => sub(y, mul(mul(b, along), v));
  if (n === 1) return reflect(corner, pivot);
  const reflected = reflect(rows, add(alongTail, mul(pivot, narrow(rows, 1, 0, 1))));
  const rest = narrow(narrow(reflected, 0, 1, n - 1), 1, 1, m - 1);
  const inner = pad(householderRows(rest), [
    [1, 0],
    [1, 0],
  ]);
  const block = add(inner, corner);
  return reflect(block, sum(mul(v, block), 1, true)); // (2)
}

/** Z with R Z = Y for an upper triangular R [n, n] and Y [n, m]: back substitution, last row first. */
function solveUpper(R: Tensor, Y: Tensor): Tensor {
  const solved: Tensor[] = [];
  let rest = Y;
  for (let k = Y.shape[0]! - 1; k >= 0; k -= 1) {
    const column = narrow(R, 1, k, 1); // [n, 1]
    const z = div(narrow(rest, 0, k, 1), narrow(column, 0, k, 1));
    solved.unshift(z);
    if (k > 0) rest = sub(narrow(rest, 0, 0, k), mul(narrow(column, 0, 0, k), z));
  }
  return concat(solved, 0);
}

const basis = customVjp(
  (A) => transpose(householderRows(transpose(A!))),
  (G, Q, A) => {
    const S = mirrorLower(neg(matmul(transpose(G), Q)));
    const R = upperTriangle(matmul(transpose(Q), A!));
    const Y = add(G, matmul(Q, S));
    return [transpose(solveUpper(R, transpose(Y)))]; // X R^T = Y is R X^T = Y^T
  },
);

/**
 * Q of the QR decomposition of A [m, n]: orthonormal columns that span A's, with LAPACK's signs. Differentiable by (3).
 * Entries whose squares underflow count as zero; a column of zeros gives a unit vector.
 * @throws ShapeError unless A is a matrix with m >= n >= 1
 */
export function orthonormalBasis(A: Tensor): Tensor {
  const [m, n] = A.shape;
  if (A.rank !== 2 || n! < 1 || m! < n!) {
    throw new ShapeError(`qr: expected [m, n] with m >= n >= 1; got ${formatShape(A.shape)}`);
  }
  return basis(A);
}

/**
 * Q [m, n] and R [n, n] of the QR decomposition of A [m, n], with LAPACK's signs.
 * @throws ShapeError unless A is a matrix with m >= n >= 1
 */
export function qr(A: Tensor): { readonly Q: Tensor; readonly R: Tensor } {
  const Q = orthonormalBasis(A);
  return { Q, R: upperTriangle(matmul(transpose(Q), A)) };
}
