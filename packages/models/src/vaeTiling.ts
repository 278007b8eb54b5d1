/**
 * The autoencoder on pictures that are too large for one pass, as diffusers' AutoencoderKL does with tiling on: tiles
 * that overlap are coded one after another, and where two overlap the result goes over linearly from one to the other.
 *
 *   y_k = (1 - k/n) a_k + (k/n) b_k,   k = 0 .. n - 1 across the overlap of tile a and the next tile b             (1)
 *
 * Each tile is normalised by itself, so a seamless blend is not the result of one pass; for what fits one tile it is.
 * The batch is sliced: one picture at a time.
 */
import {
  add,
  clamp,
  compile,
  concat,
  type Device,
  evaluate,
  getDevice,
  iota,
  mul,
  narrow,
  scope,
  split,
  type Tensor,
} from '@deftjs/tensor';
import type { AutoencoderKL, Posterior } from './vae.ts';

export interface TilingOptions {
  /** Pixels across a tile, a multiple of the autoencoder's factor; default: 512. */
  readonly tileSize?: number;
  /** The share of a tile that the next one overlaps, in (0, 1); default: 1/4. */
  readonly overlap?: number;
  readonly device?: Device;
}

/** How tiles lie: their size, how far apart they begin, and how much larger they come out. */
interface Tiling {
  readonly size: number;
  readonly stride: number;
  readonly ratio: number;
}

/**
 * The function applied to overlapping tiles [1, C, size, size] of x [1, C, H, W], which each come out at
 * `ratio` times the size, and the results blended: (1).
 */
async function inTiles(
  code: (tile: Tensor) => Promise<Tensor>,
  x: Tensor,
  { size, stride, ratio }: Tiling,
  device: Device,
): Promise<Tensor> {
  const [, , height, width] = x.shape as [number, number, number, number];
  const [kept, overlap] = [stride * ratio, (size - stride) * ratio];
  const bands: Tensor[] = [];
  let above: Tensor[] = [];
  for (let top = 0; top < height; top += stride) {
    const row: Tensor[] = [];
    for (let left = 0; left < width; left += stride) {
      const part = narrow(
        narrow(x, 2, top, Math.min(size, height - top)),
        3,
        left,
        Math.min(size, width - left),
      );
      await evaluate([part], device);
      let tile = await code(part);
      part.dispose();
      if (top > 0) tile = blend(above[row.length]!, tile, overlap, 2);
      if (left > 0) tile = blend(row.at(-1)!, tile, overlap, 3);
      await evaluate([tile], device);
      row.push(tile);
    }
    const cut = row.map((tile) =>
      [2, 3].reduce((y, axis) => narrow(y, axis, 0, Math.min(kept, y.shape[axis]!)), tile),
    );
    const band = concat(cut, 3);
    await evaluate([band], device);
    bands.push(band);
    above = row;
  }
  const whole = concat(bands, 2);
  await evaluate([whole], device);
  return whole;
}

/** The tile whose beginning along the axis goes over from the end of the tile before it: (1). */
function blend(before: Tensor, tile: Tensor, overlap: number, axis: 2 | 3): Tensor {
  const extent = Math.min(before.shape[axis]!, tile.shape[axis]!, overlap);
  const ramp = mul(iota(axis === 2 ? [1, 1, extent, 1] : [1, 1, 1, extent], axis, 'f32'), 1 / extent);
  const end = narrow(before, axis, before.shape[axis]! - extent, extent);
  const mixed = add(end, mul(add(narrow(tile, axis, 0, extent), mul(end, -1)), ramp));
  const rest = tile.shape[axis]! - extent;
  return rest === 0 ? mixed : concat([mixed, narrow(tile, axis, extent, rest)], axis);
}

/** One picture of the batch after another through the function. */
async function oneByOne(x: Tensor, device: Device, code: (one: Tensor) => Promise<Tensor>): Promise<Tensor> {
  return scope(async () => {
    const results: Tensor[] = [];
    for (let i = 0; i < x.shape[0]!; i += 1) {
      const one = narrow(x, 0, i, 1);
      await evaluate([one], device);
      results.push(await scope(() => code(one)));
    }
    const all = concat(results);
    await evaluate([all], device);
    return all;
  });
}

/** Size and stride of tiles in latents. @throws RangeError */
function tilesOf(
  op: string,
  { factor }: AutoencoderKL,
  options: TilingOptions,
): { size: number; stride: number } {
  const { tileSize = 512, overlap = 0.25 } = options;
  if (!Number.isInteger(tileSize) || tileSize <= 0 || tileSize % factor !== 0) {
    throw new RangeError(`${op}: tileSize: expected a multiple of ${factor} pixels; got ${tileSize}`);
  }
  const size = tileSize / factor;
  const stride = Math.trunc(size * (1 - overlap));
  if (!(overlap > 0 && stride > 0)) {
    throw new RangeError(`${op}: overlap: expected a part of the ${size} latents of a tile; got ${overlap}`);
  }
  return { size, stride };
}

/**
 * Pictures of latents [B, Z, h, w], decoded in tiles: [B, C, f h, f w], evaluated. The memory is that of one tile.
 * @throws RangeError when tile size or overlap do not fit the autoencoder
 */
export async function decodeInTiles(
  vae: AutoencoderKL,
  latents: Tensor,
  options: TilingOptions = {},
): Promise<Tensor> {
  const device = options.device ?? getDevice();
  const { size, stride } = tilesOf('decodeInTiles', vae, options);
  const decode = compile((tile: Tensor) => vae.decode(tile), { device });
  const tiling = { size, stride, ratio: vae.factor };
  try {
    return await oneByOne(latents, device, (one) => inTiles(decode, one, tiling, device));
  } finally {
    decode.dispose();
  }
}

/**
 * The distribution of the latents of pictures [B, C, H, W], encoded in tiles; both tensors evaluated.
 * @throws RangeError when tile size or overlap do not fit the autoencoder; ShapeError as `AutoencoderKL.encode`
 */
export async function encodeInTiles(
  vae: AutoencoderKL,
  pictures: Tensor,
  options: TilingOptions = {},
): Promise<Posterior> {
  const device = options.device ?? getDevice();
  const { size, stride } = tilesOf('encodeInTiles', vae, options);
  const encode = compile(
    (tile: Tensor) => {
      const { mean, logvar } = vae.encode(tile);
      return concat([mean, logvar], 1);
    },
    { device },
  );
  const { factor } = vae;
  const tiling = { size: size * factor, stride: stride * factor, ratio: 1 / factor };
  try {
    using moments = await oneByOne(pictures, device, (one) => inTiles(encode, one, tiling, device));
    const [mean, logvar] = split(moments, 2, 1) as [Tensor, Tensor];
    const posterior = { mean, logvar: clamp(logvar, -30, 20) };
    await evaluate([posterior.mean, posterior.logvar], device);
    return posterior;
  } finally {
    encode.dispose();
  }
}
