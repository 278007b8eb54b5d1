/**
 * The projectors of DEFT: what of W0 is removed, and in which directions R writes, both from P (m x r).
 *
 *     W = W0 - L T^T W0 + s Q R          removed part K = L T^T, m x m and never built                         (1)
 *
 * "DEFT" (arXiv 2509.22793) writes L = T = Q = P; the others are the "relaxing" options of its code and of PEFT. With the
 * thin SVD P = U S V^T, most are one matrix, K = U f(S) U^T:
 *
 *     f = 1: qr, svd, polar        f = s: tsvd, lrmf        f = s^2: none, eigen                               (2)
 *
 * tsvd, lrmf, eigen and nmf exist in the official code for PaRa alone, with no Q and with scales that make I - K amplify;
 * the Q of each and the scaling `projector`, which sets f = 1, are this project's definitions.
 */
import {
  cholesky,
  inBatches,
  orthonormalBasis,
  polarFactor,
  solveTriangular,
  svd,
} from '@deftjs/autograd/linalg';
import {
  add,
  div,
  matmul,
  mul,
  relu,
  type Shape,
  sqrt,
  type Tensor,
  transpose,
  unsqueeze,
} from '@deftjs/tensor';
import type { Theta } from '../parametrization.ts';

/** The three factors of (1), m x r each. Where the removal writes in the directions of R, `left` is `basis` itself. */
export interface Projection {
  /** Q: the directions that R writes in. */
  readonly basis: Tensor;
  readonly left: Tensor;
  /** T; null for the identity, where `left` is the whole of K, m x m. */
  readonly right: Tensor | null;
}

/** K as the published code scales it, or with f = 1: an orthogonal projector on the same columns. */
export type ProjectorScaling = 'faithful' | 'projector';

/** A projector: the tensors it comes from and what it makes of them, alone or batched over leading axes. */
export interface Projector {
  /** Names and shapes for m outputs and rank r. */
  shapes(m: number, r: number): Readonly<Record<string, Shape>>;
  project(theta: Theta): Projection;
  /** Whether K W0 is in the span that R writes in, so that training can start from the base model. */
  readonly restorable: boolean;
  /** Whether P is decomposed, in kernels worth sharing between layers; else there is nothing but elementwise work. */
  readonly decomposes: boolean;
}

function fromP(project: (P: Tensor) => Projection, restorable: boolean, decomposes: boolean): Projector {
  return {
    shapes: (m, r) => ({ deft_P: [m, r] }),
    project: ({ deft_P }) => project(deft_P!),
    restorable,
    decomposes,
  };
}

/** A projector whose factors are entries of P, or functions of them. */
function elementwise(project: (P: Tensor) => Projection, restorable = true): Projector {
  return fromP(project, restorable, false);
}

/** A projector whose factors come from a decomposition of P. */
function decomposed(project: (P: Tensor) => Projection): Projector {
  return fromP(project, true, true);
}

/** K = P P^T, the paper's formula. A projector only if P^T P = I: eigenvalues are the squared singular values of P. */
const raw = elementwise((P) => ({ basis: P, left: P, right: P }));

/** K = P relu(P)^T: PEFT's default and the official OmniGen layer for the string "None". Not symmetric, rank <= r. */
const reluRight = elementwise((P) => ({ basis: P, left: P, right: relu(P) }));

/** K = relu(P) relu(P)^T beside the directions P: positive semidefinite. What it removes, P R cannot give back. */
const reluBoth = elementwise((P) => {
  const positive = relu(P);
  return { basis: P, left: positive, right: positive };
}, false);

/** K = relu(P P^T), entry by entry: of rank up to m, indefinite, and the only K that is built, m x m. */
const reluOuter = elementwise((P) => ({ basis: P, left: relu(matmul(P, transpose(P))), right: null }), false);

/** K = Q Q^T with P = Q R' by Householder QR with LAPACK's signs: the orthogonal projector on the columns of P. */
const qr = decomposed((P) => orthogonal(orthonormalBasis(P)));

