/**
 * The projectors of DEFT: what of W0 is removed, and in which directions R writes, both from P (m x r).
 *
 *     W = W0 - L T^T W0 + s Q R          removed part K = L T^T, m x m and never built                         (1)
 *
 * "DEFT" (arXiv 2509.22793) writes L = T = Q = P; the others are the "relaxing" options of its code and of PEFT.
 */
import { relu, type Tensor } from '@deftjs/tensor';
import { polarFactor } from '../decompositions/polar.ts';
import { orthonormalBases, orthonormalBasis } from '../decompositions/qr.ts';

/** The three factors of (1), m x r each. Where the removal writes in the directions of R, `left` is `basis` itself. */
export interface Projection {
  /** Q: the directions that R writes in. */
  readonly basis: Tensor;
  readonly left: Tensor;
  /** T */
  readonly right: Tensor;
}

/** K = P P^T, the paper's formula. A projector only if P^T P = I: eigenvalues are the squared singular values of P. */
export function rawProjection(P: Tensor): Projection {
  return { basis: P, left: P, right: P };
}

/** K = P relu(P)^T: PEFT's default and the official OmniGen layer for the string "None". Not symmetric, rank <= r. */
export function reluProjection(P: Tensor): Projection {
  return { basis: P, left: P, right: relu(P) };
}

/** K = relu(P) relu(P)^T beside the directions P: positive semidefinite. What it removes, P R cannot give back. */
export function reluBothProjection(P: Tensor): Projection {
  const positive = relu(P);
  return { basis: P, left: positive, right: positive };
}

/** K = Q Q^T with P = Q R' by Householder QR with LAPACK's signs: the orthogonal projector on the columns of P. */
export function qrProjection(P: Tensor): Projection {
  return orthogonal(orthonormalBasis(P));
}

/** K = Q Q^T with Q = P (P^T P)^(-1/2): the projector of `qrProjection` in a basis that is smooth in P. */
export function polarProjection(P: Tensor): Projection {
  return orthogonal(polarFactor(P));
}

function orthogonal(Q: Tensor): Projection {
  return { basis: Q, left: Q, right: Q };
}

/** Every projector by the name that configs use. */
export const projections = {
  none: rawProjection,
  relu: reluProjection,
  relu_both: reluBothProjection,
  qr: qrProjection,
  polar: polarProjection,
} as const satisfies Readonly<Record<string, (P: Tensor) => Projection>>;

export type ProjectorName = keyof typeof projections;

/** The projection of every P. The QR decompositions of all P of one shape are computed as one batch. */
export function projectAll(name: ProjectorName, P: readonly Tensor[]): readonly Projection[] {
  return name === 'qr' ? orthonormalBases(P).map(orthogonal) : P.map(projections[name]);
}
