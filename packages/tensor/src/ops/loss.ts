/** Losses: numbers to make small. */
import { expectNumbers } from '../dtype.ts';
import { formatShapes, ShapeError } from '../errors.ts';
import { checkShape, sameShape } from '../shape.ts';
import { Tensor } from '../tensor.ts';
import { abs, cast, equal, less, mul, neg, type Operand, square, sub, where } from './elementwise.ts';
import { sum } from './expand.ts';
import { unsqueeze } from './movement.ts';
import { mean } from './reduce.ts';
import { logSoftmax } from './softmax.ts';
import { iota } from './source.ts';

/** A target that broadcasts is a mistake more often than a wish: it compares everything with everything. */
function expectTarget(op: string, prediction: Tensor, target: Operand): void {
  if (target instanceof Tensor && !sameShape(target.shape, prediction.shape)) {
    throw new ShapeError(
      `${op}: prediction and target differ in shape; got ${formatShapes([prediction.shape, target.shape])}`,
    );
  }
}

/** The mean of squared differences. @throws ShapeError when the shapes differ */
export function meanSquaredError(prediction: Tensor, target: Operand): Tensor {
  expectTarget('meanSquaredError', prediction, target);
  return mean(square(sub(prediction, target)));
}

/**
 * The mean of d^2/2 where |d| < delta and delta (|d| - delta/2) beyond (Huber 1964).
 * @throws ShapeError when the shapes differ, RangeError unless delta > 0
 */
export function huberLoss(prediction: Tensor, target: Operand, delta = 1): Tensor {
  expectTarget('huberLoss', prediction, target);
  if (!(delta > 0)) throw new RangeError(`huberLoss: delta must be > 0; got ${delta}`);
  const d = sub(prediction, target);
  const linear = mul(sub(abs(d), delta / 2), delta);
  return mean(where(less(abs(d), delta), mul(square(d), 0.5), linear));
}

/**
 * 1 at each index along a new last axis of extent `classes`, 0 elsewhere; an index outside gives zeros.
 * @throws ShapeError, DTypeError
 */
export function oneHot(index: Tensor, classes: number): Tensor {
  expectNumbers('oneHot', index.dtype);
  const shape = checkShape('oneHot', [...index.shape, classes]);
  return cast(equal(iota(shape, -1, index.dtype), unsqueeze(index, -1)), 'f32');
}

/** The mean of -log softmax(logits)[label]: logits [..., C], labels [...] of i32. @throws ShapeError */
export function crossEntropy(logits: Tensor, labels: Tensor): Tensor {
  if (logits.rank === 0 || !sameShape(labels.shape, logits.shape.slice(0, -1))) {
    throw new ShapeError(
      `crossEntropy: expected logits [..., C] and labels [...]; got ${formatShapes([logits.shape, labels.shape])}`,
    );
  }
  const picked = sum(mul(logSoftmax(logits), cast(oneHot(labels, logits.shape.at(-1)!), logits.dtype)), -1);
  return neg(mean(picked));
}
