/**
 * Gather and scatterAdd: each the other's adjoint.
 *
 *     y[o, j, i] = x[o, index_j, i]                          gather along one axis
 *     y[o, k, i] = sum over j with index_j = k of x[o, j, i]    scatterAdd
 */

import { expectNumbers, isFloat, wrap } from '../dtype.ts';
import { DTypeError, formatShape, formatShapes, ShapeError } from '../errors.ts';
import type { Aval, Op } from '../op.ts';
import { numel, resolveAxis, sameShape } from '../shape.ts';
import { apply, type Tensor } from '../tensor.ts';
import { add, and, less, lessEqual, mul, where } from './elementwise.ts';
import { reshape } from './movement.ts';
import { arange } from './source.ts';

function expectIndex(op: string, index: Aval): void {
  if (index.dtype !== 'i32') throw new DTypeError(`${op}: the index must be i32; got ${index.dtype}`);
}

export const gatherOp: Op<{ readonly axis: number }> = {
  name: 'gather',
  infer: ([x, index], { axis }) => {
    expectIndex('gather', index!);
    return { shape: x!.shape.toSpliced(axis, 1, ...index!.shape), dtype: x!.dtype };
  },
  reference: ([x, index], { axis }, output) => {
    const inner = numel(x!.shape.slice(axis + 1));
    const extent = x!.shape[axis]!;
    const count = index!.data.length;
    return Float64Array.from({ length: numel(output.shape) }, (_, i) => {
      const k = index!.data[Math.floor(i / inner) % count]!;
      if (k < 0 || k >= extent) return isFloat(x!.dtype) ? Number.NaN : 0;
      return x!.data[(Math.floor(i / (inner * count)) * extent + k) * inner + (i % inner)]!;
    });
  },
  lower: { kind: 'gather', axis: ({ axis }) => axis },
  vjp: (dy, { inputs: [x, index], attrs: { axis } }) => {
    const flat = dy.shape.toSpliced(axis, index!.rank, index!.size);
    return [scatterAdd(reshape(dy, flat), reshape(index!, [index!.size]), x!.shape[axis]!, axis), null];
  },
  jvp: ([dx], { inputs: [, index], attrs }) => (dx ? apply(gatherOp, [dx, index!], attrs) : null),
};

export const scatterAddOp: Op<{ readonly axis: number; readonly extent: number }> = {
  name: 'scatterAdd',
  infer: ([x, index], { axis, extent }) => {
    expectIndex('scatterAdd', index!);
    expectNumbers('scatterAdd', x!.dtype);
    if (!sameShape(index!.shape, [x!.shape[axis]!])) {
      throw new ShapeError(
        `scatterAdd: expected one index for each of ${x!.shape[axis]} places; got ${formatShapes([x!.shape, index!.shape])}`,
      );
    }
    return { shape: x!.shape.with(axis, extent), dtype: x!.dtype };
  },
  reference: ([x, index], { axis, extent }, output) => {
    const inner = numel(x!.shape.slice(axis + 1));
    const count = index!.data.length;
    const out = new Float64Array(numel(output.shape));
    x!.data.forEach((value, i) => {
      const k = index!.data[Math.floor(i / inner) % count]!;
      if (k < 0 || k >= extent) return;
      const place = (Math.floor(i / (inner * count)) * extent + k) * inner + (i % inner);
      out[place] = wrap(x!.dtype, out[place]! + value);
    });
    return out;
  },
  lower: { kind: 'scatter', axis: ({ axis }) => axis },
  vjp: (dy, { inputs: [x, index], attrs: { axis, extent } }) => {
    // What was left out has derivative 0, where gather alone gives NaN.
    const inside = and(lessEqual(0, index!), less(index!, extent));
    const alongAxis = reshape(
      inside,
      x!.shape.map((count, i) => (i === axis ? count : 1)),
    );
    return [where(alongAxis, apply(gatherOp, [dy, index!], { axis }), 0), null];
  },
  jvp: ([dx], { inputs: [, index], attrs }) => (dx ? apply(scatterAddOp, [dx, index!], attrs) : null),
};

/**
 * The slices of `x` at the given positions along `axis`, which is replaced by the axes of `index` (i32). A position
 * outside the axis gives NaN (0 for integers).
 * @throws ShapeError, DTypeError
 */
export function gather(x: Tensor, index: Tensor, axis = 0): Tensor {
  return apply(gatherOp, [x, index], { axis: resolveAxis('gather', axis, x.rank) });
}

/**
 * Zeros of extent `extent` along `axis`, with slice j of `x` added at position index[j] (i32, one axis). Positions
 * outside are left out; integers wrap. The order of additions is fixed: the same bits every run.
 * @throws ShapeError, DTypeError
 */
export function scatterAdd(x: Tensor, index: Tensor, extent: number, axis = 0): Tensor {
  if (!Number.isInteger(extent) || extent < 0) {
    throw new ShapeError(`scatterAdd: the extent must be a whole number >= 0; got ${formatShape([extent])}`);
  }
  return apply(scatterAddOp, [x, index], { axis: resolveAxis('scatterAdd', axis, x.rank), extent });
}

/**
 * The element of `x` at the position that `index` (i32) names along `axis`, for each place of `index`: numpy's
 * take_along_axis, torch.gather. A position outside the axis gives NaN (0 for integers).
 * @throws ShapeError when the shapes differ in another axis, DTypeError when the index is not i32
 */
export function takeAlongAxis(x: Tensor, index: Tensor, axis = -1): Tensor {
  expectIndex('takeAlongAxis', index);
  const a = resolveAxis('takeAlongAxis', axis, x.rank);
  if (index.rank !== x.rank || !sameShape(index.shape.with(a, x.shape[a]!), x.shape)) {
    throw new ShapeError(
      `takeAlongAxis: shapes differ outside axis ${a}; got ${formatShapes([x.shape, index.shape])}`,
    );
  }
  const extent = x.shape[a]!;
  const [outer, inner] = [numel(x.shape.slice(0, a)), numel(x.shape.slice(a + 1))];
  const along = reshape(index, [outer, index.shape[a]!, inner]);
  const rows = reshape(arange(outer), [outer, 1, 1]);
  const flat = add(mul(add(mul(rows, extent), along), inner), arange(inner));
  const inside = and(lessEqual(0, along), less(along, extent));
  return reshape(gather(reshape(x, [x.size]), where(inside, flat, -1)), index.shape);
}
