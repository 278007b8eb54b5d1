/**
 * Dynamic loss scaling (Micikevicius et al. 2018, section 3.2; the rule of PyTorch's GradScaler). Gradients in f16 vanish
 * below 6e-8, so the loss is multiplied by a scale and the gradients divided by it. Where a gradient overflows, the step
 * is left out and the scale falls; after a number of steps without that, it rises.
 *
 * All of it is tensors: a compiled step needs no number read back. Overflow is found by the bits of the gradients.
 */
import {
  add,
  cast,
  div,
  equal,
  isfinite,
  lessEqual,
  logicalNot,
  mul,
  sum,
  type Tensor,
  type Tree,
  tensor,
  treeLeaves,
  treeMap,
  treeWith,
  where,
  zeros,
} from '@deftjs/tensor';
import { expectRange, inWorkingType } from './optimizer.ts';

export interface LossScaleOptions {
  /** Default 65536. */
  readonly initial?: number;
  /** What the scale is multiplied by after `interval` finite steps; default 2. */
  readonly growth?: number;
  /** What it is multiplied by after a step that was left out; default 0.5. */
  readonly backoff?: number;
  /** Default 2000. */
  readonly interval?: number;
}

/** The scale, and how many steps have been finite since it changed: two scalars. */
export type LossScaleState = { readonly scale: Tensor; readonly steps: Tensor };

export interface LossScale {
  init(): LossScaleState;
  /** The loss times the scale, in f32: what is to be differentiated. */
  scaled(loss: Tensor, state: LossScaleState): Tensor;
  /** The gradients of the scaled loss divided by the scale, in f32; whether all are finite (bool); the next state. */
  unscaled<P extends Tree>(
    gradients: P,
    state: LossScaleState,
  ): { gradients: P; finite: Tensor; state: LossScaleState };
}

/** Loss scaling that finds its scale by itself. @throws RangeError for settings out of range */
export function lossScale(options: LossScaleOptions = {}): LossScale {
  const { initial = 65536, growth = 2, backoff = 0.5, interval = 2000 } = options;
  expectRange('lossScale', 'initial', initial, Number.MIN_VALUE, Number.POSITIVE_INFINITY);
  expectRange('lossScale', 'growth', growth, 1, Number.POSITIVE_INFINITY);
  expectRange('lossScale', 'backoff', backoff, 0, 1);
  return {
    init: () => ({ scale: tensor(initial), steps: zeros([], 'i32') }),
    scaled: (loss, { scale }) => mul(inWorkingType(loss), scale),
    unscaled(gradients, { scale, steps }) {
      const overflows = treeLeaves(gradients).map((g) => sum(cast(logicalNot(isfinite(g)), 'i32')));
      const finite = equal(
        overflows.reduce((total, count) => add(total, count), zeros([], 'i32')),
        0,
      );
      const counted = add(steps, 1);
      const rises = lessEqual(interval, counted);
      return {
        gradients: treeMap((g) => div(inWorkingType(g), scale), gradients),
        finite,
        state: {
          scale: where(finite, where(rises, mul(scale, growth), scale), mul(scale, backoff)),
          steps: where(finite, where(rises, 0, counted), 0),
        },
      };
    },
  };
}

/** `next` if the condition (a bool scalar) holds, else `before`, tensor by tensor: a step taken or left out. */
export function takeIf<T extends Tree>(condition: Tensor, next: T, before: T): T {
  const kept = treeLeaves(before);
  return treeWith(
    next,
    treeLeaves(next).map((x, i) => where(condition, x, kept[i]!)),
  );
}
