/**
 * Decompositions of whole weights, on the host in float64: for what is done once, such as an SVD of W0 that an adapter
 * starts from. Not differentiable. A is computed on the device first, if need be.
 *
 * Symmetric matrices: Householder's reduction to a tridiagonal one, T = H A H, then QL steps with Wilkinson's shifts
 * (Golub and Van Loan, sections 8.3.1 and 8.3.3). Singular values: the eigenvectors V of A^T A make the columns of A V
 * nearly orthogonal, and one-sided Jacobi rotations (section 8.6.3) make them so to rounding, so that squaring A costs no
 * digits.
 */
import { type Device, read, ShapeError, type Tensor, tensor } from '@deftjs/tensor';
import type { Eigen } from './eigh.ts';
import { expectSquare, extentsOf } from './matrix.ts';
import type { Svd } from './svd.ts';

/** Vectors of one length, one after the other. Loops run along them, in the order of memory. */
type Rows = Float64Array[];

function identityRows(n: number): Rows {
  return Array.from({ length: n }, (_, i) => new Float64Array(n).fill(1, i, i + 1));
}

function dot(x: Float64Array, y: Float64Array, from = 0): number {
  let total = 0;
  for (let i = from; i < x.length; i += 1) total += x[i]! * y[i]!;
  return total;
}

/** y <- y + a x from an element on. */
function addTo(y: Float64Array, a: number, x: Float64Array, from = 0): void {
  for (let i = from; i < y.length; i += 1) y[i]! += a * x[i]!;
}

/** x <- c x - s y,  y <- s x + c y. */
function turn(x: Float64Array, y: Float64Array, c: number, s: number): void {
  for (let i = 0; i < x.length; i += 1) {
    const a = x[i]!;
    const b = y[i]!;
    x[i] = c * a - s * b;
    y[i] = s * a + c * b;
  }
}

/** A reflection I - b v v^T that sends x, from an element on, to the multiple `image` of its first unit vector. */
interface Reflection {
  readonly v: Float64Array;
  readonly b: number;
  readonly image: number;
}

function reflection(x: Float64Array, from: number): Reflection {
  const v = x.slice();
  v.fill(0, 0, from);
  const tail = dot(v, v, from + 1);
  if (tail === 0) return { v, b: 0, image: x[from]! };
  const length = Math.sqrt(tail + v[from]! ** 2);
  const image = v[from]! >= 0 ? -length : length;
  v[from]! -= image;
  return { v, b: 2 / (tail + v[from]! ** 2), image };
}

/** Q^T as rows for the columns of A as rows, and R's columns as rows: LAPACK's signs. */
function reflect(columns: Rows): { readonly Q: Rows; readonly R: Rows } {
  const R = columns.map((column) => column.slice());
  const reflections = R.map((column, k) => {
    const { v, b, image } = reflection(column, k);
    for (let j = k + 1; j < R.length; j += 1) addTo(R[j]!, -b * dot(v, R[j]!, k), v, k);
    column.fill(0, k);
    column[k] = image;
    return { v, b };
  });
  const Q = columns.map(({ length }, i) => new Float64Array(length).fill(1, i, i + 1));
  for (let k = R.length - 1; k >= 0; k -= 1) {
    const { v, b } = reflections[k]!;
    for (let j = k; j < Q.length; j += 1) addTo(Q[j]!, -b * dot(v, Q[j]!, k), v, k);
  }
  return { Q, R: R.map((column) => column.slice(0, R.length)) };
}

/** The diagonal, the entries beside it, and H as rows, of T = H A H^T. A is used up. */
function tridiagonal(A: Rows): { readonly d: Float64Array; readonly e: Float64Array; readonly H: Rows } {
  const n = A.length;
  const e = new Float64Array(n);
  const reflections: Reflection[] = [];
  for (let k = 0; k < n - 1; k += 1) {
    const found = reflection(A[k]!, k + 1);
    const { v, b, image } = found;
    e[k] = image;
    reflections.push(found);
    if (b === 0) continue;
    // A <- A - v w^T - w v^T with p = b A v, w = p - (b p.v / 2) v
    const w = Float64Array.from(A, (row, i) => (i <= k ? 0 : b * dot(row, v, k + 1)));
    addTo(w, (-b * dot(w, v, k + 1)) / 2, v, k + 1);
    for (let i = k + 1; i < n; i += 1) {
      const [row, vi, wi] = [A[i]!, v[i]!, w[i]!];
      for (let j = k + 1; j < n; j += 1) row[j]! -= vi * w[j]! + wi * v[j]!;
    }
  }
  const H = identityRows(n);
  for (let k = n - 2; k >= 0; k -= 1) {
    const { v, b } = reflections[k]!;
    if (b === 0) continue;
    for (let i = k + 1; i < n; i += 1) addTo(H[i]!, -b * dot(v, H[i]!, k + 1), v, k + 1);
  }
  return { d: Float64Array.from(A, (row, i) => row[i]!), e, H };
}

