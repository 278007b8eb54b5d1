/** Pictures of prompts, drawn by a text-to-image model. */
import { loadState, setTraining, stateOf } from '@deftjs/autograd/nn';
import { type Device, read, type Tensor, tensor } from '@deftjs/tensor';
import type { PromptSamples } from '../metrics/index.ts';
import { fromPlanes, type Picture, toPlanes } from '../world/index.ts';
import type { TextToImage } from './textToImage.ts';

export interface DrawOptions {
  readonly prompts: readonly string[];
  /** Each prompt is drawn once for each seed; the same seed is the same noise for every prompt. */
  readonly seeds: readonly number[];
  readonly steps: number;
  readonly guidanceScale: number;
  readonly imageGuidanceScale?: number;
  /** The picture that each prompt names, where the model reads pictures; default: they name none. */
  readonly inputs?: readonly Picture[];
  readonly device: Device;
}

/** The model's pictures of each prompt, one for each seed: as in evaluation, whatever the model is at. */
export async function drawPrompts(model: TextToImage, options: DrawOptions): Promise<PromptSamples[]> {
  const { training } = model;
  setTraining(model, false);
  try {
    return await drawAll(model, options);
  } finally {
    setTraining(model, training);
  }
}

async function drawAll(model: TextToImage, options: DrawOptions): Promise<PromptSamples[]> {
  const { prompts, seeds, steps, guidanceScale, imageGuidanceScale, inputs, device } = options;
  const size = model.pictureSize;
  const planes = inputs?.flatMap((input) => seeds.map(() => toPlanes(input)));
  using pictured =
    planes &&
    tensor(
      planes.flatMap((x) => [...x]),
      [planes.length, 3, size, size],
    );
  using drawn = await model.draw({
    prompts: prompts.flatMap((prompt) => seeds.map(() => prompt)),
    seeds: prompts.flatMap(() => seeds),
    steps,
    guidanceScale,
    ...(imageGuidanceScale !== undefined && { imageGuidanceScale }),
    ...(pictured && { inputs: pictured }),
    size,
    device,
  });
  const numbers = (await read(drawn)) as Float32Array;
  const picture = (i: number) => {
    return fromPlanes(numbers.slice(3 * size * size * i, 3 * size * size * (i + 1)), size, size);
  };
  return prompts.map((prompt, p) => ({
    prompt,
    ...(inputs && { input: inputs[p]! }),
    pictures: seeds.map((_, s) => picture(p * seeds.length + s)),
  }));
}

/** The result of `run` while the model has these weights at their paths. */
export async function withWeights<R>(
  model: TextToImage,
  weights: Readonly<Record<string, Tensor>>,
  run: () => Promise<R>,
): Promise<R> {
  const before = stateOf(model, (path) => path in weights);
  loadState(model, weights, true);
  try {
    return await run();
  } finally {
    loadState(model, before, true);
  }
}
