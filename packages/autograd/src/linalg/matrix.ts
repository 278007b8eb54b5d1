/** Matrices in the last two axes: their parts, and what is asked of their shapes. */
import { add, type DType, formatShape, iota, mul, ShapeError, type Tensor, transpose } from '@deftjs/tensor';

/** The extents [m, n] of the last two axes. @throws ShapeError when there are fewer, or an extent is 0 */
export function extentsOf(op: string, { rank, shape }: Tensor): readonly [number, number] {
  const [m, n] = shape.slice(-2);
  if (rank < 2 || m! < 1 || n! < 1) {
    throw new ShapeError(`${op}: expected [..., m, n] with m, n >= 1; got ${formatShape(shape)}`);
  }
  return [m!, n!];
}

/** @throws ShapeError unless the matrices are square */
export function expectSquare(op: string, x: Tensor): number {
  const [m, n] = x.shape.slice(-2);
  if (x.rank < 2 || m !== n || n! < 1) {
    throw new ShapeError(`${op}: expected [..., n, n] with n >= 1; got ${formatShape(x.shape)}`);
  }
  return n!;
}

/** Loops over columns are written out in the graph: their number is what compiling costs. */
export const mostColumns = 128;

/** @throws RangeError when so many columns are not written out as a graph */
export function expectFewColumns(op: string, columns: number, instead: string): void {
  if (columns > mostColumns) {
    throw new RangeError(
      `${op}: at most ${mostColumns} columns are decomposed in a graph; got ${columns}; ${instead}`,
    );
  }
}

/** Row and column numbers of matrices [m, n], to compare with each other. */
export function positions(m: number, n: number): { readonly row: Tensor; readonly column: Tensor } {
  return { row: iota([m, n], 0), column: iota([m, n], 1) };
}

/** (M + M^T) / 2 */
export function symmetricPart(M: Tensor): Tensor {
  return mul(add(M, transpose(M)), 0.5);
}

/** Gaps between values below this, relative to the largest, are rounding. */
export function roundingOf(n: number, dtype: DType): number {
  return n * (dtype === 'f64' ? Number.EPSILON : 2 ** -23);
}