const mostSteps = 50;

/** Eigenvalues, in d, and eigenvectors, in the rows of Z, of the tridiagonal matrix in the basis Z. */
function diagonalise(d: Float64Array, e: Float64Array, Z: Rows): void {
  const n = d.length;
  // Against the whole matrix, not the entries beside: a block of rounding errors, which a matrix of low rank leaves, would
  // have to converge against itself, and may not.
  const negligible =
    Number.EPSILON * d.reduce((most, _, i) => Math.max(most, Math.abs(d[i]!) + Math.abs(e[i]!)), 0);
  for (let low = 0; low < n; low += 1) {
    for (let step = 0; ; step += 1) {
      let high = low;
      while (high < n - 1 && Math.abs(e[high]!) > negligible) high += 1;
      if (high === low || Number.isNaN(d[low]!)) break;
      if (step === mostSteps) throw new Error(`eigh: no convergence after ${mostSteps} steps of one value`);
      let g = (d[low + 1]! - d[low]!) / (2 * e[low]!);
      g = d[high]! - d[low]! + e[low]! / (g + (g >= 0 ? 1 : -1) * Math.hypot(g, 1)); // Wilkinson's shift
      let [s, c, p] = [1, 1, 0];
      for (let i = high - 1; i >= low; i -= 1) {
        const [f, b] = [s * e[i]!, c * e[i]!];
        const length = Math.hypot(f, g);
        e[i + 1] = length;
        if (length === 0) {
          d[i + 1]! -= p;
          e[high] = 0;
          break;
        }
        s = f / length;
        c = g / length;
        g = d[i + 1]! - p;
        const r = (d[i]! - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        turn(Z[i]!, Z[i + 1]!, c, s);
        if (i === low) {
          d[low]! -= p;
          e[low] = g;
          e[high] = 0;
        }
      }
    }
  }
}

/**
 * The eigenvalues of a symmetric matrix given in rows, largest first, and the eigenvector of each as a row, in float64.
 * NaN in the matrix gives NaN.
 */
export function symmetricEigen(matrix: readonly ArrayLike<number>[]): {
  readonly values: number[];
  readonly vectors: number[][];
} {
  const { d, e, H } = tridiagonal(matrix.map((row) => Float64Array.from(row)));
  diagonalise(d, e, H);
  const order = Array.from(d, (_, i) => i).sort((i, j) => d[j]! - d[i]!);
  return { values: order.map((i) => d[i]!), vectors: order.map((i) => Array.from(H[i]!)) };
}

const mostSweeps = 40;

/** Rotates the rows among each other until they are orthogonal to rounding, and the companions with them. */
function orthogonalise(rows: Rows, companions: Rows): void {
  const width = rows[0]!.length;
  const least = Number.EPSILON * Math.sqrt(width);
  const squares = Float64Array.from(rows, (row) => dot(row, row));
  for (let sweep = 0; sweep < mostSweeps; sweep += 1) {
    let rotated = false;
    for (let p = 0; p < rows.length; p += 1) {
      for (let q = p + 1; q < rows.length; q += 1) {
        const c = dot(rows[p]!, rows[q]!);
        if (!(Math.abs(c) > least * Math.sqrt(squares[p]! * squares[q]!))) continue;
        rotated = true;
        const tau = (squares[q]! - squares[p]!) / (2 * c);
        const t = (tau >= 0 ? 1 : -1) / (Math.abs(tau) + Math.hypot(1, tau));
        const cosine = 1 / Math.hypot(1, t);
        turn(rows[p]!, rows[q]!, cosine, t * cosine);
        turn(companions[p]!, companions[q]!, cosine, t * cosine);
        squares[p] = dot(rows[p]!, rows[p]!);
        squares[q] = dot(rows[q]!, rows[q]!);
      }
    }
    if (!rotated) return;
  }
}

/** sum over k of a[i][k] b[k], as rows. */
function product(a: Rows, b: Rows): Rows {
  return a.map((row) => {
    const total = new Float64Array(b[0]!.length);
    row.forEach((factor, k) => {
      addTo(total, factor, b[k]!);
    });
    return total;
  });
}

function transposed(a: Rows): Rows {
  return Array.from(a[0]!, (_, j) => Float64Array.from(a, (row) => row[j]!));
}

/** Left vectors as rows, values largest first, right vectors as rows, of A given in rows, no fewer than columns. */
function singularTriples(A: Rows): { readonly U: Rows; readonly S: Float64Array; readonly V: Rows } {
  const columns = transposed(A);
  const { vectors } = symmetricEigen(columns.map((x) => Float64Array.from(columns, (y) => dot(x, y))));
  const V = vectors.map((vector) => Float64Array.from(vector));
  const images = product(V, columns); // (A v)^T
  orthogonalise(images, V);
  const lengths = images.map((row) => Math.sqrt(dot(row, row)));
  const order = lengths.map((_, i) => i).sort((i, j) => lengths[j]! - lengths[i]!);
  const sorted = order.map((i) => images[i]!);
  const { Q } = reflect(sorted); // normalises, and completes where a length is 0
  Q.forEach((row, i) => {
    if (dot(row, sorted[i]!) < 0) addTo(row, -2, row);
  });
  return { U: Q, S: Float64Array.from(order, (i) => lengths[i]!), V: order.map((i) => V[i]!) };
}

async function rowsOf(op: string, A: Tensor, device?: Device): Promise<Rows> {
  if (A.rank !== 2) throw new ShapeError(`${op}: expected a matrix [m, n]; got ${A.rank} axes`);
  const [m, n] = extentsOf(op, A);
  const values = Float64Array.from(await read(A, device));
  return Array.from({ length: m }, (_, i) => values.slice(i * n, (i + 1) * n));
}

/** The tensor of rows, float64 for a float64 matrix and float32 for others. */
function matrixLike(A: Tensor, rows: Rows): Tensor {
  const flat = new Float64Array(rows.length * rows[0]!.length);
  rows.forEach((row, i) => {
    flat.set(row, i * row.length);
  });
  const values = A.dtype === 'f64' ? flat : Float32Array.from(flat);
  return tensor(values, [rows.length, rows[0]!.length]);
}

function vectorLike(A: Tensor, values: Float64Array): Tensor {
  return tensor(A.dtype === 'f64' ? values : Float32Array.from(values), [values.length]);
}

/** As `eigh`, of one matrix [n, n] of any size; signs of vectors as they come. @throws ShapeError */
export async function eighOnHost(A: Tensor, device?: Device): Promise<Eigen> {
  expectSquare('eighOnHost', A);
  const rows = await rowsOf('eighOnHost', A, device);
  const symmetric = rows.map((row, i) => row.map((x, j) => (x + rows[j]![i]!) / 2));
  const { values, vectors } = symmetricEigen(symmetric);
  const ascending = vectors.map((vector) => Float64Array.from(vector)).reverse();
  return {
    values: vectorLike(A, Float64Array.from(values).reverse()),
    vectors: matrixLike(A, transposed(ascending)),
  };
}

/** As `svd`, of one matrix [m, n] of any size; signs of vectors as they come. @throws ShapeError */
export async function svdOnHost(A: Tensor, device?: Device): Promise<Svd> {
  const rows = await rowsOf('svdOnHost', A, device);
  const wide = rows.length < rows[0]!.length;
  const { U, S, V } = singularTriples(wide ? transposed(rows) : rows);
  const [left, right] = wide ? [V, U] : [U, V];
  return {
    U: matrixLike(A, transposed(left)),
    S: vectorLike(A, S),
    V: matrixLike(A, transposed(right)),
  };
}

/** As `qr`, of one matrix [m, n] with m >= n of any size. @throws ShapeError */
export async function qrOnHost(
  A: Tensor,
  device?: Device,
): Promise<{ readonly Q: Tensor; readonly R: Tensor }> {
  const rows = await rowsOf('qrOnHost', A, device);
  const [m, n] = extentsOf('qrOnHost', A);
  if (m < n) throw new ShapeError(`qrOnHost: expected m >= n; got [${m}, ${n}]`);
  const { Q, R } = reflect(transposed(rows));
  return { Q: matrixLike(A, transposed(Q)), R: matrixLike(A, transposed(R)) };
}
