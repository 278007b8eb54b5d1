/** Batches of the picture world: picture i of the world is a pure function of (seed, i), and step k takes the k-th run of them. */
import { drawNoise, flow } from '../diffusion/objective.ts';
import type { Batch } from '../train/batch.ts';
import { caption, draws, renderScene, sampleScene, toPlanes } from '../world/index.ts';

export interface WorldBatches {
  readonly worldSeed: number;
  readonly seed: number;
  readonly batchSize: number;
  /** Pixels across. */
  readonly size: number;
  /** How often the caption is left out, so that the network also learns to draw without one (guidance needs it). */
  readonly captionDropout: number;
}

const plain = { sampling: null, minSnrGamma: null, offset: 0 } as const;

/** The batch of a step. */
export function worldBatch(
  { worldSeed, seed, batchSize, size, captionDropout }: WorldBatches,
  step: number,
): Batch {
  const numbers = 3 * size * size;
  const pictures = new Float32Array(batchSize * numbers);
  const captions: string[] = [];
  const places = Array.from({ length: batchSize }, (_, b) => step * batchSize + b);
  places.forEach((index, b) => {
    const scene = sampleScene(worldSeed, index);
    pictures.set(toPlanes(renderScene(scene, size)), b * numbers);
    const dropped = draws(seed ^ 0xd20b, index).chance(captionDropout);
    captions.push(dropped ? '' : caption(scene, worldSeed, index));
  });
  return { pictures, captions, ...drawNoise(flow, plain, seed, places, [3, size, size]) };
}