/** K = Q Q^T with Q = P (P^T P)^(-1/2): the projector of `qr` in a basis that is smooth in P. */
const polar = decomposed((P) => orthogonal(polarFactor(P)));

/** K = U U^T: the projector of `qr` in the singular vectors, which turn fast where singular values are close. */
const singular = decomposed((P) => orthogonal(svd(P).U));

/** K = U S U^T = (P P^T)^(1/2), Q = U. */
const truncated = decomposed((P) => {
  const { U, S } = svd(P);
  return { basis: U, left: U, right: columnsTimes(U, S) };
});

/** K of `tsvd` from the factor U S^(1/2), which is Q too. */
const factored = decomposed((P) => {
  const { U, S } = svd(P);
  return orthogonal(columnsTimes(U, sqrt(S)));
});

/** The same directions with K = U U^T. */
const factoredProjector = decomposed((P) => {
  const { U, S } = svd(P);
  const basis = columnsTimes(U, sqrt(S));
  return { basis, left: basis, right: div(U, unsqueeze(sqrt(S), -2)) };
});

/** The r largest eigenpairs V L V^T of P P^T + 1e-6 I, Q = V. */
const eigen = decomposed((P) => {
  const { U, S } = svd(P);
  return { basis: U, left: U, right: columnsTimes(U, add(mul(S, S), 1e-6)) };
});

/** K = relu(W) relu(H) with factors of their own instead of P, Q = relu(W). */
const nonNegative: Projector = {
  shapes: (m, r) => ({ deft_W: [m, r], deft_H: [r, m] }),
  project({ deft_W, deft_H }) {
    const basis = relu(deft_W!);
    return { basis, left: basis, right: transpose(relu(deft_H!)) };
  },
  restorable: true,
  decomposes: false,
};

/** K = Q (Q^T Q)^-1 Q^T with Q = relu(P). NaN where columns of relu(P) depend on each other. */
const nonNegativeProjector = decomposed((P) => {
  const Q = relu(P);
  const L = cholesky(matmul(transpose(Q), Q));
  const half = solveTriangular(L, transpose(Q), 'lower');
  return { basis: Q, left: Q, right: transpose(solveTriangular(transpose(L), half, 'upper')) };
});

function orthogonal(Q: Tensor): Projection {
  return { basis: Q, left: Q, right: Q };
}

/** U diag(d) */
function columnsTimes(U: Tensor, d: Tensor): Tensor {
  return mul(U, unsqueeze(d, -2));
}

/** Every projector by the name that configs use, in each scaling that it has. */
export const projectors = {
  none: { faithful: raw },
  relu: { faithful: reluRight },
  relu_both: { faithful: reluBoth },
  relu_outer: { faithful: reluOuter },
  qr: { faithful: qr },
  polar: { faithful: polar },
  svd: { faithful: singular },
  tsvd: { faithful: truncated, projector: singular },
  lrmf: { faithful: factored, projector: factoredProjector },
  eigen: { faithful: eigen, projector: singular },
  nmf: { faithful: nonNegative, projector: nonNegativeProjector },
} as const satisfies Readonly<Record<string, Partial<Record<ProjectorScaling, Projector>>>>;

export type ProjectorName = keyof typeof projectors;

/** The projector of the name. @throws RangeError when it has no such scaling */
export function projectorOf(name: ProjectorName, scaling: ProjectorScaling): Projector {
  const found = (projectors[name] as Partial<Record<ProjectorScaling, Projector>>)[scaling];
  if (!found) {
    throw new RangeError(
      `deft: the projector ${name} has no scaling "${scaling}"; tsvd, lrmf, eigen and nmf have`,
    );
  }
  return found;
}

/** The projection of every theta. Those of one shape are computed as one batch, in as many kernels as one. */
export function projectAll(projector: Projector, thetas: readonly Theta[]): readonly Projection[] {
  if (!projector.decomposes) return thetas.map((theta) => projector.project(theta));
  const directions = thetas.map(({ deft_P }) => deft_P!);
  return inBatches(directions, (deft_P) => {
    const { basis, left, right } = projector.project({ deft_P });
    return { basis, left, right: right! };
  });
}
