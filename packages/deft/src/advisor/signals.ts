/**
 * What the mean gradient of a weight says about the change that would follow it, before anything is trained.
 *
 * With G [m, n] the mean gradient, G = U S V^T, and Q = U_k the left vectors that hold 90 % of its energy:
 *
 *     energy in k directions   sum of the k largest s_i^2 / |G|^2                                             (1)
 *     predicted removal        |Q^T W0|^2 / |W0|^2                                                            (2)
 *     asked removal            <G, Q Q^T W0> / (|G| |Q Q^T W0|): 1 where descent shrinks what W0 writes there (3)
 *     sparsity                 (sqrt(N) - |G|_1 / |G|_2) / (sqrt(N) - 1), N = m n (Hoyer 2004, section 3.1)   (4)
 */
import { svdOnHost } from '@deftjs/autograd/linalg';
import {
  cast,
  type Device,
  formatShapes,
  narrow,
  read,
  reshape,
  type Shape,
  ShapeError,
  sameShape,
  type Tensor,
} from '@deftjs/tensor';
import { principalAngles } from '../geometry.ts';
import { matrixShape } from '../linearMap.ts';

/** The share of the gradient's energy that the advised directions hold. */
export const heldEnergy = 0.9;

/** The signals of one layer, of its weight as a matrix [m, n]. */
export interface LayerSignals {
  readonly path: string;
  readonly shape: Shape;
  /** |G|. */
  readonly gradientNorm: number;
  /** Equation (1) for k = 1 ... min(m, n); empty where the gradient is zero. */
  readonly energy: readonly number[];
  /** The smallest k whose directions hold 90 % of the energy; 0 where the gradient is zero. */
  readonly rank: number;
  /** Principal angles between Q and as many top left singular vectors of W0, smallest first, in radians. */
  readonly anglesToWeight: readonly number[];
  /** Equation (2), in [0, 1]. */
  readonly removal: number;
  /** Equation (3), in [-1, 1]. */
  readonly askedRemoval: number;
  /** Equation (4): 0 where all entries are as large as each other, 1 where there is one. */
  readonly sparsity: number;
  /** The share of |G|^2 in entries below zero: what a step of descent adds to. */
  readonly growing: number;
}

/**
 * The signals of a layer from its weight and the mean gradient of a loss in it, of one shape. On the host, in float64.
 * @throws ShapeError when the shapes differ, RangeError when the gradient is not finite
 */
export async function layerSignals(
  path: string,
  W0: Tensor,
  gradient: Tensor,
  device?: Device,
): Promise<LayerSignals> {
  if (!sameShape(W0.shape, gradient.shape)) {
    throw new ShapeError(
      `layerSignals: the gradient of ${path} must be of its weight's shape; got ${formatShapes([gradient.shape, W0.shape])}`,
    );
  }
  const [m, n] = matrixShape(W0.shape);
  const G = Float64Array.from(await read(gradient, device));
  const gradientNorm = Math.sqrt(dot(G, G));
  if (!Number.isFinite(gradientNorm)) {
    throw new RangeError(`layerSignals: the gradient of ${path} must be finite; its norm is ${gradientNorm}`);
  }
  const layer = { path, shape: W0.shape, gradientNorm };
  if (gradientNorm === 0) return { ...layer, ...nothing };
  const { U, S } = await svdOnHost(reshape(cast(gradient, 'f32'), [m, n]), device);
  const energy = cumulativeShares(await read(S));
  const rank = 1 + energy.findIndex((share) => share >= heldEnergy);
  const Q = narrow(U, 1, 0, rank);
  const matrix = reshape(cast(W0, 'f32'), [m, n]);
  const { U: weightVectors } = await svdOnHost(matrix, device);
  const weight = Float64Array.from(await read(matrix, device));
  const removed = projected(Float64Array.from(await read(Q, device)), weight, rank);
  const root = Math.sqrt(G.length);
  const absolute = G.reduce((sum, x) => sum + Math.abs(x), 0);
  return {
    ...layer,
    energy,
    rank,
    anglesToWeight: await principalAngles(Q, narrow(weightVectors, 1, 0, rank), device),
    removal: dot(removed, removed) / dot(weight, weight),
    askedRemoval: dot(G, removed) / (gradientNorm * Math.sqrt(dot(removed, removed))),
    sparsity: root === 1 ? 0 : (root - absolute / gradientNorm) / (root - 1),
    growing: G.reduce((sum, x) => (x < 0 ? sum + x * x : sum), 0) / gradientNorm ** 2,
  };
}

/** The signals of a gradient that is zero. */
const nothing = {
  energy: [],
  rank: 0,
  anglesToWeight: [],
  removal: 0,
  askedRemoval: 0,
  sparsity: 0,
  growing: 0,
} as const;

function dot(x: Float64Array, y: Float64Array): number {
  return x.reduce((sum, value, i) => sum + value * y[i]!, 0);
}

/** Equation (1) for every k; the last is 1. */
function cumulativeShares(singular: ArrayLike<number>): number[] {
  const squares = Array.from(singular, (s) => s * s);
  const whole = squares.reduce((sum, square) => sum + square, 0);
  let held = 0;
  return squares.map((square, i) => {
    held += square;
    return i === squares.length - 1 ? 1 : held / whole;
  });
}

/** Q Q^T W for orthonormal columns Q [m, k] and W [m, n], all by rows. */
function projected(Q: Float64Array, W: Float64Array, k: number): Float64Array {
  const m = Q.length / k;
  const n = W.length / m;
  const inside = new Float64Array(k * n); // Q^T W
  const result = new Float64Array(W.length);
  for (let i = 0; i < m; i += 1)
    for (let c = 0; c < k; c += 1)
      for (let j = 0; j < n; j += 1) inside[c * n + j]! += Q[i * k + c]! * W[i * n + j]!;
  for (let i = 0; i < m; i += 1)
    for (let c = 0; c < k; c += 1)
      for (let j = 0; j < n; j += 1) result[i * n + j]! += Q[i * k + c]! * inside[c * n + j]!;
  return result;
}
