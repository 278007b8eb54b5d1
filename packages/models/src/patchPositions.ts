/**
 * Learned positions of the patches of a picture, and what they are for pictures of another size: the grid of positions
 * resampled bicubically, as transformers does with PyTorch's interpolate(mode="bicubic", align_corners=False).
 *
 *   y_i = sum_k w(u_i - k) x_k,   u_i = (i + 1/2) n / m - 1/2                                  (1)
 *
 * from n to m places, with Keys' kernel w (IEEE TASSP 29(6), 1981) at a = -3/4; places beyond the ends count as the
 * end. There is no smoothing when the grid shrinks.
 */
import { concat, matmul, narrow, permute, reshape, type Tensor, tensor } from '@deftjs/tensor';

const a = -0.75;

/** Keys' cubic convolution kernel. */
function kernel(distance: number): number {
  const x = Math.abs(distance);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

/** The matrix of (1): m x n. */
export function bicubicWeights(from: number, to: number): Float32Array {
  const weights = new Float32Array(to * from);
  for (let i = 0; i < to; i += 1) {
    const u = ((i + 0.5) * from) / to - 0.5;
    for (let k = Math.floor(u) - 1; k <= Math.floor(u) + 2; k += 1) {
      weights[i * from + Math.min(from - 1, Math.max(0, k))]! += kernel(u - k);
    }
  }
  return weights;
}

/**
 * Positions [1, 1 + s s, C] of a class token and a square grid of patches, for a grid of other height and width:
 * [1, 1 + height width, C].
 */
export function patchPositions(positions: Tensor, height: number, width: number): Tensor {
  const [, count, channels] = positions.shape as [number, number, number];
  const side = Math.round(Math.sqrt(count - 1));
  if (height === side && width === side) return positions;
  const grid = reshape(narrow(positions, 1, 1, count - 1), [side, side * channels]);
  const tall = matmul(tensor(bicubicWeights(side, height), [height, side]), grid); // [height, s C]
  const columns = permute(reshape(tall, [height, side, channels]), [1, 0, 2]); // [s, height, C]
  const wide = matmul(
    tensor(bicubicWeights(side, width), [width, side]),
    reshape(columns, [side, height * channels]),
  ); // [width, height C]
  const patches = permute(reshape(wide, [width, height, channels]), [1, 0, 2]); // [height, width, C]
  return concat([narrow(positions, 1, 0, 1), reshape(patches, [1, height * width, channels])], 1);
}
