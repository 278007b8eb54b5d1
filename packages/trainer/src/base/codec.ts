/**
 * What stands between pictures and the numbers a denoiser works on. The shipped base has the smallest exact one: blocks
 * of f x f pixels become channels (a "VAE" without loss), so that the network has a quarter of the places to visit.
 */
import { pixelShuffle, pixelUnshuffle, type Tensor } from '@deftjs/tensor';

export interface Codec {
  /** Pixels across one place of the network's grid. */
  readonly factor: number;
  /** Pictures [B, 3, H, W] in [-1, 1] to [B, 3 f^2, H/f, W/f]. */
  encode(pictures: Tensor): Tensor;
  /** The inverse. */
  decode(latents: Tensor): Tensor;
}

/** The exact codec of blocks of `factor` x `factor` pixels. */
export function blockCodec(factor: number): Codec {
  return {
    factor,
    encode: (pictures) => pixelUnshuffle(pictures, factor),
    decode: (latents) => pixelShuffle(latents, factor),
  };
}
