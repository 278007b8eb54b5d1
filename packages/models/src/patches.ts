/**
 * Pictures as tokens: square patches of p x p pixels in reading order, and where they lie.
 *
 *   B batch, C channels, H W pixels, h = H / p, w = W / p
 */
import { formatShape, permute, reshape, ShapeError, type Tensor, tensor } from '@deftjs/tensor';

/** Which of a patch's axes a token runs through first: pixel rows p, pixel columns q, channels c; the last one fastest. */
export type PatchOrder = 'pqc' | 'cpq';

/** Height and width in patches of pictures [B, C, H, W]. @throws ShapeError naming the model when they do not divide */
export function patchGrid(model: string, sample: Tensor, channels: number, size: number): [number, number] {
  const [, c, height = 0, width = 0] = sample.shape;
  if (sample.rank !== 4 || c !== channels || height % size !== 0 || width % size !== 0) {
    const expected = `[B, ${channels}, H, W] with H and W multiples of ${size}`;
    throw new ShapeError(`${model}: expected ${expected}; got ${formatShape(sample.shape)}`);
  }
  return [height / size, width / size];
}

/** [B, C, h p, w p] -> tokens [B, h w, p p C]. */
export function patchify(x: Tensor, size: number, order: PatchOrder): Tensor {
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const [rows, columns] = [height / size, width / size];
  const split = reshape(x, [batch, channels, rows, size, columns, size]);
  const axes = order === 'pqc' ? [0, 2, 4, 3, 5, 1] : [0, 2, 4, 1, 3, 5];
  return reshape(permute(split, axes), [batch, rows * columns, channels * size * size]);
}

/** The inverse of `patchify`: tokens [B, h w, p p C] -> [B, C, h p, w p]. */
export function unpatchify(
  tokens: Tensor,
  [rows, columns]: readonly [number, number],
  size: number,
  order: PatchOrder,
): Tensor {
  const [batch, , width] = tokens.shape as [number, number, number];
  const channels = width / size ** 2;
  const [inPatch, axes] =
    order === 'pqc'
      ? [
          [size, size, channels],
          [0, 5, 1, 3, 2, 4],
        ]
      : [
          [channels, size, size],
          [0, 3, 1, 4, 2, 5],
        ];
  const split = reshape(tokens, [batch, rows, columns, ...inPatch]);
  return reshape(permute(split, axes), [batch, channels, rows * size, columns * size]);
}

/**
 * Sinusoidal positions of a grid's cells, in reading order (ViT; Vaswani et al. 2017, section 3.5, for either axis):
 * the first half of the channels tells the column x, the second the row y, each as sin and then cos of
 * x 10000^(-i / (C / 4)), i = 0 ... C / 4 - 1.
 *
 * @param baseSize a side of the grid whose cells are one apart; other grids are stretched to its size
 * @returns f32 [rows columns, C], computed in float64
 * @throws ShapeError when the channels are no multiple of 4
 */
export function gridPositions(channels: number, rows: number, columns: number, baseSize: number): Tensor {
  if (channels % 4 !== 0) {
    throw new ShapeError(`gridPositions: expected channels in multiples of 4; got ${channels}`);
  }
  const quarter = channels / 4;
  const values = new Float32Array(rows * columns * channels);
  for (let cell = 0; cell < rows * columns; cell += 1) {
    const x = ((cell % columns) * baseSize) / columns;
    const y = (Math.floor(cell / columns) * baseSize) / rows;
    for (const [half, place] of [x, y].entries()) {
      for (let i = 0; i < quarter; i += 1) {
        const angle = place * 10000 ** (-i / quarter);
        const at = cell * channels + half * 2 * quarter + i;
        values[at] = Math.sin(angle);
        values[at + quarter] = Math.cos(angle);
      }
    }
  }
  return tensor(values, [rows * columns, channels]);
}
