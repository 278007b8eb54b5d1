/** What one training step sees: captioned pictures and the noise that is laid over them. */
import { type Tensor, tensor } from '@deftjs/tensor';
import type { TextToImage } from '../base/textToImage.ts';
import type { Noise } from '../diffusion/objective.ts';

/** On the host. */
export interface Batch extends Noise {
  /** [B, 3, H, W] in [-1, 1]. */
  readonly pictures: Float32Array;
  /** One for each; '' where it is left out. */
  readonly captions: readonly string[];
}

/** As tensors: pictures and noise [B, 3, H, W], levels [B, 6], tokens [B, L]. */
export type BatchTensors = {
  readonly pictures: Tensor;
  readonly noise: Tensor;
  readonly levels: Tensor;
  readonly tokens: Tensor;
};

/** The batch as the model takes it. */
export function batchTensors({ pictures, noise, levels, captions }: Batch, model: TextToImage): BatchTensors {
  const count = captions.length;
  const shape = [count, 3, model.pictureSize, model.pictureSize];
  return {
    pictures: tensor(pictures, shape),
    noise: tensor(noise, shape),
    levels: tensor(levels, [count, levels.length / count]),
    tokens: model.tokenize(captions),
  };
}
