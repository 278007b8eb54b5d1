/**
 * Nodes that compute nothing and matter to derivatives only. To the compiler each is its first input.
 */
import type { Op } from '../op.ts';
import { apply, type Tensor } from '../tensor.ts';

/** A new name for the same values, so that one variable can be told from another. */
export const aliasOp: Op<null> = {
  name: 'alias',
  infer: ([x]) => x!,
  reference: ([x]) => x!.data,
  lower: { kind: 'identity' },
  vjp: (dy) => [dy],
  jvp: ([dx]) => dx!,
};

/** `x` itself under a new name. */
export function alias(x: Tensor): Tensor {
  return apply(aliasOp, [x], null);
}

/** The identity, through which no derivative flows. */
export const stopGradientOp: Op<null> = {
  name: 'stopGradient',
  infer: ([x]) => x!,
  reference: ([x]) => x!.data,
  lower: { kind: 'identity' },
  vjp: () => [null],
  jvp: () => null,
};

/** `x`, taken as a constant by every derivative. */
export function stopGradient(x: Tensor): Tensor {
  return apply(stopGradientOp, [x], null);
}

/** Inputs: x, and what comes before. The compiler takes nothing computed from it for what is computed from x. */
export const afterOp: Op<null> = {
  name: 'after',
  infer: ([x]) => x!,
  reference: ([x]) => x!.data,
  lower: { kind: 'after' },
  vjp: (dy) => [dy, null],
  jvp: ([dx]) => dx ?? null,
};

/**
 * `x` itself, to compute from after `earlier` is there: what is computed from it is computed anew, even where the same
 * has been computed from `x` already. So memory is saved by computing twice.
 */
export function after(x: Tensor, earlier: Tensor): Tensor {
  return apply(afterOp, [x, earlier], null);
}

/**
 * J applied to a direction, for a function of one tensor whose Jacobian J is symmetric: the same formula serves as vjp
 * and jvp. In ops, so that it can be differentiated again.
 */
type SymmetricDerivative = (direction: Tensor, y: Tensor, x: Tensor) => Tensor;

/** Inputs: the value, then x. */
const symmetricOp: Op<{ readonly derivative: SymmetricDerivative }> = {
  name: 'symmetric',
  infer: ([value]) => value!,
  reference: ([value]) => value!.data,
  lower: { kind: 'identity' },
  vjp: (dy, { inputs: [, x], output, attrs }) => [null, attrs.derivative(dy, output, x!)],
  jvp: ([, dx], { inputs: [, x], output, attrs }) => (dx ? attrs.derivative(dx, output, x!) : null),
};

/**
 * f(x) with its derivative given: where the traced one would take many more passes over memory.
 * @param f of one tensor, with a symmetric Jacobian
 */
export function withSymmetricDerivative(
  f: (x: Tensor) => Tensor,
  derivative: SymmetricDerivative,
  x: Tensor,
): Tensor {
  return apply(symmetricOp, [f(stopGradient(x)), x], { derivative });
}
