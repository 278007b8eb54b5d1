/**
 * Permutations of axes, told from views: an index space that reads every element of a value exactly once reads its
 * flat position digit by digit, in another order.
 *
 * An axis of extent n and stride s is the digit of weight s and base n of the position. Two shapes of one value can be
 * cut into common digits, unless their boundaries interleave (6 = 2 * 3 = 3 * 2).
 */
import { numel, type Shape } from '../shape.ts';
import { type Affine, axisOf, rangeOf, type View } from '../view.ts';

/** The weights at which digits begin, ascending from `first` to `last`; null where they do not nest. */
function commonBoundaries(first: number, last: number, between: readonly number[]): number[] | null {
  const sorted = [...new Set([first, last, ...between])].sort((a, b) => a - b);
  return sorted.every((weight, i) => i === 0 || weight % sorted[i - 1]! === 0) ? sorted : null;
}

/** The weights of the digits that an axis covers, most significant first. */
function digitsWithin(boundaries: readonly number[], weight: number, extent: number): number[] {
  return boundaries.filter((own) => own >= weight && own < weight * extent).reverse();
}

export interface Digits {
  /** Weights of the digits that each axis of the value's own shape is cut into, most significant first. */
  readonly own: readonly (readonly number[])[];
  /** Weights of all digits in the order in which the view's axes read them. */
  readonly read: readonly number[];
  /** The base of the digit with a weight. */
  base(weight: number): number;
}

/** The digits of a value of the given shape that a view reads; null unless it reads each element exactly once. */
export function digitsOf(view: View, shape: Shape): Digits | null {
  const length = numel(shape);
  if (view.offset !== 0 || view.guards.length > 0 || numel(view.shape) !== length) return null;
  const axes = view.shape
    .map((extent, axis) => ({ extent, stride: view.strides[axis]! }))
    .filter(({ extent }) => extent > 1);
  const weights = shape.map((_, axis) => numel(shape.slice(axis + 1)));
  const boundaries = commonBoundaries(1, length, [
    ...axes.flatMap(({ extent, stride }) => [stride, stride * extent]),
    ...weights,
  ]);
  if (boundaries?.[0] !== 1 || boundaries.at(-1) !== length) return null;
  const read = axes.flatMap(({ extent, stride }) => digitsWithin(boundaries, stride, extent));
  if (read.length !== boundaries.length - 1 || new Set(read).size !== read.length) return null;
  const own = shape.map((extent, axis) => digitsWithin(boundaries, weights[axis]!, extent));
  return { own, read, base: (weight) => boundaries[boundaries.indexOf(weight) + 1]! / weight };
}

/** The extents that each axis of a view is cut into where it runs over several axes of the value that it reads. */
export function cutsOf(view: View, shape: Shape): number[][] {
  const weights = shape.map((_, axis) => numel(shape.slice(axis + 1))).sort((a, b) => a - b);
  return view.shape.map((extent, axis) => {
    const stride = view.strides[axis]!;
    const inside = weights.filter((weight) => weight > stride && weight < stride * extent);
    const boundaries = stride > 0 ? commonBoundaries(stride, stride * extent, inside) : null;
    if (!boundaries) return [extent];
    return boundaries
      .slice(1)
      .map((boundary, i) => boundary / boundaries[i]!)
      .reverse();
  });
}

/**
 * The index along each axis of the value that a view reads, as functions of the view's own index; null unless the
 * view keeps within every axis and nothing carries from one into another.
 */
export function indicesOf(view: View, shape: Shape): Affine[] | null {
  const weights = shape.map((_, axis) => numel(shape.slice(axis + 1)));
  const rank = view.shape.length;
  const rows = shape.map(() => axisOf(rank, -1));
  let rest = view.offset;
  const offsets = weights.map((weight) => {
    const steps = Math.trunc(rest / weight);
    rest -= steps * weight;
    return steps;
  });
  for (const [at, stride] of view.strides.entries()) {
    if (stride === 0 || view.shape[at] === 1) continue;
    const axis = weights.findIndex((weight, i) => shape[i] !== 1 && weight <= Math.abs(stride));
    if (axis < 0 || stride % weights[axis]! !== 0) return null;
    const row = rows[axis]!;
    rows[axis] = { ...row, strides: row.strides.with(at, stride / weights[axis]!) };
  }
  const indices = rows.map((row, axis) => ({ ...row, offset: offsets[axis]! }));
  const within = indices.every((row, axis) => {
    const { low, high } = rangeOf(row, view.shape);
    return low >= 0 && high < shape[axis]!;
  });
  return within ? indices : null;
}
