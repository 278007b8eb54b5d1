/** Matrices by the place of their elements: over the last two axes, leading axes batched. */
import type { DType } from '../dtype.ts';
import { formatShape, ShapeError } from '../errors.ts';
import { checkShape } from '../shape.ts';
import { apply, type Tensor } from '../tensor.ts';
import { add, cast, equal, lessEqual, where } from './elementwise.ts';
import { sum } from './expand.ts';
import { reshape, sliceOp } from './movement.ts';
import { iota } from './source.ts';

function expectMatrix(op: string, x: Tensor, offset: number): void {
  if (x.rank < 2) throw new ShapeError(`${op}: expected at least two axes; got ${formatShape(x.shape)}`);
  if (!Number.isInteger(offset)) throw new ShapeError(`${op}: the offset must be whole; got ${offset}`);
}

/** The identity matrix [rows, columns]: ones on the diagonal, zeros elsewhere. @throws ShapeError */
export function eye(rows: number, columns = rows, dtype: DType = 'f32'): Tensor {
  const shape = checkShape('eye', [rows, columns]);
  return cast(equal(iota(shape, 0), iota(shape, 1)), dtype);
}

/** `x` with zeros above diagonal `offset` (0: the main one; above it: > 0). @throws ShapeError */
export function tril(x: Tensor, offset = 0): Tensor {
  expectMatrix('tril', x, offset);
  const size = x.shape.slice(-2);
  return where(lessEqual(iota(size, 1), add(iota(size, 0), offset)), x, 0);
}

/** `x` with zeros below diagonal `offset` (0: the main one; above it: > 0). @throws ShapeError */
export function triu(x: Tensor, offset = 0): Tensor {
  expectMatrix('triu', x, offset);
  const size = x.shape.slice(-2);
  return where(lessEqual(add(iota(size, 0), offset), iota(size, 1)), x, 0);
}

/**
 * Diagonal `offset` of each matrix: [..., R, C] to [..., L], elements (i, i + offset). Every C + 1st element of a matrix
 * read row by row: a view.
 * @throws ShapeError
 */
export function diagonal(x: Tensor, offset = 0): Tensor {
  expectMatrix('diagonal', x, offset);
  const [rows, columns] = x.shape.slice(-2) as [number, number];
  const [top, left] = [Math.max(0, -offset), Math.max(0, offset)];
  const length = Math.max(0, Math.min(rows - top, columns - left));
  const lead = x.shape.slice(0, -2);
  const ones = lead.map(() => 1);
  return apply(sliceOp, [reshape(x, [...lead, rows * columns])], {
    starts: [...lead.map(() => 0), length === 0 ? 0 : top * columns + left],
    shape: [...lead, length],
    steps: [...ones, columns + 1],
  });
}

/** The sum of the main diagonal of each matrix: [..., R, C] to [...]. @throws ShapeError, DTypeError for bool */
export function trace(x: Tensor): Tensor {
  expectMatrix('trace', x, 0);
  return sum(diagonal(x), -1);
}
