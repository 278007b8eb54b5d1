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
import { vjp, withVjp } from '@deftjs/autograd';
import {
  add,
  and,
  cast,
  concat,
  div,
  equal,
  expand,
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
  ShapeError,
  sqrt,
  square,
  squeeze,
  stack,
  stopGradient,
  sub,
  sum,
  type Tensor,
  transpose,
  where,
} from '@deftjs/tensor';

/** Row and column numbers of matrices, to compare with each other. */
function positions({ shape }: Tensor): { row: Tensor; column: Tensor } {
  const matrix = shape.slice(-2);
  return { row: iota(matrix, 0), column: iota(matrix, 1) };
}

/** The entries on and above the diagonal of the last two axes; zeros below. */
function upperTriangle(A: Tensor): Tensor {
  const { row, column } = positions(A);
  return where(lessEqual(row, column), A, 0);
}

/** tril(M) + strict_tril(M)^T: the lower triangle mirrored at the diagonal. */
function mirrorLower(M: Tensor): Tensor {
  const { row, column } = positions(M);
  return where(lessEqual(column, row), M, transpose(M));
}

/**
 * Q^T of (2) for A^T = `rows` [..., n, m]. Vectors lie in rows because folds along the last axis read memory in order.
 * Two folds for each row, one on the way down and one on the way up.
 */
function householderRows(rows: Tensor): Tensor {
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

/** The inverse of upper triangular matrices [..., n, n], by back substitution: last row first. */
function invertUpper(R: Tensor): Tensor {
  const n = R.shape.at(-1)!;
  const { row, column } = positions(R);
  const solved: Tensor[] = [];
  let rest: Tensor = expand(cast(equal(row, column), R.dtype), R.shape);
  for (let k = n - 1; k >= 0; k -= 1) {
    const above = narrow(R, -1, k, 1); // [..., n, 1]
    const z = div(narrow(rest, -2, k, 1), narrow(above, -2, k, 1));
    solved.unshift(z);
    if (k > 0) rest = sub(narrow(rest, -2, 0, k), mul(narrow(above, -2, 0, k), z));
  }
  return concat(solved, -2);
}

/** Q of matrices [..., m, n]. */
function basisOf(A: Tensor): Tensor {
  return transpose(householderRows(transpose(A)));
}

/** R^-1 of A = Q R. */
function inverseFactor(Q: Tensor, A: Tensor): Tensor {
  return invertUpper(upperTriangle(matmul(transpose(Q), A)));
}

/**
 * Q of the QR decomposition of each A [m, n]: orthonormal columns that span A's, with LAPACK's signs. Differentiable
 * by (3). Entries whose squares underflow count as zero; a column of zeros gives a unit vector. All of one shape are
 * decomposed as one batch: as many kernels as for one.
 * @throws ShapeError unless each A is a matrix with m >= n >= 1
 */
export function orthonormalBases(matrices: readonly Tensor[]): Tensor[] {
  for (const A of matrices) {
    const [m, n] = A.shape;
    if (A.rank !== 2 || n! < 1 || m! < n!) {
      throw new ShapeError(`qr: expected [m, n] with m >= n >= 1; got ${formatShape(A.shape)}`);
    }
  }
  const batches = new Map<string, number[]>();
  matrices.forEach(({ shape, dtype }, i) => {
    const kind = `${dtype}${formatShape(shape)}`;
    batches.set(kind, [...(batches.get(kind) ?? []), i]);
  });
  const bases = new Array<Tensor>(matrices.length);
  for (const members of batches.values()) {
    const A = stack(members.map((i) => stopGradient(matrices[i]!))); // [L, m, n]
    const Q = basisOf(A);
    const inverse = inverseFactor(Q, A); // nothing that is only evaluated depends on it
    members.forEach((member, i) => {
      bases[member] = basisWithRule(matrices[member]!, entry(Q, i), entry(inverse, i));
    });
  }
  return bases;
}

/** Matrix i of a batch [L, m, n]. */
function entry(batch: Tensor, i: number): Tensor {
  return squeeze(narrow(batch, 0, i, 1), 0);
}

/** Q of A with its value, and that of R^-1, computed already: derivatives are those of A alone. */
function basisWithRule(A: Tensor, value: Tensor, inverse: Tensor): Tensor {
  return withVjp(
    value,
    [A],
    (x) => basisOf(x!),
    (G, Q, x) => {
      const S = mirrorLower(neg(matmul(transpose(G), Q)));
      const inverseR = withVjp(
        inverse,
        [Q, x!],
        (q, a) => inverseFactor(q!, a!),
        (dy, _, q, a) => vjp(inverseFactor, q!, a!).pullback(dy),
      );
      return [matmul(add(G, matmul(Q, S)), transpose(inverseR))]; // (3)
    },
  );
}

/**
 * Q of the QR decomposition of one matrix, as `orthonormalBases`.
 * @throws ShapeError unless A is a matrix with m >= n >= 1
 */
export function orthonormalBasis(A: Tensor): Tensor {
  return orthonormalBases([A])[0]!;
}

/**
 * Q [m, n] and R [n, n] of the QR decomposition of A [m, n], with LAPACK's signs.
 * @throws ShapeError unless A is a matrix with m >= n >= 1
 */
export function qr(A: Tensor): { readonly Q: Tensor; readonly R: Tensor } {
  const Q = orthonormalBasis(A);
  return { Q, R: upperTriangle(matmul(transpose(Q), A)) };
}
