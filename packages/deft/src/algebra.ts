/**
 * Adapters as algebra: exact conversion between methods, compression, and merges of several concepts.
 *
 * Every low-rank change is delta = B A: of DEFT, B = Q and A = s R - T^T W0, so that DEFT and LoRA of one rank reach the
 * same weights. Back from LoRA: Q = qr(B), R = Q^T (W0 + B A). Both need W0.
 */
import { orthonormalBasis, qrOnHost, svdOnHost } from '@deftjs/autograd/linalg';
import type { Module } from '@deftjs/autograd/nn';
import {
  add,
  cast,
  concat,
  type Device,
  evaluate,
  formatShape,
  formatShapes,
  matmul,
  mul,
  narrow,
  neg,
  read,
  reciprocal,
  reshape,
  ShapeError,
  sameShape,
  sqrt,
  sub,
  type Tensor,
  transpose,
  unsqueeze,
} from '@deftjs/tensor';
import { type AdaptedRow, detach, expectFree, mount, onHost } from './adapt.ts';
import { AdapterGroup, type AttachedAdapter, LayerAdapter, requireAdapters } from './adapter.ts';
import { type AdaptedLayer, matrixShape } from './linearMap.ts';
import type { LowRankChange } from './lowRankChange.ts';
import { expectRank, type Theta, type WeightChange } from './parametrization.ts';
import { deft } from './parametrizations/deft.ts';
import type { Method } from './parametrizations/index.ts';
import { lora } from './parametrizations/lora.ts';
import { adaptableLayers } from './targets.ts';

/** delta = B A with B [m, k] and A [k, n]. */
export interface Factors {
  readonly B: Tensor;
  readonly A: Tensor;
}

/** Whether the change goes through few channels. */
export function isLowRank(change: WeightChange): change is LowRankChange {
  return 'written' in change;
}

/**
 * B and A of a change of W0 [m, n]: k is the rank of what is written or removed, or the sum where they differ in their
 * directions.
 * @throws Error for a change of a whole weight, which `compressAdapters` gives a rank
 */
export function factorsOf(change: WeightChange, W0: Tensor): Factors {
  if (!isLowRank(change)) {
    throw new Error(
      'factorsOf: a whole weight is trained, which has no low rank; compressAdapters gives it one',
    );
  }
  const { written, removed } = change;
  if (!removed) return { B: written!.basis, A: written!.rows };
  const taken = removed.right ? matmul(transpose(removed.right), W0) : W0;
  if (!written) return { B: removed.left, A: neg(taken) };
  if (written.basis === removed.left) return { B: written.basis, A: sub(written.rows, taken) };
  return { B: concat([written.basis, removed.left], 1), A: concat([written.rows, neg(taken)], 0) };
}

function weightOf(layer: AdaptedLayer): Tensor {
  return reshape(cast(layer.weight.value, 'f32'), matrixShape(layer.weight.shape));
}

function scaledFactors({ layer, adapter }: AttachedAdapter, weight = 1, W0 = weightOf(layer)): Factors {
  const { B, A } = factorsOf(adapter.change, W0);
  const scale = weight * adapter.strength;
  return { B, A: scale === 1 ? A : mul(A, scale) };
}

/** What an adapter of a layer is to become. */
interface Planned {
  readonly path: string;
  readonly layer: AdaptedLayer;
  readonly method: Method;
  readonly theta: Theta;
}

/** Puts the planned adapters under the name, in place of those that are named: all values first, then the layers. */
async function replace(
  module: Module,
  replaced: readonly string[],
  adapterName: string,
  planned: readonly Planned[],
  device: Device | undefined,
): Promise<AdaptedRow[]> {
  for (const { path, layer } of planned) {
    if (!replaced.includes(adapterName)) expectFree(adapterName, path, layer);
  }
  const values = await onHost(
    planned.map(({ theta }) => theta),
    device,
  );
  const groups = new Map<string, AdapterGroup>();
  const targetModules = planned.map(({ path }) => path);
  for (const name of replaced) detach(module, name);
  return mount(
    module,
    adapterName,
    planned.map(({ path, layer, method }, i) => {
      const key = JSON.stringify([method.name, method.options]);
      const group = groups.get(key) ?? new AdapterGroup(method);
      groups.set(key, group);
      const request = { method, targetModules, excludeModules: null };
      return { path, layer, adapter: new LayerAdapter(group, request, values[i]!) };
    }),
  );
}

