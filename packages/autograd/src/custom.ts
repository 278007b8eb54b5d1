/**
 * Functions whose reverse derivative is given, not traced.
 *
 * The value is computed by f from inputs that no derivative enters; a node around it names the real inputs beside it.
 * In reverse the node asks the rule; forwards it differentiates f itself, so that comparing vjp with jvp
 * (`gradcheck`) tests the rule against the function.
 */
import { type Applied, apply, type Op, stopGradient, type Tensor, zerosLike } from '@deftjs/tensor';
import { jvp } from './transforms.ts';

/** Cotangents of the inputs x from the cotangent of y = f(...x), in ops that can be differentiated again. */
export type VjpRule = (dy: Tensor, y: Tensor, ...x: readonly Tensor[]) => readonly (Tensor | null)[];

interface CustomAttrs {
  readonly f: (...x: readonly Tensor[]) => Tensor;
  readonly rule: VjpRule;
}

/** Inputs: f's value, then the inputs of f. Computes nothing: the value is the first input. */
const customVjpOp: Op<CustomAttrs> = {
  name: 'customVjp',
  infer: ([value]) => value!,
  reference: ([value]) => value!.data,
  lower: { kind: 'identity' },
  vjp: (dy, { inputs: [, ...x], output, attrs }) => [null, ...attrs.rule(dy, output, ...x)],
  jvp: ([, ...tangents], { inputs: [, ...x], attrs }: Applied<CustomAttrs>) =>
    jvp(
      attrs.f,
      x,
      x.map((input, i) => tangents[i] ?? zerosLike(input)),
    ).tangent,
};

/**
 * f(...x), whose value has been computed elsewhere, perhaps together with others, with the rule for its derivative in
 * reverse. No derivative goes through `value` itself.
 */
export function withVjp(
  value: Tensor,
  x: readonly Tensor[],
  f: (...x: readonly Tensor[]) => Tensor,
  rule: VjpRule,
): Tensor {
  return apply(customVjpOp, [value, ...x], { f, rule });
}

/**
 * The function f with the rule for its derivative in reverse: where the traced one is slow, takes much memory or loses
 * digits. Forward derivatives stay f's own.
 */
export function customVjp(
  f: (...x: readonly Tensor[]) => Tensor,
  rule: VjpRule,
): (...x: readonly Tensor[]) => Tensor {
  return (...x) => withVjp(f(...x.map(stopGradient)), x, f, rule);
}
