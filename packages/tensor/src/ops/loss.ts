/** Losses: numbers to make small. */
import { expectNumbers } from '../dtype.ts';
import { DTypeError, formatShapes, ShapeError } from '../errors.ts';
import { checkShape, sameShape } from '../shape.ts';
import { Tensor } from '../tensor.ts';
import { softplus } from './activation.ts';
import {
  abs,
  add,
  and,
  cast,
  div,
  equal,
  less,
  lessEqual,
  mul,
  neg,
  notEqual,
  type Operand,
  square,
  sub,
  where,
} from './elementwise.ts';
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

/** The mean of absolute differences; the derivative at 0 is 0. @throws ShapeError when the shapes differ */
export function meanAbsoluteError(prediction: Tensor, target: Operand): Tensor {
  expectTarget('meanAbsoluteError', prediction, target);
  return mean(abs(sub(prediction, target)));
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

/**
 * The mean of -(t log p + (1 - t) log(1 - p)) with p = sigmoid(logits), as softplus(logits) - t logits: no overflow.
 * @param target shares in [0, 1]
 * @throws ShapeError when the shapes differ
 */
export function binaryCrossEntropy(logits: Tensor, target: Operand): Tensor {
  expectTarget('binaryCrossEntropy', logits, target);
  return mean(sub(softplus(logits), mul(logits, target)));
}

export interface CrossEntropyOptions {
  /** Share e of the target spread evenly over all classes, in [0, 1): (1 - e) onehot + e / C. Default 0. */
  readonly labelSmoothing?: number;
  /** Rows with this label count neither in the sum nor in the mean. Default: none. */
  readonly ignoreIndex?: number;
}

/**
 * The mean over the rows of -sum over c of target_c log softmax(logits)_c (torch cross_entropy, classes last): logits
 * [..., C], labels [...] of i32. A label outside [0, C) gives NaN; so does the mean of no rows.
 * @throws ShapeError, DTypeError when labels are not i32, RangeError unless labelSmoothing is in [0, 1)
 */
export function crossEntropy(
  logits: Tensor,
  labels: Tensor,
  { labelSmoothing = 0, ignoreIndex }: CrossEntropyOptions = {},
): Tensor {
  if (logits.rank === 0 || !sameShape(labels.shape, logits.shape.slice(0, -1))) {
    throw new ShapeError(
      `crossEntropy: expected logits [..., C] and labels [...]; got ${formatShapes([logits.shape, labels.shape])}`,
    );
  }
  if (labels.dtype !== 'i32') throw new DTypeError(`crossEntropy: labels must be i32; got ${labels.dtype}`);
  if (!(labelSmoothing >= 0 && labelSmoothing < 1)) {
    throw new RangeError(`crossEntropy: labelSmoothing must be in [0, 1); got ${labelSmoothing}`);
  }
  const classes = logits.shape.at(-1)!;
  const logs = logSoftmax(logits);
  const hot = equal(iota(logits.shape, -1), unsqueeze(labels, -1));
  const picked = sum(where(hot, logs, 0), -1);
  const smoothed =
    labelSmoothing === 0 ? picked : add(mul(picked, 1 - labelSmoothing), mul(mean(logs, -1), labelSmoothing));
  const known = and(lessEqual(0, labels), less(labels, classes));
  const rows = where(known, neg(smoothed), Number.NaN);
  if (ignoreIndex === undefined) return mean(rows);
  const counted = notEqual(labels, ignoreIndex);
  return div(sum(where(counted, rows, 0)), sum(cast(counted, logits.dtype)));
}
