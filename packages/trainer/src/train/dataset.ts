/**
 * Which pictures a step takes. Each epoch is a shuffle of its own, a pure function of (seed, epoch), and batches run
 * across epochs, so nothing is dropped and a resumed run meets the pictures in the order it would have.
 */
import { type PictureSize, type Planes, sizeInWords } from '../data/index.ts';
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
  /** Its size in pixels, where that is not the square that the model draws. */
  readonly bucket?: PictureSize;
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

/** Items by the size that they have in common, each a list of places; the first size met comes first. */
export function bucketsOf(items: readonly Pick<Captioned, 'bucket'>[]): number[][] {
  const buckets = new Map<string, number[]>();
  for (const [i, { bucket }] of items.entries()) {
    const key = bucket ? sizeInWords(bucket) : '';
    const known = buckets.get(key) ?? [];
    known.push(i);
    buckets.set(key, known);
  }
  return [...buckets.values()];
}

/**
 * The items of step `step` where a batch is of one bucket. An epoch has every bucket's batches in an order of its own; the
 * last batch of a bucket is filled up from the beginning of its order.
 */
export function bucketedItemsOfStep(
  buckets: readonly (readonly number[])[],
  batchSize: number,
  seed: number,
  step: number,
): number[] {
  if (buckets.length === 1) return itemsOfStep(buckets[0]!.length, batchSize, seed, step);
  const batches = buckets.flatMap((items, bucket) =>
    Array.from({ length: Math.ceil(items.length / batchSize) }, (_, part) => ({ bucket, part })),
  );
  const epoch = Math.floor(step / batches.length);
  const { bucket, part } = batches[shuffled(batches.length, seed ^ 0xb0c, epoch)[step % batches.length]!]!;
  const items = buckets[bucket]!;
  const order = shuffled(items.length, (seed ^ Math.imul(bucket + 1, 0x9e3779b1)) >>> 0, epoch);
  return Array.from({ length: batchSize }, (_, i) => items[order[(part * batchSize + i) % items.length]!]!);
}

/** For each bucket, the first step whose batch is of it. */
export function firstSteps(
  buckets: readonly (readonly number[])[],
  batchSize: number,
  seed: number,
): number[] {
  return buckets.map((items) => {
    let step = 0;
    while (!items.includes(bucketedItemsOfStep(buckets, batchSize, seed, step)[0]!)) step += 1;
    return step;
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
  /** Channels, height and width of what is stored of a picture of the size, or of the model's square. */
  readonly shapeOf: (bucket?: PictureSize) => readonly number[];
}

/** The batch of a step. */
export function captionedBatch(
  items: readonly Captioned[],
  { batchSize, captionDropout, seed, objective, noise, augmentation, shapeOf }: BatchOptions,
  step: number,
): Batch {
  const taken = bucketedItemsOfStep(bucketsOf(items), batchSize, seed, step);
  const { pixels: first, input: named, bucket } = items[taken[0]!]!;
  const shape = shapeOf(bucket);
  const size = first.length;
  const pictures = new Float32Array(batchSize * size);
  const inputs = named && new Float32Array(batchSize * named.length);
  const captions: string[] = [];
  const places = Array.from({ length: batchSize }, (_, i) => step * batchSize + i);
  taken.forEach((item, i) => {
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
    shape,
    captions,
    ...(inputs && { inputs }),
    ...drawNoise(objective, noise, seed, places, shape),
  };
}
