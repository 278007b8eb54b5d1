/**
 * The training objective of rectified flow (Liu et al. 2022; Esser et al. 2024): with noise level s in (0, 1),
 *
 *     x_s = (1 - s) x0 + s eps,     loss = mean |network(x_s, 1000 s, caption) - (eps - x0)|^2           (1)
 *
 * Levels are drawn logit-normal, s = sigmoid(N(0, 1)): most training goes where the task is hardest. All randomness is
 * drawn on the host as a pure function of (seed, step), so that a resumed run sees the numbers it would have seen.
 */
import { type Denoiser, logitNormalLevels } from '@deftjs/models';
import {
  add,
  foldIn,
  type Key,
  keyOf,
  mean,
  mul,
  normalNumbers,
  reshape,
  square,
  sub,
  type Tensor,
} from '@deftjs/tensor';

/** The noise of one training step. */
export interface FlowNoise {
  /** Standard normal numbers, as many as the pictures have. */
  readonly noise: Float32Array;
  /** One level for each picture, in (0, 1). */
  readonly levels: Float32Array;
}

/** The noise of step `step` for `count` pictures of `size` numbers each. */
export function drawFlowNoise(seed: number, step: number, count: number, size: number): FlowNoise {
  const key: Key = foldIn(keyOf(seed), step);
  const levels = logitNormalLevels(foldIn(key, 0), count);
  return { noise: Float32Array.from(normalNumbers(foldIn(key, 1), count * size)), levels };
}

/** Pictures [B, C, H, W], noise of their shape, levels [B] and captions [B, L, D]. */
export interface FlowBatch {
  readonly pictures: Tensor;
  readonly noise: Tensor;
  readonly levels: Tensor;
  readonly context: Tensor;
}

/** The error of each picture in equation (1): [B]. */
export function flowErrors(network: Denoiser, { pictures, noise, levels, context }: FlowBatch): Tensor {
  const s = reshape(levels, [levels.size, 1, 1, 1]);
  const noisy = add(mul(sub(1, s), pictures), mul(s, noise));
  const predicted = network(noisy, mul(levels, 1000), context);
  return mean(square(sub(predicted, sub(noise, pictures))), [1, 2, 3]);
}
