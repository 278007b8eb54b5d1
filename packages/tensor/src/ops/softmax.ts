/**
 * Softmax along one axis.
 *
 *     y_i = exp(x_i - m) / sum_j exp(x_j - m),    m = max_j x_j
 *
 * m cancels in the quotient, so it is held constant in derivatives; it keeps every exponent <= 0.
 */
import type { Tensor } from '../tensor.ts';
import { stopGradient } from './custom.ts';
import { add, div, exp, log, sub } from './elementwise.ts';
import { sum } from './expand.ts';
import { squeeze } from './movement.ts';
import { max } from './reduce.ts';

/** Entries in [0, 1] that sum to 1 along `axis`. A row of -Infinity gives NaN. @throws ShapeError */
export function softmax(x: Tensor, axis = -1): Tensor {
  const e = exp(sub(x, stopGradient(max(x, axis, true))));
  return div(e, sum(e, axis, true));
}

/** log(sum(exp(x))) along `axis`, which is kept at extent 1 when asked. @throws ShapeError */
export function logSumExp(x: Tensor, axis = -1, keepAxes = false): Tensor {
  const m = stopGradient(max(x, axis, true));
  const kept = add(log(sum(exp(sub(x, m)), axis, true)), m);
  return keepAxes ? kept : squeeze(kept, axis);
}

/** The logarithm of softmax, without its underflow. @throws ShapeError */
export function logSoftmax(x: Tensor, axis = -1): Tensor {
  return sub(x, logSumExp(x, axis, true));
}
