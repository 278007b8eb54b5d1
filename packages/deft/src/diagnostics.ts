/**
 * What an adapter does to each layer, in numbers.
 *
 * Everything comes from Gram matrices of the thin factors (r x r, 2r x 2r), so that nothing of the size of K is built.
 * With delta = F G, F = [Q, L] [m, 2r], G = [A; -T^T W0] [2r, n] (or only one of the halves):
 *
 *     |F G|_F^2        = tr((F^T F) (G G^T))                                                                  (1)
 *     singular values  of F G are the roots of the eigenvalues of H^T (G G^T) H,  F^T F = H H^T                (2)
 *     |K^2 - K|_F^2    = tr(C^T (L^T L) C (T^T T)),  C = T^T L - I                                            (3)
 *     I - K            is 1 outside of [L, T] = B H with B^T B = I, and I - H_L H_T^T within, [L, T]^T [L, T] = H^T H
 *                      (4)
 */
import { svdOnHost, symmetricEigen } from '@deftjs/autograd/linalg';
import type { Module } from '@deftjs/autograd/nn';
import {
  cast,
  concat,
  type Device,
  evaluate,
  eye,
  item,
  matmul,
  neg,
  read,
  reshape,
  square,
  sum,
  type Tensor,
  transpose,
} from '@deftjs/tensor';
import { type AttachedAdapter, requireAdapters } from './adapter.ts';
import { isLowRank } from './algebra.ts';
import { type AdaptedLayer, matrixShape } from './linearMap.ts';
import type { LowRankChange } from './lowRankChange.ts';

/** The numbers of one layer, at strength 1. Energies are Frobenius norms relative to that of W0. */
export interface LayerDiagnostics {
  readonly path: string;
  /** |K^2 - K|: 0 for a projector; null where nothing is removed. */
  readonly projectorDefect: number | null;
  /** |K W0| / |W0|; 0 where nothing is removed. */
  readonly removedEnergy: number;
  /** |Q A| / |W0|, A with its scale; 0 where nothing is written. */
  readonly injectedEnergy: number;
  /** |delta| / |W0|: what is left of both when they cancel, as at an identity start. */
  readonly changeEnergy: number;
  /**
   * exp of the entropy of the normalised singular values of delta (Roy and Vetterli 2007): between 1 and 2 r, the
   * number of directions that matter; 0 where delta is zero to rounding.
   */
  readonly effectiveRank: number;
  /**
   * Singular values of I - K within the span of L and T, largest first, to about 1e-3: for a projector 0 and 1. Outside
   * of it they are 1. Empty where nothing is removed.
   */
  readonly keptSpectrum: readonly number[];
  /** Sentences about what is likely to go wrong: I - K that amplifies. */
  readonly warnings: readonly string[];
}

/** Singular values of I - K above this amplify what the base computes; below, float32 factors may lie. */
const amplification = 1.01;

/**
 * The numbers of every layer that the adapter is on, in the order of the layers.
 * @throws Error when no layer has it
 */
export async function diagnose(
  module: Module,
  adapterName = 'default',
  device?: Device,
): Promise<LayerDiagnostics[]> {
  const adapters = requireAdapters('diagnose', module, adapterName);
  const grams = adapters.map((attached) =>
    isLowRank(attached.adapter.change) ? gramsOf(attached.layer, attached.adapter.change) : null,
  );
  await evaluate(
    grams.flatMap((gram) => (gram ? Object.values(gram) : [])),
    device,
  );
  const numbers: LayerDiagnostics[] = [];
  for (const [i, attached] of adapters.entries()) {
    const gram = grams[i];
    numbers.push(await (gram ? numbersOf(attached.path, gram) : wholeNumbersOf(attached, device)));
  }
  return numbers;
}

/** The small matrices that all numbers of a layer come from. */
interface Grams {
  /** F^T F */
  readonly left: Tensor;
  /** G G^T */
  readonly right: Tensor;
  /** |W0|^2 */
  readonly weight: Tensor;
  /** T^T L and T^T T; empty where nothing is removed. */
  readonly overlap?: Tensor;
  readonly removing?: Tensor;
}

function gramsOf(layer: AdaptedLayer, { written, removed }: LowRankChange): Grams {
  const W0 = reshape(cast(layer.weight.value, 'f32'), matrixShape(layer.weight.shape));
  const right = removed && (removed.right ?? eye(W0.shape[0]!));
  const columns = [...(written ? [written.basis] : []), ...(removed ? [removed.left] : [])];
  const rows = [...(written ? [written.rows] : []), ...(right ? [neg(matmul(transpose(right), W0))] : [])];
  const [F, G] = [concat(columns, 1), concat(rows, 0)];
  const shared = { left: matmul(transpose(F), F), right: matmul(G, transpose(G)), weight: sum(square(W0)) };
  if (!removed || !right) return shared;
  const { left } = removed;
  return { ...shared, overlap: matmul(transpose(right), left), removing: matmul(transpose(right), right) };
}

