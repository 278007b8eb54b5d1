/**
 * Softmax along one axis.
 *
 *     y_i = exp(x_i - m) / sum_j exp(x_j - m),    m = max_j x_j                              (1)
 *     J = diag(y) - y y^T, so J v = y (v - sum_j y_j v_j)                                     (2)
 *
 * m cancels in the quotient; it keeps every exponent <= 0. J is symmetric: (2) is both vjp and jvp.
 */
import type { Tensor } from '../tensor.ts';
import { stopGradient, withSymmetricDerivative } from './custom.ts';
import { add, div, exp, log, mul, sub } from './elementwise.ts';
import { sum } from './expand.ts';
import { squeeze } from './movement.ts';
import { max } from './reduce.ts';

/** Entries in [0, 1] that sum to 1 along `axis`. A row of -Infinity gives NaN. @throws ShapeError */
export function softmax(x: Tensor, axis = -1): Tensor {
  const f = (logits: Tensor): Tensor => {
    const e = exp(sub(logits, max(logits, axis, true)));
    return div(e, sum(e, axis, true)); // (1)
  };
  return withSymmetricDerivative(f, (v, y) => mul(y, sub(v, sum(mul(y, v), axis, true))), x); // (2)
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
