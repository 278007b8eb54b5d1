/** Losses: numbers to make small. */
import type { Tensor } from '../tensor.ts';
import { abs, cast, equal, less, mul, neg, type Operand, square, sub, where } from './elementwise.ts';
import { sum } from './expand.ts';
import { unsqueeze } from './movement.ts';
import { mean } from './reduce.ts';
import { logSoftmax } from './softmax.ts';
import { iota } from './source.ts';

/** The mean of squared differences. */
export function meanSquaredError(prediction: Tensor, target: Operand): Tensor {
  return mean(square(sub(prediction, target)));
}

/** The mean of d^2/2 where |d| < delta and delta (|d| - delta/2) beyond (Huber 1964). */
export function huberLoss(prediction: Tensor, target: Operand, delta = 1): Tensor {
  const d = sub(prediction, target);
  const linear = mul(sub(abs(d), delta / 2), delta);
  return mean(where(less(abs(d), delta), mul(square(d), 0.5), linear));
}

/** 1 at each index along a new last axis of extent `classes`, 0 elsewhere; an index outside gives zeros. */
export function oneHot(index: Tensor, classes: number): Tensor {
  const shape = [...index.shape, classes];
  return cast(equal(iota(shape, -1, index.dtype), unsqueeze(index, -1)), 'f32');
}

/** The mean of -log softmax(logits)[label]: logits [..., C], labels [...] of i32. @throws ShapeError */
export function crossEntropy(logits: Tensor, labels: Tensor): Tensor {
  const picked = sum(mul(logSoftmax(logits), cast(oneHot(labels, logits.shape.at(-1)!), logits.dtype)), -1);
  return neg(mean(picked));
}
