/** Pooling of pictures [N, C, H, W]: windows folded to one pixel, over views of the picture. */
import { formatShape, ShapeError } from '../errors.ts';
import type { Tensor } from '../tensor.ts';
import { both } from './conv.ts';
import { mul, where } from './elementwise.ts';
import { sum } from './expand.ts';
import { pad } from './movement.ts';
import { max } from './reduce.ts';
import { full } from './source.ts';
import { unfold } from './unfold.ts';

/** A number stands for both directions. */
export interface PoolOptions {
  /** Default: the kernel, so that windows tile the picture. */
  readonly stride?: number | readonly [number, number];
  /** Default: 0. At most half the kernel, so that every window has a pixel. */
  readonly padding?: number | readonly [number, number];
}

type Pool = (padded: Tensor, amounts: readonly (readonly number[])[]) => Tensor;

/** Windows over [N, C, OH, OW, KH, KW] of x, framed by `frame`. */
function windows(
  op: string,
  x: Tensor,
  kernel: number | readonly [number, number],
  { stride = kernel, padding = 0 }: PoolOptions,
  frame: Pool,
): Tensor {
  if (x.rank !== 4) throw new ShapeError(`${op}: expected [N, C, H, W]; got ${formatShape(x.shape)}`);
  const [size, step, border] = [both(kernel), both(stride), both(padding)];
  if (![...size, ...step].every((v) => Number.isInteger(v) && v >= 1)) {
    throw new ShapeError(
      `${op}: kernel and stride must be whole numbers >= 1; got ${formatShape(size)} and ${formatShape(step)}`,
    );
  }
  if (!border.every((v, i) => Number.isInteger(v) && v >= 0 && v <= size[i]! / 2)) {
    throw new ShapeError(
      `${op}: the padding must be whole and at most half the kernel; got ${formatShape(border)} and ${formatShape(size)}`,
    );
  }
  const framed = border.some((v) => v > 0)
    ? frame(x, [[0, 0], [0, 0], ...border.map((v) => [v, v] as const)])
    : x;
  if (size.some((extent, i) => extent > framed.shape[i + 2]!)) {
    throw new ShapeError(
      `${op}: the kernel is larger than the image; got ${formatShape(framed.shape)} and ${formatShape(size)}`,
    );
  }
  return unfold(unfold(framed, 2, size[0], { step: step[0] }), 3, size[1], { step: step[1] });
}

/**
 * The mean of each window of `kernel` pixels, zeros of the padding counted (torch avg_pool2d): [N, C, H, W] to
 * [N, C, OH, OW] with OH = floor((H + 2 padding - KH) / stride) + 1.
 * @throws ShapeError
 */
export function averagePool(
  x: Tensor,
  kernel: number | readonly [number, number] = 2,
  options: PoolOptions = {},
): Tensor {
  const [kh, kw] = both(kernel);
  return mul(sum(windows('averagePool', x, kernel, options, pad), [4, 5]), 1 / (kh * kw));
}

/**
 * The largest pixel of each window, the padding left out (torch max_pool2d): shapes as in `averagePool`. Ties share the
 * derivative equally (PyTorch: the first takes it).
 * @throws ShapeError
 */
export function maxPool(
  x: Tensor,
  kernel: number | readonly [number, number] = 2,
  options: PoolOptions = {},
): Tensor {
  const inside = full(x.shape, 1, 'bool');
  const frame: Pool = (picture, amounts) =>
    where(pad(inside, amounts), pad(picture, amounts), Number.NEGATIVE_INFINITY);
  return max(windows('maxPool', x, kernel, options, frame), [4, 5]);
}
