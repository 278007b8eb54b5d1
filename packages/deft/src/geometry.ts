/**
 * Where an adapter's directions lie: angles with the weight, with themselves before training, with another concept, and
 * how much of a change moving singular values alone would make. On the host, in float64, by whole decompositions of W0:
 * a report, not a part of training.
 */
import { qrOnHost, svdOnHost } from '@deftjs/autograd/linalg';
import type { Module } from '@deftjs/autograd/nn';
import {
  cast,
  type Device,
  evaluate,
  formatShapes,
  item,
  matmul,
  mul,
  narrow,
  read,
  reshape,
  ShapeError,
  square,
  sub,
  sum,
  type Tensor,
  transpose,
} from '@deftjs/tensor';
import { type AttachedAdapter, requireAdapters } from './adapter.ts';
import { isLowRank } from './algebra.ts';
import { matrixShape } from './linearMap.ts';
import type { WeightChange } from './parametrization.ts';

/**
 * The principal angles between the columns of A [m, k] and B [m, l], smallest first, in radians in [0, pi/2]: min(k, l) of
 * them. Cosines and sines both, so that small angles keep their digits (Bjorck and Golub 1973).
 * @throws ShapeError unless k, l <= m
 */
export async function principalAngles(A: Tensor, B: Tensor, device?: Device): Promise<number[]> {
  if (A.rank !== 2 || B.rank !== 2 || A.shape[0] !== B.shape[0]) {
    throw new ShapeError(
      `principalAngles: expected [m, k] and [m, l]; got ${formatShapes([A.shape, B.shape])}`,
    );
  }
  const [wide, narrowed] = A.shape[1]! >= B.shape[1]! ? [A, B] : [B, A];
  const exact = async (x: Tensor): Promise<Tensor> => {
    const { Q } = await qrOnHost(x, device);
    return Q;
  };
  const [Q, P] = [await exact(wide), await exact(narrowed)];
  const inner = matmul(transpose(Q), P);
  const outer = sub(P, matmul(Q, inner));
  await evaluate([inner, outer], device);
  const [cosines, sines] = [(await svdOnHost(inner, device)).S, (await svdOnHost(outer, device)).S];
  const [c, s] = [[...(await read(cosines))], [...(await read(sines))].reverse()];
  return c.map((cosine, i) => Math.atan2(s[i]!, cosine));
}

/** The geometry of one layer's change. Angles in radians, smallest first. */
export interface LayerGeometry {
  readonly path: string;
  /** Between the adapter's directions and as many left singular vectors of W0, those of the largest values. */
  readonly anglesToWeight: readonly number[];
  /**
   * sum d_i^2 / |delta|^2 with d_i = u_i^T delta v_i in the singular vectors of W0: the part of the change that moving
   * singular values alone (SVDiff) makes. null where delta is zero.
   */
  readonly singularValueShare: number | null;
}

/**
 * The geometry of every layer that the adapter is on. Whole weights have no directions: their angles are empty.
 * @throws Error when no layer has it
 */
export async function layerGeometry(
  module: Module,
  adapterName = 'default',
  device?: Device,
): Promise<LayerGeometry[]> {
  const layers: LayerGeometry[] = [];
  for (const attached of requireAdapters('layerGeometry', module, adapterName)) {
    layers.push(await geometryOf(attached, device));
  }
  return layers;
}

async function geometryOf(
  { path, layer, adapter }: AttachedAdapter,
  device: Device | undefined,
): Promise<LayerGeometry> {
  const shape = matrixShape(layer.weight.shape);
  const { U, V } = await svdOnHost(reshape(cast(layer.weight.value, 'f32'), shape), device);
  const delta = reshape(adapter.deltaWeight(layer), shape);
  const moved = sum(square(sum(mul(U, matmul(delta, V)), 0))); // sum of d_i^2
  const whole = sum(square(delta));
  await evaluate([moved, whole], device);
  const size = await item(whole);
  const directions = directionsOf(adapter.change);
  const k = directions ? Math.min(directions.shape[1]!, U.shape[1]!) : 0;
  return {
    path,
    anglesToWeight: directions ? await principalAngles(directions, narrow(U, 1, 0, k), device) : [],
    singularValueShare: size === 0 ? null : (await item(moved)) / size,
  };
}

/** The columns that a change writes in, or removes; null for a whole weight. */
function directionsOf(change: WeightChange): Tensor | null {
  if (!isLowRank(change)) return null;
  return change.written?.basis ?? change.removed!.left;
}

/** The angles between two adapters on one layer. */
export interface ConceptAngles {
  readonly path: string;
  readonly angles: readonly number[];
}

/** An adapter of some name on the layers of a module. */
export interface AdapterPlace {
  readonly module: Module;
  /** Default "default". */
  readonly adapterName?: string;
}

/**
 * The principal angles between the directions of two adapters, on every layer that has both: two concepts on one model, or
 * one adapter before and after training.
 * @throws Error when no layer has one of them
 */
export async function conceptAngles(
  first: AdapterPlace,
  second: AdapterPlace,
  device?: Device,
): Promise<ConceptAngles[]> {
  const of = ({ module, adapterName = 'default' }: AdapterPlace) =>
    requireAdapters('conceptAngles', module, adapterName);
  const others = new Map(of(second).map(({ path, adapter }) => [path, adapter]));
  const rows: ConceptAngles[] = [];
  for (const { path, adapter } of of(first)) {
    const other = others.get(path);
    const [a, b] = [directionsOf(adapter.change), other && directionsOf(other.change)];
    if (a && b) rows.push({ path, angles: await principalAngles(a, b, device) });
  }
  return rows;
}
