/** Spread and size of the elements over axes (default: all of them). */
import { numel, resolveAxes } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { less, mul, sqrt, square, sub, where } from './elementwise.ts';
import { sum } from './expand.ts';
import { mean } from './reduce.ts';

/**
 * The mean squared deviation from the mean, in two passes, so that a large mean costs no digits. The sum is divided by
 * n - correction: 0 (NumPy) or 1 (unbiased; PyTorch); NaN where that is 0 / 0.
 * @throws ShapeError when an axis is out of range or named twice, DTypeError when `x` is not float
 */
export function variance(
  x: Tensor,
  axes?: number | readonly number[],
  keepAxes = false,
  { correction = 0 }: { readonly correction?: number } = {},
): Tensor {
  const over = resolveAxes('variance', axes, x.rank);
  const count = numel(over.map((axis) => x.shape[axis]!));
  const deviations = sum(square(sub(x, mean(x, over, true))), over, keepAxes);
  return mul(deviations, 1 / Math.max(0, count - correction));
}

/** The square root of the variance; its derivative is not finite where the variance is 0. See `variance`. */
export function standardDeviation(
  x: Tensor,
  axes?: number | readonly number[],
  keepAxes = false,
  options: { readonly correction?: number } = {},
): Tensor {
  return sqrt(variance(x, axes, keepAxes, options));
}

/**
 * The Euclidean norm, the root of the sum of squares; the derivative at 0 is 0, as in PyTorch.
 * @throws ShapeError when an axis is out of range or named twice, DTypeError when `x` is not float
 */
export function norm(x: Tensor, axes?: number | readonly number[], keepAxes = false): Tensor {
  const squares = sum(square(x), axes, keepAxes);
  const positive = less(0, squares);
  return where(positive, sqrt(where(positive, squares, 1)), 0);
}
