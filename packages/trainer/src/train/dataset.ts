/**
 * Which pictures a step takes. Each epoch is a shuffle of its own, a pure function of (seed, epoch), and batches run
 * across epochs, so nothing is dropped and a resumed run meets the pictures in the order it would have.
 */
import type { Planes } from '../data/index.ts';
import { drawNoise, type NoiseOptions, type Objective } from '../diffusion/objective.ts';
import { draws, picturesOnly } from '../world/index.ts';
import { type Augmentation, augmented } from './augment.ts';
import type { Batch } from './batch.ts';

/** A captioned picture, as the model stores it: 3 x size x size numbers in [-1, 1], or latents. */
export interface Captioned {
  readonly pixels: Float32Array;
  /** Of the mirrored picture, where that is not `pixels` mirrored: the latents of a VAE. */
  readonly mirrored?: Float32Array;
  readonly caption: string;
  /** All of a picture of which `pixels` are the middle. */
  readonly whole?: Planes;
  /** The picture that the caption names, in pixels; absent where it names none. */
  readonly input?: Float32Array;
}

/** The order of `count` items in an epoch: Fisher and Yates. */
export function shuffled(count: number, seed: number, epoch: number): number[] {
  const draw = draws(seed, epoch);
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i -= 1) {
    const j = Math.floor(draw.uniform() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** The items of step `step`, `batchSize` of them. */
export function itemsOfStep(count: number, batchSize: number, seed: number, step: number): number[] {
  const orders = new Map<number, readonly number[]>(); // of the epochs that the batch runs across
  return Array.from({ length: batchSize }, (_, i) => {
    const position = step * batchSize + i;
    const epoch = Math.floor(position / count);
    const order = orders.get(epoch) ?? shuffled(count, seed, epoch);
    orders.set(epoch, order);
    return order[position % count]!;
  });
}

export interface BatchOptions {
  readonly batchSize: number;
  readonly captionDropout: number;
  readonly seed: number;
  readonly objective: Objective;
  readonly noise: NoiseOptions;
  /** null: pictures and captions as they are. */
  readonly augmentation: Augmentation | null;
  /** Of a picture: channels, height and width. */
  readonly shape: readonly number[];
}

/** The batch of a step. */
export function captionedBatch(
  items: readonly Captioned[],
  { batchSize, captionDropout, seed, objective, noise, augmentation, shape }: BatchOptions,
  step: number,
): Batch {
  const size = items[0]!.pixels.length;
  const pictures = new Float32Array(batchSize * size);
  const inputs = items[0]!.input && new Float32Array(batchSize * items[0]!.input.length);
  const captions: string[] = [];
  const places = Array.from({ length: batchSize }, (_, i) => step * batchSize + i);
  itemsOfStep(items.length, batchSize, seed, step).forEach((item, i) => {
    const { pixels, caption, input } = augmentation
      ? augmented(items[item]!, shape.at(-1)!, augmentation, draws(seed ^ 0xa06, places[i]!))
      : items[item]!;
    const dropped = draws(seed ^ 0xd20b, places[i]!).chance(captionDropout);
    pictures.set(pixels, i * size);
    captions.push(dropped ? picturesOnly(caption) : caption);
    if (input) inputs?.set(input, i * input.length);
  });
  return {
    pictures,
    captions,
    ...(inputs && { inputs }),
    ...drawNoise(objective, noise, seed, places, shape),
  };
}
