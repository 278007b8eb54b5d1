/**
 * The polar factor Q = P (P^T P)^(-1/2) of a tall matrix, by matrix products only (Newton-Schulz).
 *
 *     X_0 = P / c,   X_(k+1) = X_k M_k,   M_k = (3 I - G_k) / 2,   G_k = X_k^T X_k                             (1)
 *
 * A singular value s of X becomes s (3 - s^2) / 2, which tends to 1 from anywhere in (0, sqrt 3). All G_k are
 * polynomials of G_0 and commute, so the iteration runs on r x r matrices:
 *
 *     G_(k+1) = M_k G_k M_k,   N_(k+1) = N_k M_k,   Q = X_0 N                                                  (2)
 *
 * and one last step of (1) on Q itself removes the rounding that (2) gathers. Q spans what P spans, is smooth where P has
 * full rank and has no sign to choose, unlike the Q of QR.
 */
import {
  abs,
  cast,
  type DType,
  div,
  equal,
  formatShape,
  iota,
  matmul,
  max,
  mul,
  ShapeError,
  sqrt,
  stopGradient,
  sub,
  sum,
  type Tensor,
  transpose,
} from '@deftjs/tensor';

// 8 steps of factor 3/2 lift singular values of c/25 to 1; 4 more, of quadratic convergence, make them exact.
const steps = 12;

/** The identity [n, n]. */
function identity(n: number, dtype: DType): Tensor {
  return cast(equal(iota([n, n], 0), iota([n, n], 1)), dtype);
}

/**
 * Q of the polar decomposition of P [m, n]: the orthonormal matrix nearest to P. Differentiable by tracing.
 * Directions of P with a singular value below about 1/25 of the largest come out shorter than 1.
 * @throws ShapeError unless P is a matrix with m >= n >= 1
 */
export function polarFactor(P: Tensor): Tensor {
  const [m, n] = P.shape;
  if (P.rank !== 2 || n! < 1 || m! < n!) {
    throw new ShapeError(`polar: expected [m, n] with m >= n >= 1; got ${formatShape(P.shape)}`);
  }
  const gram = matmul(transpose(P), P);
  // |P|_2^2 <= max row sum of |P^T P|. Q does not depend on the scale, so no derivative goes through it.
  const squaredScale = stopGradient(max(sum(abs(gram), 1)));
  const I = identity(n!, P.dtype);
  const step = (G: Tensor): Tensor => mul(sub(mul(I, 3), G), 0.5);
  let G = div(gram, squaredScale);
  let N = I;
  for (let k = 0; k < steps; k += 1) {
    const M = step(G);
    G = matmul(matmul(M, G), M);
    N = matmul(N, M);
  }
  const Q = matmul(P, div(N, sqrt(squaredScale)));
  return matmul(Q, step(matmul(transpose(Q), Q)));
}
