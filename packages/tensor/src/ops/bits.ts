/**
 * Floats as their bits. A shader may assume that there is no NaN and no infinity, so comparisons cannot find them on
 * every device; integer tests of the bits can:
 *
 *     s eeeeeeee mmm...m    NaN: e all ones, m not 0    infinity: e all ones, m = 0
 */
import { isFloat } from '../dtype.ts';
import { DTypeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { apply, type Tensor } from '../tensor.ts';
import { and, equal, less } from './elementwise.ts';

export const bitsOp: Op<null> = {
  name: 'bits',
  infer: ([x]) => {
    if (!isFloat(x!.dtype)) throw new DTypeError(`bits: expected float; got ${x!.dtype}`);
    return { shape: x!.shape, dtype: 'u32' };
  },
  reference: ([x]) => new Uint32Array(Float32Array.from(x!.data).buffer),
  lower: { kind: 'elementwise', expr: ([x]) => ({ kind: 'unary', type: 'u32', op: 'bits', x: x! }) },
  vjp: () => [null],
  jvp: () => null,
};

/** The 32 bits of each float as u32; f16 and f64 as the nearest f32. @throws DTypeError for other types */
export function bits(x: Tensor): Tensor {
  return apply(bitsOp, [x], null);
}

const infinity = 0x7f800000;
const magnitude = (x: Tensor): Tensor => and(bits(x), 0x7fffffff);

/** Which elements are NaN, by their bits: right on every device. @throws DTypeError unless float */
export function isnan(x: Tensor): Tensor {
  return less(infinity, magnitude(x));
}

/** Which elements are infinite, by their bits: right on every device. @throws DTypeError unless float */
export function isinf(x: Tensor): Tensor {
  return equal(magnitude(x), infinity);
}

/** Which elements are neither NaN nor infinite, by their bits: right on every device. @throws DTypeError unless float */
export function isfinite(x: Tensor): Tensor {
  return less(magnitude(x), infinity);
}
