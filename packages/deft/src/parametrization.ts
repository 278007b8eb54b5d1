/**
 * What a fine-tuning method is: which few tensors theta it trains for a layer, how they start, and the change of the
 * frozen weight W0 that they stand for, as two pure functions.
 *
 *     delta(W0)       the weight that is added: W = W0 + delta(W0)                                            (1)
 *     apply(x, y0)    the same on activations: y = y0 + apply(x, y0), with y0 = x W0^T before the bias        (2)
 *
 * (1) is for merging; (2) is what training runs, and never builds anything of the size of W0 or of out x out.
 */
import { type Device, type Key, numel, type Shape, type Tensor } from '@deftjs/tensor';
import type { LinearMap } from './linearMap.ts';

/** The trainable tensors of one layer, by name. */
export type Theta = Readonly<Record<string, Tensor>>;

/** A layer whose theta is to be drawn. */
export interface FreshLayer {
  readonly W0: Tensor;
  readonly key: Key;
}

/** The change of a layer's weight that a theta stands for. */
export interface WeightChange {
  /** Equation (1), in the weight's shape and float32. */
  delta(W0: Tensor): Tensor;
  /** Equation (2): x and y0 as the layer has them, the result like y0. What x is dropped from is written alone. */
  apply(x: Tensor, y0: Tensor, map: LinearMap): Tensor;
  /** What both are computed from: evaluated once where parameters stay as they are. */
  readonly tensors: readonly Tensor[];
}

/** A method with its options decided. Every method is one file in parametrizations/. */
export interface Parametrization {
  /** "deft", "lora": the key in the list of methods. */
  readonly name: string;
  /** Of the change; null where there is no bound. */
  readonly rank: number | null;
  /** Probability of dropping an entry of x on the path that writes, in training. */
  readonly dropout: number;
  /** Whether delta is zero for the initial theta, so that training starts from the base model. */
  readonly identityAtInit: boolean;
  /** Names and shapes of theta for a weight of the shape. */
  shapes(weight: Shape): Readonly<Record<string, Shape>>;
  /** Initial thetas, float32: each a pure function of a layer's weight and key. */
  init(layers: readonly FreshLayer[]): readonly Theta[];
  /** Tensors of a layer that are computed once from its weight and never trained; default: none. */
  fixed?(W0: Tensor, device?: Device): Promise<Theta>;
  /** The change that each theta, with what is fixed beside it, stands for. Layers come together to share kernels. */
  changes(thetas: readonly Theta[]): readonly WeightChange[];
}

/** How many numbers the method trains for a weight of the shape. */
export function parameterCount(method: Parametrization, weight: Shape): number {
  return Object.values(method.shapes(weight)).reduce((count, shape) => count + numel(shape), 0);
}

/** @throws RangeError unless the rank is a whole number >= 1 */
export function expectRank(method: string, rank: number): void {
  if (!Number.isSafeInteger(rank) || rank < 1) {
    throw new RangeError(`${method}: rank must be a whole number >= 1; got ${rank}`);
  }
}

/** @throws RangeError unless the probability is in [0, 1) */
export function expectDropout(method: string, dropout: number): void {
  if (!(dropout >= 0 && dropout < 1)) {
    throw new RangeError(`${method}: dropout must be in [0, 1); got ${dropout}`);
  }
}

/** @throws RangeError unless alpha is null or a positive number */
export function expectAlpha(method: string, alpha: number | null): void {
  if (alpha !== null && !(alpha > 0 && Number.isFinite(alpha))) {
    throw new RangeError(`${method}: alpha must be a positive number or null; got ${alpha}`);
  }
}
