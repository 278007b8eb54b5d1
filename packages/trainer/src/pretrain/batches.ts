/** Batches of the picture world: picture i of the world is a pure function of (seed, i), and step k takes the k-th run of them. */
import { drawNoise, type Objective } from '../diffusion/objective.ts';
import type { Batch } from '../train/batch.ts';
import {
  caption,
  draws,
  instructionOf,
  type PictureTask,
  renderScene,
  sampleScene,
  toPlanes,
} from '../world/index.ts';
import { blended, pictureExample } from './tasks.ts';

export interface WorldBatches {
  readonly worldSeed: number;
  readonly seed: number;
  readonly batchSize: number;
  /** Pixels across. */
  readonly size: number;
  /** How often the caption is left out, so that the network also learns to draw without one (guidance needs it). */
  readonly captionDropout: number;
  readonly objective: Objective;
}

const plain = { sampling: null, minSnrGamma: null, offset: 0 } as const;

/** What a model that reads pictures is taught. */
export interface InstructionMix {
  /** How often it is the task without pictures, the world's captions; `tasks` share the rest. */
  readonly textShare: number;
  readonly tasks: readonly PictureTask[];
  /** How often the edges or the depth map are mixed with the picture asked for, which shows where in them to look. */
  readonly blend: number;
}

/**
 * The batch of a step of a model that reads pictures: one task for all of it, since their sequences differ in length.
 */
export function instructionBatch(
  batches: WorldBatches,
  { textShare, tasks, blend }: InstructionMix,
  step: number,
): Batch {
  const draw = draws(batches.seed ^ 0x7a5c, step);
  return draw.chance(textShare)
    ? worldBatch(batches, step)
    : pictureBatch(batches, step, draw.pick(tasks), blend);
}

function pictureBatch(
  { worldSeed, seed, batchSize, size, captionDropout, objective }: WorldBatches,
  step: number,
  task: PictureTask,
  blend: number,
): Batch {
  const numbers = 3 * size * size;
  const pictures = new Float32Array(batchSize * numbers);
  const inputs = new Float32Array(batchSize * numbers);
  const places = Array.from({ length: batchSize }, (_, b) => step * batchSize + b);
  const captions = places.map((index, b) => {
    const example = pictureExample(task, worldSeed, index, size);
    pictures.set(toPlanes(example.target), b * numbers);
    const mix = draws(seed ^ 0xb1e4, index);
    const isMixed = (task === 'canny' || task === 'depth') && mix.chance(blend);
    const input = isMixed ? blended(example.input, example.target, mix.uniform()) : example.input;
    inputs.set(toPlanes(input), b * numbers);
    const dropped = draws(seed ^ 0xd20b, index).chance(captionDropout);
    return instructionOf(task, dropped ? '' : example.caption);
  });
  return { pictures, inputs, captions, ...drawNoise(objective, plain, seed, places, [3, size, size]) };
}

/** The batch of a step: captioned pictures. */
export function worldBatch(
  { worldSeed, seed, batchSize, size, captionDropout, objective }: WorldBatches,
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
  return { pictures, captions, ...drawNoise(objective, plain, seed, places, [3, size, size]) };
}