/** Of a change of the whole weight: nothing is removed, and its singular values are those of a full matrix. */
async function wholeNumbersOf(
  { path, layer, adapter }: AttachedAdapter,
  device: Device | undefined,
): Promise<LayerDiagnostics> {
  const [m, n] = matrixShape(layer.weight.shape);
  const size = Math.sqrt(await item(sum(square(cast(layer.weight.value, 'f32'))), device));
  const { S } = await svdOnHost(reshape(adapter.change.delta(layer.weight.value), [m, n]), device);
  const singular = [...(await read(S))];
  const energy = Math.hypot(...singular) / size;
  return {
    path,
    projectorDefect: null,
    removedEnergy: 0,
    injectedEnergy: energy,
    changeEnergy: energy,
    effectiveRank: energy === 0 ? 0 : effectiveRank(singular),
    keptSpectrum: [],
    warnings: [],
  };
}

type Matrix = readonly (readonly number[])[];

async function numbersOf(path: string, grams: Grams): Promise<LayerDiagnostics> {
  const [left, right] = [await rowsOf(grams.left), await rowsOf(grams.right)];
  const size = Math.sqrt((await read(grams.weight))[0]!);
  const overlap = grams.overlap && (await rowsOf(grams.overlap));
  const removing = grams.removing && (await rowsOf(grams.removing));
  for (const gram of Object.values(grams) as Tensor[]) gram.dispose();
  // Written directions come first in F and G, removed ones last.
  const removedCount = overlap?.length ?? 0;
  const writtenCount = left.length - removedCount;
  const energy = (from: number, to: number): number =>
    Math.sqrt(Math.max(0, trace(block(left, from, to), block(right, from, to)))) / size; // (1)
  const singular = singularValues(left, right);
  const change = Math.hypot(...singular);
  // float32 factors that cancel leave this much of the larger of them.
  const rounding = 1e-6 * size * Math.max(energy(0, writtenCount), energy(writtenCount, left.length));
  const keptSpectrum =
    overlap && removing ? spectrumOf(block(left, writtenCount, left.length), overlap, removing) : [];
  const most = keptSpectrum[0] ?? 0;
  return {
    path,
    keptSpectrum,
    warnings:
      most > amplification
        ? [`I - K amplifies by up to ${most.toFixed(2)}: K is no projector, and its scale is too large`]
        : [],
    projectorDefect:
      overlap && removing ? defectOf(block(left, writtenCount, left.length), overlap, removing) : null,
    removedEnergy: energy(writtenCount, left.length),
    injectedEnergy: energy(0, writtenCount),
    changeEnergy: change / size,
    effectiveRank: change <= rounding ? 0 : effectiveRank(singular),
  };
}

async function rowsOf(x: Tensor): Promise<Matrix> {
  const values = Array.from(await read(x));
  const width = x.shape[1]!;
  return Array.from({ length: x.shape[0]! }, (_, i) => values.slice(i * width, (i + 1) * width));
}

function block(matrix: Matrix, from: number, to: number): Matrix {
  return matrix.slice(from, to).map((row) => row.slice(from, to));
}

function product(a: Matrix, b: Matrix): Matrix {
  return a.map((row) => (b[0] ?? []).map((_, j) => row.reduce((total, x, k) => total + x * b[k]![j]!, 0)));
}

function flipped(a: Matrix): Matrix {
  return (a[0] ?? []).map((_, j) => a.map((row) => row[j]!));
}

/** tr(A B) of symmetric matrices. */
function trace(a: Matrix, b: Matrix): number {
  return a.reduce((total, row, i) => total + row.reduce((sum, x, j) => sum + x * b[i]![j]!, 0), 0);
}

/** Equation (2), with H = V diag(sqrt(values)). */
function singularValues(left: Matrix, right: Matrix): number[] {
  const { values, vectors } = symmetricEigen(left);
  const Ht = vectors.map((vector, i) => vector.map((x) => x * Math.sqrt(Math.max(0, values[i]!))));
  return symmetricEigen(product(product(Ht, right), flipped(Ht))).values.map((value) =>
    Math.sqrt(Math.max(0, value)),
  );
}

function effectiveRank(singular: readonly number[]): number {
  const total = singular.reduce((sum, s) => sum + s, 0);
  const entropy = singular.reduce((sum, s) => (s === 0 ? sum : sum - (s / total) * Math.log(s / total)), 0);
  return Math.exp(entropy);
}

/** Equation (4): H = diag(sqrt(values)) V^T of the Gram matrix of [L, T]. */
function spectrumOf(left: Matrix, overlap: Matrix, removing: Matrix): number[] {
  const beside = flipped(overlap);
  const gram = [
    ...left.map((row, i) => [...row, ...beside[i]!]),
    ...removing.map((row, i) => [...overlap[i]!, ...row]),
  ];
  const { values, vectors } = symmetricEigen(gram);
  const kept = vectors.flatMap((vector, i) =>
    values[i]! > 1e-6 * values[0]! ? [vector.map((x) => x * Math.sqrt(values[i]!))] : [],
  );
  const [HL, HT] = [kept.map((row) => row.slice(0, left.length)), kept.map((row) => row.slice(left.length))];
  const inside = product(HL, flipped(HT)).map((row, i) => row.map((x, j) => Number(i === j) - x));
  return symmetricEigen(product(flipped(inside), inside)).values.map((value) =>
    Math.sqrt(Math.max(0, value)),
  );
}

/** Equation (3). */
function defectOf(left: Matrix, overlap: Matrix, removing: Matrix): number {
  const C = overlap.map((row, i) => row.map((x, j) => x - Number(i === j)));
  return Math.sqrt(Math.max(0, trace(product(product(flipped(C), left), C), removing)));
}
