/**
 * Permutations of axes, told from views: an index space that reads every element of a value exactly once reads its
 * flat position digit by digit, in another order.
 *
 * An axis of extent n and stride s is the digit of weight s and base n of the position. Two shapes of one value can be
 * cut into common digits, unless their boundaries interleave (6 = 2 * 3 = 3 * 2).
 */
import { numel, type Shape } from '../shape.ts';
import type { View } from '../view.ts';

/** The weights at which digits begin, ascending from 1 to the number of elements; null where they do not nest. */
function commonBoundaries(length: number, boundaries: Iterable<number>): number[] | null {
  const sorted = [...new Set([1, length, ...boundaries])].sort((a, b) => a - b);
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
  const boundaries = commonBoundaries(length, [
    ...axes.flatMap(({ extent, stride }) => [stride, stride * extent]),
    ...weights,
  ]);
  if (!boundaries || boundaries[0] !== 1 || boundaries.at(-1) !== length) return null;
  const read = axes.flatMap(({ extent, stride }) => digitsWithin(boundaries, stride, extent));
  if (read.length !== boundaries.length - 1 || new Set(read).size !== read.length) return null;
  const own = shape.map((extent, axis) => digitsWithin(boundaries, weights[axis]!, extent));
  return { own, read, base: (weight) => boundaries[boundaries.indexOf(weight) + 1]! / weight };
}