function loraOf(path: string, layer: AdaptedLayer, { B, A }: Factors): Planned {
  const method = lora({ rank: A.shape[0]! });
  const { lora_A, lora_B } = method.shapes(layer.weight.shape);
  return { path, layer, method, theta: { lora_A: reshape(A, lora_A!), lora_B: reshape(B, lora_B!) } };
}

function deftOf(path: string, layer: AdaptedLayer, { B, A }: Factors): Planned {
  const Q = orthonormalBasis(B);
  const R = matmul(transpose(Q), add(weightOf(layer), matmul(B, A)));
  const method = deft({ rank: A.shape[0]!, projector: 'qr' });
  return { path, layer, method, theta: { deft_P: B, deft_R: R } };
}

/**
 * Replaces the adapter of the name by a LoRA adapter of the same delta (alpha = rank), strength included.
 * @throws Error when no layer has it, or it trains whole weights
 */
export function toLora(module: Module, adapterName = 'default', device?: Device): Promise<AdaptedRow[]> {
  const planned = requireAdapters('toLora', module, adapterName).map((attached) =>
    loraOf(attached.path, attached.layer, scaledFactors(attached)),
  );
  return replace(module, [adapterName], adapterName, planned, device);
}

/**
 * Replaces the adapter of the name by a DEFT adapter (projector qr) of the same delta, strength included.
 * @throws Error when no layer has it, or it trains whole weights; ShapeError when its rank exceeds a layer's outputs
 */
export async function toDeft(
  module: Module,
  adapterName = 'default',
  device?: Device,
): Promise<AdaptedRow[]> {
  const planned = requireAdapters('toDeft', module, adapterName).map((attached) =>
    deftOf(attached.path, attached.layer, scaledFactors(attached)),
  );
  return replace(module, [adapterName], adapterName, planned, device);
}

export interface SplitOptions {
  /** Paths of the layers that a layer became, in the order of its outputs; the path itself where it stayed one. */
  readonly partsOf: (path: string) => readonly string[];
  /** Default "default", in both modules. */
  readonly adapterName?: string;
  readonly device?: Device;
}

/**
 * Puts the adapter of a module with fused projections on one that has their parts as layers, as LoRA adapters of the
 * same delta, strength included: a part takes its rows of B A, that is A and its rows of B, at the same rank. DEFT itself
 * does not split: what it removes couples the outputs.
 * @throws Error when no layer of `fused` has the adapter or `split` lacks a part, ShapeError when parts do not add up to
 * their layer; `split` is untouched then
 */
export function splitAdapters(fused: Module, split: Module, options: SplitOptions): Promise<AdaptedRow[]> {
  const { partsOf, adapterName = 'default', device } = options;
  const layers = adaptableLayers(split);
  const planned = requireAdapters('splitAdapters', fused, adapterName).flatMap((attached) => {
    const parts = partsOf(attached.path).map((path) => {
      const layer = layers.get(path);
      if (!layer)
        throw new Error(`splitAdapters: there is no layer "${path}" for a part of ${attached.path}`);
      return { path, layer };
    });
    const whole = attached.layer.weight.shape;
    const outputs = parts.reduce((sum, { layer }) => sum + layer.weight.shape[0]!, 0);
    if (
      outputs !== whole[0] ||
      parts.some(({ layer }) => !sameShape(layer.weight.shape.slice(1), whole.slice(1)))
    ) {
      const shapes = formatShapes(parts.map(({ layer }) => layer.weight.shape));
      throw new ShapeError(
        `splitAdapters: the parts of ${attached.path} must add up to ${formatShape(whole)}; got ${shapes}`,
      );
    }
    const { B, A } = scaledFactors(attached);
    let row = 0;
    return parts.map(({ path, layer }) => {
      const own = narrow(B, 0, row, layer.weight.shape[0]!);
      row += layer.weight.shape[0]!;
      return loraOf(path, layer, { B: own, A });
    });
  });
  return replace(split, [], adapterName, planned, device);
}

