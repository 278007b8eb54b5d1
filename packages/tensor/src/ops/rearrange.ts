/** Elements repeated and moved around. */
import { formatShape, ShapeError } from '../errors.ts';
import { resolveAxis } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { concat } from './concat.ts';
import { expand } from './expand.ts';
import { narrow, reshape, unsqueeze } from './movement.ts';

function expectCounts(op: string, counts: readonly number[]): void {
  if (!counts.every((count) => Number.isInteger(count) && count >= 0)) {
    throw new ShapeError(`${op}: counts must be whole numbers >= 0; got ${formatShape(counts)}`);
  }
}

/**
 * The whole of `x`, `counts[axis]` times along each axis; counts and axes are aligned at the end (NumPy's tile).
 * @throws ShapeError
 */
export function tile(x: Tensor, counts: readonly number[]): Tensor {
  expectCounts('tile', counts);
  const rank = Math.max(x.rank, counts.length);
  const filled = (list: readonly number[]): number[] => [...new Array(rank - list.length).fill(1), ...list];
  const [shape, times] = [filled(x.shape), filled(counts)];
  const apart = shape.flatMap((extent) => [1, extent]);
  const repeated = shape.flatMap((extent, axis) => [times[axis]!, extent]);
  return reshape(
    expand(reshape(x, apart), repeated),
    shape.map((extent, axis) => extent * times[axis]!),
  );
}

/**
 * Each element `count` times in a row along an axis (NumPy's repeat).
 * @throws ShapeError
 */
export function repeat(x: Tensor, count: number, axis = -1): Tensor {
  expectCounts('repeat', [count]);
  const a = resolveAxis('repeat', axis, x.rank);
  const copies = expand(unsqueeze(x, a + 1), x.shape.toSpliced(a + 1, 0, count));
  return reshape(copies, x.shape.with(a, x.shape[a]! * count));
}

/**
 * Element i moved to i + shift along an axis; what leaves one end comes in at the other (NumPy's roll).
 * @throws ShapeError when the axis is out of range or the shift is not whole
 */
export function roll(x: Tensor, shift: number, axis = -1): Tensor {
  const a = resolveAxis('roll', axis, x.rank);
  if (!Number.isInteger(shift)) throw new ShapeError(`roll: the shift must be whole; got ${shift}`);
  const extent = x.shape[a]!;
  const start = extent === 0 ? 0 : ((shift % extent) + extent) % extent;
  if (start === 0) return x;
  return concat([narrow(x, a, extent - start, start), narrow(x, a, 0, extent - start)], a);
}
