/**
 * Functions whose derivative is given, not traced.
 *
 * The value is computed by f from inputs that no derivative enters; a node around it names the real inputs beside it.
 * `customVjp` gives the rule in reverse; forwards it differentiates f itself, so that comparing vjp with jvp
 * (`gradcheck`) tests the rule against the function. `customJvp` gives the rule forwards, J v, which is linear in v:
 * its transpose J^T u is the derivative of <u, J v> in v.
 */
import { type Applied, apply, type Op, stopGradient, type Tensor, zerosLike } from '@deftjs/tensor';
import { jvp, vjp } from './transforms.ts';

/** A function of tensors. */
type TensorFunction = (...x: readonly Tensor[]) => Tensor;

/** Cotangents of the inputs x from the cotangent of y = f(...x), in ops that can be differentiated again. */
export type VjpRule = (dy: Tensor, y: Tensor, ...x: readonly Tensor[]) => readonly (Tensor | null)[];

/** The tangent of y = f(...x) from those of the inputs: linear in dx, in ops that can be differentiated again. */
export type JvpRule = (dx: readonly Tensor[], y: Tensor, ...x: readonly Tensor[]) => Tensor;

/** Inputs: f's value, then the inputs of f. Computes nothing: the value is the first input. */
const customVjpOp: Op<{ readonly f: TensorFunction; readonly rule: VjpRule }> = {
  name: 'customVjp',
  infer: ([value]) => value!,
  reference: ([value]) => value!.data,
  lower: { kind: 'identity' },
  vjp: (dy, { inputs: [, ...x], output, attrs }) => [null, ...attrs.rule(dy, output, ...x)],
  jvp: ([, ...tangents], { inputs: [, ...x], attrs }) => jvp(attrs.f, x, orZeros(tangents, x)).tangent,
};

/** The same for a rule of tangents. */
const customJvpOp: Op<{ readonly rule: JvpRule }> = {
  name: 'customJvp',
  infer: ([value]) => value!,
  reference: ([value]) => value!.data,
  lower: { kind: 'identity' },
  vjp: (dy, { inputs: [, ...x], output, attrs }) => {
    const along = (...dx: readonly Tensor[]): Tensor => attrs.rule(dx, output, ...x);
    return [null, ...vjp<readonly Tensor[], Tensor>(along, ...x.map(zerosLike)).pullback(dy)];
  },
  jvp: ([, ...tangents], { inputs: [, ...x], output, attrs }) =>
    attrs.rule(orZeros(tangents, x), output, ...x),
};

function orZeros(tangents: readonly (Tensor | null)[], x: Applied<unknown>['inputs']): Tensor[] {
  return x.map((input, i) => tangents[i] ?? zerosLike(input));
}

/**
 * f(...x), whose value has been computed elsewhere, perhaps together with others, with the rule for its derivative in
 * reverse. No derivative goes through `value` itself.
 */
export function withVjp(value: Tensor, x: readonly Tensor[], f: TensorFunction, rule: VjpRule): Tensor {
  return apply(customVjpOp, [value, ...x], { f, rule });
}

/**
 * The function f with the rule for its derivative in reverse: where the traced one is slow, takes much memory or loses
 * digits. Forward derivatives stay f's own. f depends on its arguments and constants only.
 */
export function customVjp(f: TensorFunction, rule: VjpRule): TensorFunction {
  return (...x) => withVjp(f(...x.map(stopGradient)), x, f, rule);
}

/** The same with a rule for its derivative forwards, of which the one in reverse is the transpose. */
export function withJvp(value: Tensor, x: readonly Tensor[], rule: JvpRule): Tensor {
  return apply(customJvpOp, [value, ...x], { rule });
}

/**
 * The function f with the rule for its derivative forwards, of which the one in reverse is the transpose: one rule
 * serves both. f depends on its arguments and constants only.
 */
export function customJvp(f: TensorFunction, rule: JvpRule): TensorFunction {
  return (...x) => withJvp(f(...x.map(stopGradient)), x, rule);
}
