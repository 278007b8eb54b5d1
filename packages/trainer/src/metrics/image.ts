/**
 * How alike two pictures are, pixel by pixel. Pictures are compared in luma (a "plane": height x width numbers in
 * [0, 1]), in float: differences of bytes would wrap around.
 */
import type { Picture } from '../world/render.ts';

/** One number for each pixel, row-major. */
export interface Plane {
  readonly width: number;
  readonly height: number;
  readonly data: Float64Array;
}

/** The luma of a picture by the weights of ITU-R BT.709: Y = 0.2125 R + 0.7154 G + 0.0721 B. */
export function luma({ width, height, data }: Picture): Plane {
  const plane = new Float64Array(width * height);
  for (let i = 0; i < plane.length; i += 1) {
    plane[i] = 0.2125 * data[3 * i]! + 0.7154 * data[3 * i + 1]! + 0.0721 * data[3 * i + 2]!;
  }
  return { width, height, data: plane };
}

function expectSameSize(metric: string, a: Plane, b: Plane): void {
  if (a.width !== b.width || a.height !== b.height) {
    throw new RangeError(
      `${metric}: expected two pictures of one size; got ${a.width} x ${a.height} and ${b.width} x ${b.height}`,
    );
  }
}

/** Root of the mean squared difference. @throws {RangeError} when the sizes differ */
export function rmse(a: Plane, b: Plane): number {
  expectSameSize('rmse', a, b);
  const squares = a.data.reduce((sum, value, i) => sum + (value - b.data[i]!) ** 2, 0);
  return Math.sqrt(squares / a.data.length);
}

/** Peak signal-to-noise ratio in decibels, 20 log10(1 / rmse): Infinity for equal pictures. @throws {RangeError} */
export function psnr(a: Plane, b: Plane): number {
  expectSameSize('psnr', a, b);
  return -20 * Math.log10(rmse(a, b));
}

const windowSize = 7;
const c1 = 0.01 ** 2;
const c2 = 0.03 ** 2;

/**
 * Structural similarity (Wang et al. 2004, eq. (13)): the mean, over all 7 x 7 windows inside the picture, of
 *
 *     (2 mx my + c1) (2 sxy + c2) / ((mx^2 + my^2 + c1) (sx^2 + sy^2 + c2)),   c1 = 0.01^2, c2 = 0.03^2
 *
 * with unweighted windows and sample covariances (n - 1), as scikit-image has it. In [-1, 1]; 1 for equal pictures.
 * @throws {RangeError} when the sizes differ or a side is below 7
 */
export function ssim(a: Plane, b: Plane): number {
  expectSameSize('ssim', a, b);
  const { width, height } = a;
  if (Math.min(width, height) < windowSize) {
    throw new RangeError(`ssim: expected at least ${windowSize} pixels a side; got ${width} x ${height}`);
  }
  const n = windowSize ** 2;
  const product = (x: Plane, y: Plane): Plane => ({
    ...x,
    data: x.data.map((value, i) => value * y.data[i]!),
  });
  const sums = [a, b, product(a, a), product(b, b), product(a, b)].map(windowSums);
  let total = 0;
  const windows = sums[0]!.length;
  for (let i = 0; i < windows; i += 1) {
    const [sa, sb, saa, sbb, sab] = sums.map((sum) => sum[i]!) as [number, number, number, number, number];
    const [ma, mb] = [sa / n, sb / n];
    const covariance = (sum: number, x: number, y: number): number => (sum - n * x * y) / (n - 1);
    const [va, vb, vab] = [covariance(saa, ma, ma), covariance(sbb, mb, mb), covariance(sab, ma, mb)];
    total += ((2 * ma * mb + c1) * (2 * vab + c2)) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
  }
  return total / windows;
}

/** The sum of each window that lies inside the plane. */
function windowSums({ width, height, data }: Plane): Float64Array {
  const columns = width - windowSize + 1;
  const rows = height - windowSize + 1;
  const across = new Float64Array(columns * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < columns; x += 1) {
      for (let k = 0; k < windowSize; k += 1) across[y * columns + x]! += data[y * width + x + k]!;
    }
  }
  const sums = new Float64Array(columns * rows);
  for (let y = 0; y < rows; y += 1) {
    for (let x = 0; x < columns; x += 1) {
      for (let k = 0; k < windowSize; k += 1) sums[y * columns + x]! += across[(y + k) * columns + x]!;
    }
  }
  return sums;
}
