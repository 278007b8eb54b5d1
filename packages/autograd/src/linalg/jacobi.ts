/**
 * Jacobi's rotations in a graph: n / 2 rotations at once in a round, n - 1 rounds a sweep.
 *
 * Rows 2 i and 2 i + 1 rotate together; then all but the first move on by one, as in a tournament, so that each has
 * met each after a sweep and everything stands where it began. A rotation by t = tan of the angle of least turn,
 *
 *     t = 2 c sign(d) / (|d| + sqrt(d^2 + 4 c^2)),   x <- (x - t y) / sqrt(1 + t^2),                           (1)
 *
 * makes the product c of x and y zero; d is the square of y less that of x. y sees -d and with it -t.
 *
 * The product of rows i and j is that of left_i and right_j, which rotate alike. With right = left the rows become
 * orthogonal (Hestenes); with left = W A and right = W from W = I, W A W^T becomes diagonal (Golub and Van Loan,
 * sections 8.5 and 8.6).
 */
import {
  abs,
  add,
  cast,
  clamp,
  concat,
  div,
  expand,
  eye,
  gather,
  greater,
  less,
  matmul,
  mod,
  mul,
  narrow,
  pad,
  reshape,
  rsqrt,
  sqrt,
  square,
  sub,
  sum,
  type Tensor,
  tensor,
  transpose,
  where,
} from '@deftjs/tensor';

/** Sweeps that reach rounding from any matrix: a few that sort out the largest products, and quadratic convergence. */
function sweepsFor(n: number): number {
  return n === 2 ? 2 : 4 + Math.ceil(Math.log2(n));
}

/** For each place of the next round, the row that comes there. n is even. */
function comingFrom(n: number): number[] {
  return Array.from({ length: n }, (_, place) => {
    if (place === 0 || n === 2) return place;
    if (place === n - 1) return n - 2;
    if (place % 2 === 1) return place + 2;
    return place === 2 ? 1 : place - 2;
  });
}

/** t of (1) for the rows at some places, from their squares, their partners' and the products of both. */
function tangents(squares: Tensor, others: Tensor, products: Tensor, isFirst: Tensor): Tensor {
  const d = sub(others, squares);
  const sign = where(greater(d, 0), 1, where(less(d, 0), -1, isFirst)); // at a tie, opposite for the two of a pair
  const twice = mul(products, 2);
  const size = add(abs(d), sqrt(add(square(d), square(twice))));
  const apart = greater(size, 0);
  return where(apart, clamp(div(mul(twice, sign), where(apart, size, 1)), -1, 1), 0);
}

/** [left, right] or [rows, companions] [..., n, 2 n], n even, after some sweeps. */
function swept(start: Tensor, goal: Goal, sweeps: number): Tensor {
  const n = start.shape.at(-2)!;
  const places = comingFrom(n);
  const index = (of: readonly number[]): Tensor => tensor(Int32Array.from(of), [n]);
  const partner = index(places.map((_, place) => place ^ 1));
  const [own, other] = [index(places), index(places.map((place) => place ^ 1))];
  const sign = cast(sub(1, mul(mod(reshape(own, [n, 1]), 2), 2)), start.dtype);
  let x = start;
  for (let round = 0; round < sweeps * (n - 1); round += 1) {
    const left = narrow(x, -1, 0, n);
    const right = goal === 'orthogonal' ? left : narrow(x, -1, n, n);
    const squares = sum(mul(left, right), -1, true); // [..., n, 1]
    const products = sum(mul(left, gather(right, partner, -2)), -1, true);
    // The mean of both products of a pair: t and -t must be equal to the last bit.
    const mean = mul(add(gather(products, own, -2), gather(products, other, -2)), 0.5);
    const t = tangents(gather(squares, own, -2), gather(squares, other, -2), mean, sign);
    x = mul(rsqrt(add(square(t), 1)), sub(gather(x, own, -2), mul(t, gather(x, other, -2)))); // (1)
  }
  return x;
}

/** Whether rows become orthogonal, or a symmetric matrix diagonal. */
type Goal = 'orthogonal' | 'diagonal';

/**
 * [W M, W] for matrices M [..., n, n] with W orthogonal: the rows of W M orthogonal, or W M W^T diagonal for symmetric
 * M. Entries of M should be of size 1 at most.
 */
export function jacobi(M: Tensor, goal: Goal): Tensor {
  const n = M.shape.at(-1)!;
  const start = concat([M, expand(eye(n, n, M.dtype), M.shape)], -1);
  if (n === 1) return start;
  if (n % 2 === 1) {
    // A row and column of zeros makes the number even. They are mixed into nothing, and end where they began.
    const added = M.shape.map((_, axis) => [0, axis >= M.rank - 2 ? 1 : 0]);
    const rows = narrow(jacobi(pad(M, added), goal), -2, 0, n);
    return concat([narrow(rows, -1, 0, n), narrow(rows, -1, n + 1, n)], -1);
  }
  const rotated = swept(start, goal, sweepsFor(n) - 1);
  // Hundreds of rotations leave W short of orthogonal by as many roundings, and W M with it: begin the last sweep anew.
  const W = narrow(rotated, -1, n, n);
  const excess = sub(matmul(W, transpose(W)), eye(n, n, M.dtype));
  const orthogonal = sub(W, mul(matmul(excess, W), 0.5));
  return swept(concat([matmul(orthogonal, M), orthogonal], -1), goal, 1);
}
