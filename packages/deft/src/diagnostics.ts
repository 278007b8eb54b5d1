/**
 * What an adapter does to each layer, in numbers.
 *
 * Everything comes from Gram matrices of the thin factors (r x r, 2r x 2r), so that nothing of the size of K is built.
 * With delta = F G, F = [Q, L] [m, 2r], G = [A; -T^T W0] [2r, n] (or only one of the halves):
 *
 *     |F G|_F^2        = tr((F^T F) (G G^T))                                                                  (1)
 *     singular values  of F G are the roots of the eigenvalues of H^T (G G^T) H,  F^T F = H H^T                (2)
 *     |K^2 - K|_F^2    = tr(C^T (L^T L) C (T^T T)),  C = T^T L - I                                            (3)
 */
import type { Module } from '@deftjs/autograd/nn';
import {
  cast,
  concat,
  type Device,
  evaluate,
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
import { symmetricEigen } from './decompositions/symmetricEigen.ts';
import { matrixShape } from './linearMap.ts';

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
}

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
  const grams = adapters.map(gramsOf);
  await evaluate(
    grams.flatMap((gram) => Object.values(gram)),
    device,
  );
  return Promise.all(adapters.map(({ path }, i) => numbersOf(path, grams[i]!)));
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

function gramsOf({ layer, adapter }: AttachedAdapter): Grams {
  const { written, removed } = adapter.change;
  const W0 = reshape(cast(layer.weight.value, 'f32'), matrixShape(layer.weight.shape));
  const columns = [...(written ? [written.basis] : []), ...(removed ? [removed.left] : [])];
  const rows = [
    ...(written ? [written.rows] : []),
    ...(removed ? [neg(matmul(transpose(removed.right), W0))] : []),
  ];
  const [F, G] = [concat(columns, 1), concat(rows, 0)];
  const shared = { left: matmul(transpose(F), F), right: matmul(G, transpose(G)), weight: sum(square(W0)) };
  if (!removed) return shared;
  const { left, right } = removed;
  return { ...shared, overlap: matmul(transpose(right), left), removing: matmul(transpose(right), right) };
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
  return {
    path,
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

/** Equation (3). */
function defectOf(left: Matrix, overlap: Matrix, removing: Matrix): number {
  const C = overlap.map((row, i) => row.map((x, j) => x - Number(i === j)));
  return Math.sqrt(Math.max(0, trace(product(product(flipped(C), left), C), removing)));
}
