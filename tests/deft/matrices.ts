/** Plain float64 matrices in rows, and Householder QR by its textbook loops: what the graphs are tested against. */
import { type Device, read, referenceDevice, type Tensor, tensor } from '@deftjs/tensor';
import fc from 'fast-check';

export type Matrix = readonly (readonly number[])[];

export function product(a: Matrix, b: Matrix): number[][] {
  return a.map((row) => b[0]!.map((_, j) => row.reduce((sum, x, k) => sum + x * b[k]![j]!, 0)));
}

export function transposed(a: Matrix): number[][] {
  return a[0]!.map((_, j) => a.map((row) => row[j]!));
}

export function plus(a: Matrix, b: Matrix, factor = 1): number[][] {
  return a.map((row, i) => row.map((x, j) => x + factor * b[i]![j]!));
}

export function eye(n: number): number[][] {
  return Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => Number(i === j)));
}

export function largest(a: Matrix): number {
  return Math.max(...a.flat().map((x) => (Number.isNaN(x) ? Number.POSITIVE_INFINITY : Math.abs(x))));
}

export function rowsOf(values: ArrayLike<number>, columns: number): number[][] {
  const flat = Array.from(values);
  return Array.from({ length: flat.length / columns }, (_, i) => flat.slice(i * columns, (i + 1) * columns));
}

const exact = referenceDevice();

/** The values of a matrix tensor. */
export async function matrixOf(x: Tensor, device: Device = exact): Promise<number[][]> {
  return rowsOf(await read(x, device), x.shape[1]!);
}

/** The matrix as a float64 tensor. */
export function tensorOf(a: Matrix): Tensor {
  return tensor(a, undefined, 'f64');
}

/** QR as LAPACK's dgeqr2 and dorg2r do it: reflections H = I - tau v v^T, none where x is zero below its head. */
export function householder(A: Matrix): { Q: number[][]; R: number[][] } {
  const [m, n] = [A.length, A[0]!.length];
  let R = A.map((row) => [...row]);
  let Q = eye(m);
  for (let k = 0; k < n; k += 1) {
    const x = R.map((row, i) => (i < k ? 0 : row[k]!));
    if (x.slice(k + 1).every((value) => value === 0)) continue;
    const v = [...x];
    v[k] = x[k]! + (x[k]! >= 0 ? 1 : -1) * Math.hypot(...x);
    const tau = 2 / v.reduce((sum, value) => sum + value * value, 0);
    const H = eye(m).map((row, i) => row.map((value, j) => value - tau * v[i]! * v[j]!));
    R = product(H, R);
    Q = product(Q, H);
  }
  return { Q: Q.map((row) => row.slice(0, n)), R: R.slice(0, n) };
}

const entry = fc.integer({ min: -1000, max: 1000 }).map((k) => k / 512); // exact in float32

/** Matrices of the shape with entries in [-2, 2]. */
export function matrices(m: number, n: number): fc.Arbitrary<number[][]> {
  return fc.array(fc.array(entry, { minLength: n, maxLength: n }), { minLength: m, maxLength: m });
}
