/** Pictures [N, C, H, W] at other resolutions. */
import { encode } from '../dtype.ts';
import { formatShape, ShapeError } from '../errors.ts';
import { type Tensor, tensor } from '../tensor.ts';
import { add, mul } from './elementwise.ts';
import { expand } from './expand.ts';
import { gather } from './gather.ts';
import { permute, reshape } from './movement.ts';

function expectPicture(op: string, x: Tensor, factor: number): void {
  if (x.rank !== 4) throw new ShapeError(`${op}: expected [N, C, H, W]; got ${formatShape(x.shape)}`);
  if (!Number.isInteger(factor) || factor < 1) {
    throw new ShapeError(`${op}: the factor must be a whole number >= 1; got ${factor}`);
  }
}

function expectDivides(op: string, x: Tensor, factor: number): void {
  expectPicture(op, x, factor);
  const [, , h, w] = x.shape;
  if (h! % factor !== 0 || w! % factor !== 0) {
    throw new ShapeError(
      `${op}: expected [N, C, H, W] that divides by ${factor}; got ${formatShape(x.shape)}`,
    );
  }
}

/** Every pixel repeated `factor` times in both directions. @throws ShapeError */
export function upsampleNearest(x: Tensor, factor = 2): Tensor {
  expectPicture('upsampleNearest', x, factor);
  const [n, c, h, w] = x.shape as [number, number, number, number];
  const repeated = expand(reshape(x, [n, c, h, 1, w, 1]), [n, c, h, factor, w, factor]);
  return reshape(repeated, [n, c, h * factor, w * factor]);
}

/** Blocks of factor x factor pixels become channels: [N, C, H, W] -> [N, C factor^2, H/factor, W/factor]. @throws ShapeError */
export function pixelUnshuffle(x: Tensor, factor: number): Tensor {
  expectDivides('pixelUnshuffle', x, factor);
  const [n, c, h, w] = x.shape as [number, number, number, number];
  const blocks = reshape(x, [n, c, h / factor, factor, w / factor, factor]);
  return reshape(permute(blocks, [0, 1, 3, 5, 2, 4]), [n, c * factor ** 2, h / factor, w / factor]);
}

/** The inverse of `pixelUnshuffle`. @throws ShapeError when the channels do not divide by factor^2 */
export function pixelShuffle(x: Tensor, factor: number): Tensor {
  expectPicture('pixelShuffle', x, factor);
  const [n, c, h, w] = x.shape as [number, number, number, number];
  if (c % factor ** 2 !== 0) {
    throw new ShapeError(
      `pixelShuffle: ${c} channels do not divide by ${factor ** 2}; got ${formatShape(x.shape)}`,
    );
  }
  const blocks = reshape(x, [n, c / factor ** 2, factor, factor, h, w]);
  return reshape(permute(blocks, [0, 1, 4, 2, 5, 3]), [n, c / factor ** 2, h * factor, w * factor]);
}

function expectSizes(op: string, x: Tensor, size: readonly [number, number]): void {
  if (x.rank !== 4) throw new ShapeError(`${op}: expected [N, C, H, W]; got ${formatShape(x.shape)}`);
  const whole = size.every((extent) => Number.isInteger(extent) && extent >= 1);
  if (!whole || x.shape[2] === 0 || x.shape[3] === 0) {
    throw new ShapeError(
      `${op}: expected extents >= 1 before and after; got ${formatShape(x.shape)} and ${formatShape(size)}`,
    );
  }
}

const positions = (length: number, place: (i: number) => number): number[] =>
  Array.from({ length }, (_, i) => place(i));

/** x at places along an axis. */
function pick(x: Tensor, axis: number, places: readonly number[]): Tensor {
  return gather(x, tensor(Int32Array.from(places)), axis);
}

/**
 * [N, C, H, W] at the size [h, w], each pixel that of the input at floor(i H / h) (torch interpolate, mode nearest).
 * @throws ShapeError
 */
export function interpolateNearest(x: Tensor, size: readonly [number, number]): Tensor {
  expectSizes('interpolateNearest', x, size);
  return size.reduce((y, extent, i) => {
    const from = y.shape[i + 2]!;
    return from === extent
      ? y
      : pick(
          y,
          i + 2,
          positions(extent, (at) => Math.floor((at * from) / extent)),
        );
  }, x);
}

/** Where pixel `at` of `extent` lies among `from` pixels: corners on corners, or edges on edges (half-pixel centres). */
function sourceOf(at: number, extent: number, from: number, alignCorners: boolean): number {
  if (alignCorners) return extent === 1 ? 0 : (at * (from - 1)) / (extent - 1);
  return Math.max(0, ((at + 0.5) * from) / extent - 0.5);
}

/**
 * [N, C, H, W] at the size [h, w], each pixel the weighted mean of the two by two nearest ones (torch interpolate, mode
 * bilinear, without antialiasing). `alignCorners`: the centres of corner pixels stay, else the picture's edges do.
 * @throws ShapeError
 */
export function interpolateBilinear(
  x: Tensor,
  size: readonly [number, number],
  { alignCorners = false }: { readonly alignCorners?: boolean } = {},
): Tensor {
  expectSizes('interpolateBilinear', x, size);
  return size.reduce((y, extent, i) => {
    const from = y.shape[i + 2]!;
    if (from === extent) return y;
    const sources = positions(extent, (at) => sourceOf(at, extent, from, alignCorners));
    const low = sources.map(Math.floor);
    const weight = (share: (at: number) => number): Tensor =>
      tensor(encode(y.dtype, positions(extent, share)), i === 0 ? [extent, 1] : [extent], y.dtype);
    return add(
      mul(
        pick(y, i + 2, low),
        weight((at) => 1 - (sources[at]! - low[at]!)),
      ),
      mul(
        pick(
          y,
          i + 2,
          low.map((at) => Math.min(at + 1, from - 1)),
        ),
        weight((at) => sources[at]! - low[at]!),
      ),
    );
  }, x);
}
