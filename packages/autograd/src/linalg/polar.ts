/**
 * The polar decomposition P = Q H of a tall matrix, Q^T Q = I and H symmetric, by matrix products only (Newton-Schulz).
 *
 *     X <- X M,   M = mu (3 I - mu^2 X^T X) / 2,   mu^2 = 3 / (1 + l + l^2)                                    (1)
 *
 * maps singular values in [l, 1] into [l', 1] with l' = mu l (3 - mu^2 l^2) / 2, the best cubic for that interval (Chen
 * and Chow 2014): from l = 1/1000 to 1 in a dozen steps. Q spans what P spans, is smooth where P has full rank and has no
 * sign to choose, unlike the Q of QR.
 */
import {
  abs,
  div,
  eye,
  formatShape,
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
import { symmetricPart } from './matrix.ts';

/** Singular values down to this share of the largest come out as 1. */
const smallest = 1e-3;

/** mu of every step of (1): until the interval is nearly a point, and then 1, of quadratic convergence. */
const scales: readonly number[] = (() => {
  const factors: number[] = [];
  for (let l = smallest; l < 0.999; ) {
    const mu = Math.sqrt(3 / (1 + l + l * l));
    factors.push(mu);
    l = (mu * l * (3 - (mu * l) ** 2)) / 2;
  }
  return [...factors, 1, 1, 1];
})();

/**
 * Q of the polar decomposition of P [..., m, n]: the matrices of orthonormal columns nearest to P. Differentiable to
 * any order by tracing. Directions of P with a singular value below about 1/1000 of the largest come out shorter than
 * 1; zeros give NaN.
 * @throws ShapeError unless m >= n >= 1
 */
export function polarFactor(P: Tensor): Tensor {
  const [m, n] = P.shape.slice(-2);
  if (P.rank < 2 || n! < 1 || m! < n!) {
    throw new ShapeError(`polar: expected [..., m, n] with m >= n >= 1; got ${formatShape(P.shape)}`);
  }
  const gram = matmul(transpose(P), P);
  // |P|_2^2 <= max row sum of |P^T P|. Q does not depend on the scale, so no derivative goes through it.
  const squaredScale = stopGradient(max(sum(abs(gram), -1, true), -2, true));
  const I = eye(n!, n!, P.dtype);
  return scales.reduce(
    (X, mu) => {
      const G = matmul(transpose(X), X);
      return matmul(X, sub(mul(I, 1.5 * mu), mul(G, mu ** 3 / 2))); // (1)
    },
    div(P, sqrt(squaredScale)),
  );
}

/**
 * Q [..., m, n] and H [..., n, n] = (P^T P)^(1/2) of the polar decomposition.
 * @throws as `polarFactor`
 */
export function polar(P: Tensor): { readonly Q: Tensor; readonly H: Tensor } {
  const Q = polarFactor(P);
  const H = matmul(transpose(Q), P);
  return { Q, H: symmetricPart(H) };
}
