/**
 * Non-negative factors V ~ W H of a non-negative matrix, by multiplicative updates (Lee and Seung 2001):
 *
 *     H <- H o (W^T V) / (W^T W H),   W <- W o (V H^T) / (W H H^T)                                            (1)
 *
 * Each leaves no entry negative and never increases |V - W H|^2 (their theorem 1).
 */
import { add, div, formatShapes, matmul, mul, ShapeError, type Tensor, transpose } from '@deftjs/tensor';
import { extentsOf } from './matrix.ts';

export interface NonNegativeFactors {
  /** [..., m, r] */
  readonly W: Tensor;
  /** [..., r, n] */
  readonly H: Tensor;
}

/** Added to denominators: where one is 0, its numerator is too, and the entry becomes 0. */
const tiny = 1e-30;

/**
 * Factors of V [..., m, n] after so many of both updates (1) from the given start, whose entries must not be negative.
 * Zeros stay zeros. Differentiable in V and the start, by tracing.
 * @throws ShapeError when the factors do not multiply to V's shape
 */
export function nmf(V: Tensor, start: NonNegativeFactors, iterations: number): NonNegativeFactors {
  const [m, n] = extentsOf('nmf', V);
  let { W, H } = start;
  const fits = W.shape.at(-2) === m && H.shape.at(-1) === n && W.shape.at(-1) === H.shape.at(-2);
  if (W.rank < 2 || H.rank < 2 || !fits) {
    throw new ShapeError(
      `nmf: expected W [${m}, r] and H [r, ${n}]; got ${formatShapes([W.shape, H.shape])}`,
    );
  }
  for (let i = 0; i < iterations; i += 1) {
    const Wt = transpose(W);
    H = mul(H, div(matmul(Wt, V), add(matmul(matmul(Wt, W), H), tiny)));
    const Ht = transpose(H);
    W = mul(W, div(matmul(V, Ht), add(matmul(W, matmul(H, Ht)), tiny)));
  }
  return { W, H };
}