/** The adapter's delta with its strength, cut to its `rank` largest singular values, as B = U sqrt(S), A = sqrt(S) V^T. */
async function truncated(
  attached: AttachedAdapter,
  rank: number,
  device: Device | undefined,
): Promise<Factors> {
  const { layer, adapter } = attached;
  if (!isLowRank(adapter.change)) {
    const delta = reshape(adapter.deltaWeight(layer), matrixShape(layer.weight.shape));
    return halves(await svdOnHost(delta, device), rank);
  }
  const { B, A } = scaledFactors(attached);
  const [k, m, n] = [B.shape[1]!, B.shape[0]!, A.shape[1]!];
  if (k > Math.min(m, n)) return halves(await svdOnHost(matmul(B, A), device), rank);
  // B A = Q1 (R1 R2^T) Q2^T: the SVD of a k x k matrix is enough.
  const right = transpose(A);
  await evaluate([B, right], device);
  const [first, second] = [await qrOnHost(B, device), await qrOnHost(right, device)];
  const { U, S, V } = await svdOnHost(matmul(first.R, transpose(second.R)), device);
  return halves({ U: matmul(first.Q, U), S, V: matmul(second.Q, V) }, rank);
}

function halves({ U, S, V }: { U: Tensor; S: Tensor; V: Tensor }, rank: number): Factors {
  const kept = Math.min(rank, S.shape[0]!);
  const root = unsqueeze(sqrt(narrow(S, 0, 0, kept)), 0);
  return { B: mul(narrow(U, 1, 0, kept), root), A: transpose(mul(narrow(V, 1, 0, kept), root)) };
}

/**
 * Replaces the adapter of the name by the LoRA adapter of at most the rank whose delta is nearest to its own (Eckart and
 * Young), layer by layer.
 * @throws Error when no layer has it, RangeError for a rank below 1
 */
export async function compressAdapters(
  module: Module,
  rank: number,
  adapterName = 'default',
  device?: Device,
): Promise<AdaptedRow[]> {
  expectRank('compressAdapters', rank);
  const planned: Planned[] = [];
  for (const attached of requireAdapters('compressAdapters', module, adapterName)) {
    planned.push(loraOf(attached.path, attached.layer, await truncated(attached, rank, device)));
  }
  return replace(module, [adapterName], adapterName, planned, device);
}

/**
 * How several adapters become one. With B_i A_i the delta of each, Q_i a basis of B_i and Q one of all of them:
 *
 *     sum            sum of w_i B_i A_i: as all active at once
 *     sequential     each changes the weight that those before it left
 *     concat         W0 - Q Q^T W0 + sum of w_i (what each writes): directions that several remove go once
 *     basis          the sum as one DEFT adapter in Q: R = Q^T (W0 + sum of w_i B_i A_i)
 *     leastSquares   W0 + Q X with X the least squares of Q_i^T (Q X - w_i B_i A_i): in its own directions each is met
 *                    as well as the others allow
 */
export const merges = ['sum', 'sequential', 'concat', 'basis', 'leastSquares'] as const;
export type MergeKind = (typeof merges)[number];

export interface CombineOptions {
  readonly kind: MergeKind;
  /** Weight of each adapter by its name, in the order that `sequential` takes. */
  readonly weights: Readonly<Record<string, number>>;
  /** Name of the result; it may be one of theirs. */
  readonly adapterName: string;
  readonly device?: Device;
}

/**
 * Replaces several adapters by one: LoRA, or DEFT for `basis`. A layer that some of them lack takes the others.
 * @throws Error when no layer has one of them, or one has no low rank, or `concat` meets one that removes nothing
 */
