/** Pictures [N, C, H, W] at other resolutions. */
import { formatShape, ShapeError } from '../errors.ts';
import type { Tensor } from '../tensor.ts';
import { mul } from './elementwise.ts';
import { expand, sum } from './expand.ts';
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

/** The mean of each factor x factor block. @throws ShapeError */
export function averagePool(x: Tensor, factor = 2): Tensor {
  expectDivides('averagePool', x, factor);
  const [n, c, h, w] = x.shape as [number, number, number, number];
  const blocks = reshape(x, [n, c, h / factor, factor, w / factor, factor]);
  return mul(sum(blocks, [3, 5]), 1 / factor ** 2);
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
