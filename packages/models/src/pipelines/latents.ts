/** What pipelines do with latents: sizes, seeds, where drawing begins, and the way from and to pictures. */
import {
  add,
  clamp,
  compile,
  concat,
  type Device,
  evaluate,
  formatShape,
  mul,
  narrow,
  ShapeError,
  sub,
  type Tensor,
} from '@deftjs/tensor';
import type { AutoencoderKL } from '../vae.ts';

/** What all pictures of one drawing share, whatever the pipeline. */
export interface DrawOptions {
  /** One seed for each picture: it alone decides the noise. */
  readonly seeds: readonly number[];
  readonly steps: number;
  /** Pixels; default: what the denoiser was trained on. */
  readonly size?: { readonly width: number; readonly height: number };
  /** Pictures to begin from instead of noise alone; they decide the size. */
  readonly from?: StartingPictures;
  /** Standard normal latents [N, Z, h, w] to begin with; default: drawn from the seeds. */
  readonly start?: Tensor;
  readonly device?: Device;
}

/** Picture to picture (SDEdit, arXiv 2108.01073): the last part of the steps, from pictures with that much noise. */
export interface StartingPictures {
  /** [N, C, H, W] in [0, 1]. */
  readonly pictures: Tensor;
  /** The part of the steps that are taken, in (0, 1]: how far the result may be from the pictures. */
  readonly strength: number;
}

/** @throws RangeError when there is not one seed for each of `count` pictures */
export function expectSeeds(pipeline: string, seeds: readonly number[], count: number): void {
  if (seeds.length !== count) {
    throw new RangeError(`${pipeline}: expected ${count} seeds, one for each prompt; got ${seeds.length}`);
  }
}

/** How many of the steps are left out where drawing begins from pictures. @throws RangeError when none would be left */
export function skippedSteps(pipeline: string, steps: number, from: StartingPictures | undefined): number {
  if (from === undefined) return 0;
  const taken = Math.floor(Math.min(steps * from.strength, steps));
  if (!(taken >= 1) || from.strength > 1) {
    throw new RangeError(
      `${pipeline}: expected a strength in [1 / steps, 1]; got ${from.strength} of ${steps} steps`,
    );
  }
  return steps - taken;
}

/**
 * Height and width of the latents of pictures.
 * @param sampleSize latents across the pictures that the denoiser was trained on
 * @param patch latents across a patch, of which pictures must have whole ones
 * @throws ShapeError
 */
export function latentSize(
  pipeline: string,
  vae: AutoencoderKL,
  { size, from }: Pick<DrawOptions, 'size' | 'from'>,
  sampleSize: number,
  patch = 1,
): [height: number, width: number] {
  const factor = vae.factor * patch;
  const [height, width] = from
    ? (from.pictures.shape.slice(2) as [number, number])
    : [size?.height ?? sampleSize * vae.factor, size?.width ?? sampleSize * vae.factor];
  if (height % factor !== 0 || width % factor !== 0 || !(height > 0) || !(width > 0)) {
    throw new ShapeError(
      `${pipeline}: expected a size in multiples of ${factor} pixels; got ${width} x ${height}`,
    );
  }
  return [height / vae.factor, width / vae.factor];
}

/**
 * Latents of pictures [N, C, H, W] in [0, 1] as a denoiser knows them [N, Z, h, w], evaluated: the means of their
 * distributions, so that nothing but the seed is random.
 * @throws ShapeError
 */
export async function encodePictures(vae: AutoencoderKL, pictures: Tensor, device: Device): Promise<Tensor> {
  if (pictures.rank !== 4)
    throw new ShapeError(`pictures: expected [N, C, H, W]; got ${formatShape(pictures.shape)}`);
  const encode = compile((one: Tensor) => vae.scale(vae.encode(sub(mul(one, 2), 1)).mean), { device });
  const latents = await eachAlone(encode, pictures, device);
  encode.dispose();
  return latents;
}

/** Pictures of latents [N, Z, h, w], one after another, which takes the memory of one: [N, 3, H, W] in [0, 1], evaluated. */
export async function decodeLatents(vae: AutoencoderKL, latents: Tensor, device: Device): Promise<Tensor> {
  const decode = compile((one: Tensor) => clamp(add(mul(vae.decode(vae.unscale(one)), 0.5), 0.5), 0, 1), {
    device,
  });
  const pictures = await eachAlone(decode, latents, device);
  decode.dispose();
  return pictures;
}

async function eachAlone(
  change: (one: Tensor) => Promise<Tensor>,
  all: Tensor,
  device: Device,
): Promise<Tensor> {
  const changed: Tensor[] = [];
  for (let i = 0; i < all.shape[0]!; i += 1) {
    using one = narrow(all, 0, i, 1);
    changed.push(await change(one));
  }
  const joined = concat(changed);
  await evaluate([joined], device);
  for (const spent of changed) if (spent !== joined) spent.dispose(); // the only one is its own concatenation
  return joined;
}
