/** Largest values and where they are. (Sums live with their adjoint, in expand.ts.) */
import { expectNumbers, isFloat } from '../dtype.ts';
import { DTypeError, formatShape, ShapeError } from '../errors.ts';
import type { Aval, Op, Values } from '../op.ts';
import { numel, resolveAxes, resolveAxis } from '../shape.ts';
import { apply, type Tensor } from '../tensor.ts';
import { cast, div, equal, mul, neg, sub } from './elementwise.ts';
import { expandBack, foldPlaces, restoreAxes, sum } from './expand.ts';

interface Axes {
  readonly axes: readonly number[];
}

function inferFold(name: string, x: Aval, axes: readonly number[]): readonly number[] {
  expectNumbers(name, x.dtype);
  if (axes.some((axis) => x.shape[axis] === 0)) {
    throw new ShapeError(`${name}: nothing to choose from along an empty axis; got ${formatShape(x.shape)}`);
  }
  return x.shape.filter((_, axis) => !axes.includes(axis));
}

/** Position (in `x`) of the first largest element for each place of the result. */
function winners(x: Values, axes: readonly number[], size: number): Int32Array {
  const at = new Int32Array(size).fill(-1);
  foldPlaces(x.shape, axes, (i, place) => {
    if (at[place] === -1 || x.data[i]! > x.data[at[place]!]!) at[place] = i;
  });
  return at;
}

/** The share of each element in the maximum: 1 / (number of ties) where it is attained, else 0. */
function shares(x: Tensor, y: Tensor, axes: readonly number[]): Tensor {
  const attained = cast(equal(x, expandBack(y, x.shape, axes)), x.dtype);
  return div(attained, sum(attained, axes, true));
}

export const maxOp: Op<Axes> = {
  name: 'max',
  infer: ([x], { axes }) => ({ shape: inferFold('max', x!, axes), dtype: x!.dtype }),
  reference: ([x], { axes }, output) =>
    Float64Array.from(winners(x!, axes, numel(output.shape)), (i) => x!.data[i]!),
  lower: { kind: 'reduce', fold: 'max', axes: ({ axes }) => axes },
  vjp: (dy, { inputs: [x], output, attrs: { axes } }) => [
    mul(expandBack(dy, x!.shape, axes), shares(x!, output, axes)),
  ],
  jvp: ([dx], { inputs: [x], output, attrs: { axes } }) => sum(mul(dx!, shares(x!, output, axes)), axes),
};

/** The position counts row-major over the reduced axes. */
export const argmaxOp: Op<Axes> = {
  name: 'argmax',
  infer: ([x], { axes }) => ({ shape: inferFold('argmax', x!, axes), dtype: 'i32' }),
  reference: ([x], { axes }, output) => {
    const at = winners(x!, axes, numel(output.shape));
    const seen = new Int32Array(at.length);
    const position = new Int32Array(at.length);
    foldPlaces(x!.shape, axes, (i, place) => {
      if (i === at[place]) position[place] = seen[place]!;
      seen[place]! += 1;
    });
    return position;
  },
  lower: { kind: 'reduce', fold: 'argmax', axes: ({ axes }) => axes },
  vjp: () => [null],
  jvp: () => null,
};

/**
 * The largest value along the axes (default: all). Ties share the derivative equally.
 * @throws ShapeError when an axis is out of range or empty
 */
export function max(x: Tensor, axes?: number | readonly number[], keepAxes = false): Tensor {
  const over = resolveAxes('max', axes, x.rank);
  const y = over.length === 0 ? x : apply(maxOp, [x], { axes: over });
  return keepAxes ? restoreAxes(y, x.shape, over) : y;
}

/** The smallest value along the axes; see `max`. */
export function min(x: Tensor, axes?: number | readonly number[], keepAxes = false): Tensor {
  // -1 - x, all bits of x turned over, reverses the order of integers of both kinds; -x would wrap at the ends.
  const reversed = (y: Tensor): Tensor => (isFloat(y.dtype) ? neg(y) : sub(neg(y), 1));
  return reversed(max(reversed(x), axes, keepAxes));
}

/**
 * The position of the first largest value along one axis, as i32.
 * @throws ShapeError when the axis is out of range or empty
 */
export function argmax(x: Tensor, axis = -1): Tensor {
  return apply(argmaxOp, [x], { axes: [resolveAxis('argmax', axis, x.rank)] });
}

/**
 * The mean over the axes (default: all). The mean of nothing is NaN.
 * @throws ShapeError when an axis is out of range or named twice, DTypeError when `x` is not float
 */
export function mean(x: Tensor, axes?: number | readonly number[], keepAxes = false): Tensor {
  if (!isFloat(x.dtype)) throw new DTypeError(`mean: expected float; got ${x.dtype}`);
  const count = numel(resolveAxes('mean', axes, x.rank).map((axis) => x.shape[axis]!));
  return mul(sum(x, axes, keepAxes), 1 / count);
}
