/** What one training step sees: captioned pictures and the noise that is laid over them. */
import { type Tensor, tensor } from '@deftjs/tensor';
import type { FlowNoise } from '../diffusion/flow.ts';
import { maxTokens } from '../world/index.ts';

/** On the host. */
export interface Batch extends FlowNoise {
  /** [B, 3, H, W] in [-1, 1]. */
  readonly pictures: Float32Array;
  /** [B, maxTokens]. */
  readonly tokens: Int32Array;
}

/** As tensors: pictures and noise [B, 3, H, W], levels [B], tokens [B, maxTokens]. */
export type BatchTensors = {
  readonly pictures: Tensor;
  readonly noise: Tensor;
  readonly levels: Tensor;
  readonly tokens: Tensor;
};

/** The batch of pictures of `size` x `size` pixels on its way to the device. */
export function batchTensors({ pictures, noise, levels, tokens }: Batch, size: number): BatchTensors {
  const count = levels.length;
  const shape = [count, 3, size, size];
  return {
    pictures: tensor(pictures, shape),
    noise: tensor(noise, shape),
    levels: tensor(levels, [count]),
    tokens: tensor(tokens, [count, maxTokens]),
  };
}
