/** Activation functions, composed of primitives; none overflows to NaN for finite input. */
import type { Tensor } from '../tensor.ts';
import { withSymmetricDerivative } from './custom.ts';
import { abs, add, div, erf, exp, less, log, maximum, mul, neg, sub, tanh, where } from './elementwise.ts';

/**
 * 1 / (1 + exp(-x)), of t = exp(-|x|) as 1 / (1 + t) or t / (1 + t): no overflow on either side, and as precise where it
 * is near 0 as where it is near 1. The derivative is y (1 - y).
 */
export function sigmoid(x: Tensor): Tensor {
  return withSymmetricDerivative(
    (v) => {
      const t = exp(neg(abs(v)));
      return div(where(less(v, 0), t, 1), add(t, 1));
    },
    (v, y) => mul(mul(v, y), sub(1, y)),
    x,
  );
}

/** x sigmoid(x) (also called swish). */
export function silu(x: Tensor): Tensor {
  return mul(x, sigmoid(x));
}

/** max(x, 0); the derivative at 0 is 0, as in PyTorch. It is told from the value, so that x need not be kept for it. */
export function relu(x: Tensor): Tensor {
  return withSymmetricDerivative(
    (v) => where(less(0, v), v, 0),
    (v, y) => where(less(0, y), v, 0),
    x,
  );
}

/** x Phi(x), Phi the normal distribution function: the exact GELU. */
export function gelu(x: Tensor): Tensor {
  return mul(mul(x, 0.5), add(erf(mul(x, Math.SQRT1_2)), 1));
}

/** The tanh approximation of GELU: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). */
export function geluTanh(x: Tensor): Tensor {
  const inner = mul(mul(x, Math.sqrt(2 / Math.PI)), add(mul(mul(x, x), 0.044715), 1));
  return mul(mul(x, 0.5), add(tanh(inner), 1));
}

/** x sigmoid(1.702 x): the approximation that CLIP uses. */
export function quickGelu(x: Tensor): Tensor {
  return mul(x, sigmoid(mul(x, 1.702)));
}

/** log(1 + e^x), as max(x, 0) + log(1 + e^-|x|). */
export function softplus(x: Tensor): Tensor {
  return add(maximum(x, 0), log(add(exp(neg(abs(x))), 1)));
}
