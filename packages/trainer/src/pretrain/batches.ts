/** Batches of the picture world: picture i of the world is a pure function of (seed, i), and step k takes the k-th run of them. */
import { drawFlowNoise } from '../diffusion/flow.ts';
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

/** The batch of a step. */
export function worldBatch(
  { worldSeed, seed, batchSize, size, captionDropout }: WorldBatches,
  step: number,
): Batch {
  const numbers = 3 * size * size;
  const pictures = new Float32Array(batchSize * numbers);
  const captions: string[] = [];
  for (let b = 0; b < batchSize; b += 1) {
    const index = step * batchSize + b;
    const scene = sampleScene(worldSeed, index);
    pictures.set(toPlanes(renderScene(scene, size)), b * numbers);
    const dropped = draws(seed ^ 0xd20b, index).chance(captionDropout);
    captions.push(dropped ? '' : caption(scene, worldSeed, index));
  }
  return { pictures, captions, ...drawFlowNoise(seed, step, batchSize, numbers) };
}
