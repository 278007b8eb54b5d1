/** Sources: tensors from nothing but a shape. */
import { type DType, encode, isFloat, roundTo } from '../dtype.ts';
import { DTypeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { checkShape, contiguousStrides, numel, resolveAxis, type Shape } from '../shape.ts';
import { apply, type Tensor, tensor } from '../tensor.ts';

export const fullOp: Op<{ readonly shape: Shape; readonly value: number; readonly dtype: DType }> = {
  name: 'full',
  infer: (_inputs, { shape, dtype }) => ({ shape, dtype }),
  reference: (_inputs, { shape, value }) => new Float64Array(numel(shape)).fill(value),
  lower: { kind: 'source', expr: (_shape, { value }, type) => ({ kind: 'constant', type, value }) },
  vjp: () => [],
  jvp: () => null,
};

/** The position along one axis. */
export const iotaOp: Op<{ readonly shape: Shape; readonly axis: number; readonly dtype: DType }> = {
  name: 'iota',
  infer: (_inputs, { shape, dtype }) => {
    if (dtype === 'bool') throw new DTypeError('iota: expected numbers; got bool');
    return { shape, dtype };
  },
  reference: (_inputs, { shape, axis }) => {
    const stride = contiguousStrides(shape)[axis]!;
    return Float64Array.from({ length: numel(shape) }, (_, i) => Math.floor(i / stride) % shape[axis]!);
  },
  lower: {
    kind: 'source',
    expr: (shape, { axis }, type) => ({
      kind: 'coordinate',
      type,
      offset: 0,
      strides: shape.map((_, i) => (i === axis ? 1 : 0)),
    }),
  },
  vjp: () => [],
  jvp: () => null,
};

/** @throws DTypeError when an integer type cannot hold the value */
export function expectHolds(op: string, dtype: DType, value: number): void {
  if (!isFloat(dtype) && roundTo(dtype, value) !== value) {
    throw new DTypeError(`${op}: ${dtype} does not hold ${value}`);
  }
}

/** A tensor full of one value. @throws DTypeError when an integer type cannot hold it */
export function full(shape: Shape, value: number, dtype: DType = 'f32'): Tensor {
  expectHolds('full', dtype, value);
  return apply(fullOp, [], {
    shape,
    value: isFloat(dtype) ? value : Number(encode(dtype, [value])[0]!),
    dtype,
  });
}

/** Zeros. */
export function zeros(shape: Shape, dtype: DType = 'f32'): Tensor {
  return full(shape, 0, dtype);
}

/** Ones. */
export function ones(shape: Shape, dtype: DType = 'f32'): Tensor {
  return full(shape, 1, dtype);
}

/** Zeros of the shape and dtype of `x`. */
export function zerosLike(x: Tensor): Tensor {
  return full(x.shape, 0, x.dtype);
}

/** Ones of the shape and dtype of `x`. */
export function onesLike(x: Tensor): Tensor {
  return full(x.shape, 1, x.dtype);
}

/** Each element's position along `axis`, counted from 0. @throws ShapeError, DTypeError for bool */
export function iota(shape: Shape, axis = -1, dtype: DType = 'i32'): Tensor {
  return apply(iotaOp, [], { shape, axis: resolveAxis('iota', axis, shape.length), dtype });
}

/** 0, 1, ..., length - 1. @throws ShapeError unless the length is a whole number >= 0, DTypeError for bool */
export function arange(length: number, dtype: DType = 'i32'): Tensor {
  checkShape('arange', [length]);
  return iota([length], 0, dtype);
}

/**
 * `count` evenly spaced numbers from `start` to `stop`, both included, made on the host in float64; one number is `start`.
 * @throws ShapeError unless the count is a whole number >= 0, DTypeError when the type is not float
 */
export function linspace(start: number, stop: number, count: number, dtype: DType = 'f32'): Tensor {
  checkShape('linspace', [count]);
  if (!isFloat(dtype)) throw new DTypeError(`linspace: expected float; got ${dtype}`);
  const step = count > 1 ? (stop - start) / (count - 1) : 0;
  const last = count - 1;
  const values = Array.from({ length: count }, (_, i) => (i === last && i > 0 ? stop : start + step * i));
  return tensor(encode(dtype, values), [count], dtype);
}
