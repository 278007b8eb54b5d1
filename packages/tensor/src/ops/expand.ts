/**
 * Expand and sum: each the other's adjoint.
 *
 *     y = expand(x)    repeats x along new axes and axes of extent 1        dx = sum of dy over them
 *     y = sum(x)       over some axes                                       dx = dy repeated along them
 */
import { expectNumbers, wrap } from '../dtype.ts';
import { formatShapes, ShapeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { broadcastShapes, contiguousStrides, numel, resolveAxes, type Shape, sameShape } from '../shape.ts';
import { apply, type Tensor } from '../tensor.ts';
import { contiguousView, expandView } from '../view.ts';
import { readView, reshape } from './movement.ts';

export const expandOp: Op<{ readonly shape: Shape }> = {
  name: 'expand',
  infer: ([x], { shape }) => {
    if (x!.shape.length > shape.length || !sameShape(broadcastShapes('expand', [x!.shape, shape]), shape)) {
      throw new ShapeError(
        `expand: the shape does not stretch to the other; got ${formatShapes([x!.shape, shape])}`,
      );
    }
    return { shape, dtype: x!.dtype };
  },
  reference: ([x], { shape }) => readView(x!.data, expandView(contiguousView(x!.shape), shape)),
  lower: { kind: 'view', view: (view, { shape }) => expandView(view, shape) },
  vjp: (dy, { inputs }) => [sumTo(dy, inputs[0]!.shape)],
  jvp: ([dx], { attrs }) => apply(expandOp, [dx!], attrs),
};

export const sumOp: Op<{ readonly axes: readonly number[] }> = {
  name: 'sum',
  infer: ([x], { axes }) => {
    expectNumbers('sum', x!.dtype);
    return { shape: x!.shape.filter((_, axis) => !axes.includes(axis)), dtype: x!.dtype };
  },
  reference: ([x], { axes }, output) => {
    const out = new Float64Array(numel(output.shape));
    foldPlaces(x!.shape, axes, (i, place) => {
      out[place] = wrap(x!.dtype, out[place]! + x!.data[i]!);
    });
    return out;
  },
  lower: { kind: 'reduce', fold: 'sum', axes: ({ axes }) => axes },
  vjp: (dy, { inputs, attrs }) => [expandBack(dy, inputs[0]!.shape, attrs.axes)],
  jvp: ([dx], { attrs }) => apply(sumOp, [dx!], attrs),
};

/** Calls back with each element and the place in the result that it is folded into, row-major. */
export function foldPlaces(
  shape: Shape,
  axes: readonly number[],
  visit: (i: number, place: number) => void,
): void {
  const strides = contiguousStrides(shape);
  const kept = shape.map((_, axis) => axis).filter((axis) => !axes.includes(axis));
  const keptStrides = contiguousStrides(kept.map((axis) => shape[axis]!));
  for (let i = 0; i < numel(shape); i += 1) {
    visit(
      i,
      kept.reduce(
        (sum, axis, j) => sum + (Math.floor(i / strides[axis]!) % shape[axis]!) * keptStrides[j]!,
        0,
      ),
    );
  }
}

/** A reduced tensor with its axes back, at extent 1. */
export function restoreAxes(y: Tensor, shape: Shape, axes: readonly number[]): Tensor {
  return reshape(
    y,
    shape.map((extent, axis) => (axes.includes(axis) ? 1 : extent)),
  );
}

/** A reduced tensor repeated along the axes it was reduced over. */
export function expandBack(y: Tensor, shape: Shape, axes: readonly number[]): Tensor {
  return expand(restoreAxes(y, shape, axes), shape);
}

/**
 * `x` repeated to the shape: axes aligned at the end, extent 1 stretches (NumPy's broadcast_to).
 * @throws ShapeError when it does not stretch to it
 */
export function expand(x: Tensor, shape: Shape): Tensor {
  return sameShape(x.shape, shape) ? x : apply(expandOp, [x], { shape });
}

/**
 * The sum over the axes (default: all), which are kept at extent 1 when asked. The sum of nothing is 0; integers wrap.
 * @throws ShapeError when an axis is out of range or named twice, DTypeError for bool
 */
export function sum(x: Tensor, axes?: number | readonly number[], keepAxes = false): Tensor {
  const over = resolveAxes('sum', axes, x.rank);
  const y = over.length === 0 ? x : apply(sumOp, [x], { axes: over });
  return keepAxes ? restoreAxes(y, x.shape, over) : y;
}

/**
 * The adjoint of `expand`: `x` summed to the shape that it was stretched from.
 * @throws ShapeError when the shape does not stretch to that of `x`
 */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (shape.length > x.rank || !sameShape(broadcastShapes('sumTo', [shape, x.shape]), x.shape)) {
    throw new ShapeError(
      `sumTo: the shape does not stretch to the other; got ${formatShapes([shape, x.shape])}`,
    );
  }
  const lead = x.rank - shape.length;
  const axes = x.shape.flatMap((extent, axis) =>
    axis < lead || shape[axis - lead] !== extent ? [axis] : [],
  );
  return reshape(sum(x, axes), shape);
}