export async function combineAdapters(module: Module, options: CombineOptions): Promise<AdaptedRow[]> {
  const { kind, weights, adapterName, device } = options;
  const names = Object.keys(weights);
  const byPath = new Map<string, { attached: AttachedAdapter; weight: number }[]>();
  for (const name of names) {
    for (const attached of requireAdapters('combineAdapters', module, name)) {
      const parts = byPath.get(attached.path) ?? [];
      byPath.set(attached.path, [...parts, { attached, weight: weights[name]! }]);
    }
  }
  const planned: Planned[] = [];
  for (const [path, parts] of byPath) {
    const { layer } = parts[0]!.attached;
    const factors = await combined(kind, parts, device);
    planned.push(kind === 'basis' ? deftOf(path, layer, factors) : loraOf(path, layer, factors));
  }
  return replace(module, names, adapterName, planned, device);
}

type Part = { readonly attached: AttachedAdapter; readonly weight: number };

async function combined(
  kind: MergeKind,
  parts: readonly Part[],
  device: Device | undefined,
): Promise<Factors> {
  const W0 = weightOf(parts[0]!.attached.layer);
  if (kind === 'sequential') {
    let W = W0;
    const factors = parts.map(({ attached, weight }) => {
      const own = scaledFactors(attached, weight, W);
      W = add(W, matmul(own.B, own.A));
      return own;
    });
    return joined(factors);
  }
  if (kind === 'concat') return withoutShared(parts, W0, device);
  const factors = parts.map(({ attached, weight }) => scaledFactors(attached, weight));
  if (kind === 'sum') return joined(factors);
  const Q = await spanOf(
    factors.map(({ B }) => B),
    device,
  );
  if (kind === 'basis') {
    const { B, A } = joined(factors);
    return { B: Q, A: matmul(matmul(transpose(Q), B), A) };
  }
  const bases = await Promise.all(factors.map(({ B }) => spanOf([B], device)));
  const seen = bases.map((own) => matmul(transpose(own), Q)); // Q_i^T Q
  const normal = seen.map((S) => matmul(transpose(S), S)).reduce((a, b) => add(a, b));
  const wanted = factors
    .map(({ B, A }, i) => matmul(transpose(seen[i]!), matmul(matmul(transpose(bases[i]!), B), A)))
    .reduce((a, b) => add(a, b));
  // Every column of Q is in the span of some Q_i together with others: the normal matrix is positive definite.
  const { U, S, V } = await svdOnHost(normal, device);
  return { B: Q, A: matmul(V, matmul(mul(transpose(U), unsqueeze(reciprocal(S), 1)), wanted)) };
}

async function withoutShared(
  parts: readonly Part[],
  W0: Tensor,
  device: Device | undefined,
): Promise<Factors> {
  const changes = parts.map(({ attached: { path, adapter } }) => {
    const { change } = adapter;
    if (isLowRank(change) && change.removed) return change;
    throw new Error(`combineAdapters: concat joins what is removed; the adapter on ${path} removes nothing`);
  });
  const Q = await spanOf(
    changes.map(({ removed }) => removed!.left),
    device,
  );
  const Qt = transpose(Q);
  const written = changes.flatMap(({ written: own }, i) => {
    if (!own) return [];
    const { attached, weight } = parts[i]!;
    return [{ B: own.basis, A: mul(own.rows, weight * attached.adapter.strength) }];
  });
  return joined([{ B: Q, A: neg(matmul(Qt, W0)) }, ...written]);
}

function joined(factors: readonly Factors[]): Factors {
  return {
    B: concat(
      factors.map(({ B }) => B),
      1,
    ),
    A: concat(
      factors.map(({ A }) => A),
      0,
    ),
  };
}

/** Directions of a singular value below this share of the largest are rounding of the others. */
const independent = 1e-5;

/** An orthonormal basis of what the columns of all matrices span. */
async function spanOf(matrices: readonly Tensor[], device: Device | undefined): Promise<Tensor> {
  const { U, S } = await svdOnHost(concat([...matrices], 1), device);
  const values = [...(await read(S))];
  const rank = values.filter((s) => s > independent * values[0]!).length;
  return narrow(U, 1, 0, Math.max(1, rank));
}
