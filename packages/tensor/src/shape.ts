/** Shapes: extents along axes, row-major. NumPy's broadcasting and negative axes. */
import { formatShape, formatShapes, ShapeError } from './errors.ts';

export type Shape = readonly number[];

/** Number of elements; 1 for a scalar. */
export function numel(shape: Shape): number {
  let product = 1;
  for (let axis = 0; axis < shape.length; axis += 1) product *= shape[axis]!;
  return product;
}

/** Row-major strides in elements. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
    strides[axis] = stride;
    stride *= shape[axis]!;
  }
  return strides;
}

export function sameShape(a: Shape, b: Shape): boolean {
  if (a.length !== b.length) return false;
  for (let axis = 0; axis < a.length; axis += 1) if (a[axis] !== b[axis]) return false;
  return true;
}

/**
 * The shape itself, checked: whole extents >= 0 whose product is a safe integer.
 * @throws ShapeError
 */
export function checkShape(op: string, shape: Shape): Shape {
  for (const extent of shape) {
    if (!Number.isSafeInteger(extent) || extent < 0)
      throw new ShapeError(`${op}: extents must be whole numbers >= 0; got ${formatShape(shape)}`);
  }
  if (!Number.isSafeInteger(numel(shape))) {
    throw new ShapeError(`${op}: more elements than 2^53; got ${formatShape(shape)}`);
  }
  return shape;
}

/**
 * The shape that all operands broadcast to: axes aligned at the end, extent 1 stretches.
 * @throws ShapeError
 */
export function broadcastShapes(op: string, shapes: readonly Shape[]): number[] {
  let rank = 0;
  for (const { length } of shapes) rank = Math.max(rank, length);
  const extents = new Array<number>(rank).fill(1);
  for (const shape of shapes) {
    for (let own = 0, axis = rank - shape.length; axis < rank; own += 1, axis += 1) {
      if (shape[own] === extents[axis] || shape[own] === 1) continue;
      if (extents[axis] !== 1) {
        throw new ShapeError(`${op}: shapes do not broadcast; got ${formatShapes(shapes)}`);
      }
      extents[axis] = shape[own]!;
    }
  }
  return extents;
}

/**
 * An axis in [0, rank); negative counts from the end.
 * @throws ShapeError
 */
export function resolveAxis(op: string, axis: number, rank: number): number {
  const resolved = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || resolved < 0 || resolved >= rank) {
    const range = rank === 0 ? 'a scalar has no axes' : `expected [${-rank}, ${rank - 1}]`;
    throw new ShapeError(`${op}: axis out of range; ${range}; got ${axis}`);
  }
  return resolved;
}

/**
 * Axes in [0, rank), ascending, each once; `undefined` means all of them.
 * @throws ShapeError
 */
export function resolveAxes(
  op: string,
  axes: number | readonly number[] | undefined,
  rank: number,
): number[] {
  if (axes === undefined) return Array.from({ length: rank }, (_, axis) => axis);
  const list = typeof axes === 'number' ? [axes] : axes;
  const resolved = list.map((axis) => resolveAxis(op, axis, rank));
  if (new Set(resolved).size !== resolved.length) {
    throw new ShapeError(`${op}: an axis is named twice; got ${formatShape(list)}`);
  }
  return resolved.sort((a, b) => a - b);
}
