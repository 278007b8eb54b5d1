/** The part of a tensor graph that lies between variables and results, as steps for the engine. */
import { apply, type Op, type Tensor } from '@deftjs/tensor';
import { backpropagate, type Pullback, pushForward, type Step } from './engine.ts';
import { total } from './total.ts';

/**
 * Applied ops that depend on a variable and that a result depends on, each after its inputs. Everything else is a
 * constant to the derivative: with a frozen base no weight gradient is even built.
 */
export function stepsBetween(variables: ReadonlySet<Tensor>, results: readonly Tensor[]): Step<Tensor>[] {
  const depends = new Map<Tensor, boolean>();
  for (const variable of variables) depends.set(variable, true);
  const steps: Step<Tensor>[] = [];
  const stack = results.map((node) => ({ node, next: 0 })).reverse();
  while (stack.length > 0) {
    const top = stack.at(-1)!;
    const { source } = top.node;
    if (depends.has(top.node) || source.kind !== 'applied') {
      if (!depends.has(top.node)) depends.set(top.node, false);
      stack.pop();
    } else if (top.next < source.inputs.length) {
      stack.push({ node: source.inputs[top.next]!, next: 0 });
      top.next += 1;
    } else {
      const dependent = source.inputs.some((input) => depends.get(input));
      depends.set(top.node, dependent);
      if (dependent) steps.push({ inputs: source.inputs, output: top.node });
      stack.pop();
    }
  }
  return steps;
}

/** The op of a step and its attributes. @throws Error when the step's output has been evaluated */
export function appliedAt(step: Step<Tensor>): { readonly op: Op; readonly attrs: unknown } {
  const { source } = step.output;
  if (source.kind !== 'applied') {
    throw new Error(
      'autograd: a tensor was evaluated inside the function being differentiated; evaluate it outside',
    );
  }
  return source;
}

/** Cotangents of a step's inputs by the rule of its op. */
export const cotangentsAt: Pullback<Tensor> = (step, dy) => {
  const { op, attrs } = appliedAt(step);
  return op.vjp(dy, { inputs: step.inputs, output: step.output, attrs });
};

/** Cotangents of everything between the variables and the results. */
export function pullBack(
  variables: readonly Tensor[],
  seeds: ReadonlyMap<Tensor, Tensor>,
  through: Pullback<Tensor> = cotangentsAt,
): ReadonlyMap<Tensor, Tensor> {
  const steps = stepsBetween(new Set(variables), [...seeds.keys()]);
  const dependent = new Set([...variables, ...steps.map((step) => step.output)]);
  const pullback: Pullback<Tensor> = (step, dy) =>
    through(step, dy).map((dx, i) => (dependent.has(step.inputs[i]!) ? dx : null));
  return backpropagate(steps, seeds, pullback, total);
}

/** Tangents of everything that the results depend on. */
export function pushTangents(
  seeds: ReadonlyMap<Tensor, Tensor>,
  results: readonly Tensor[],
): ReadonlyMap<Tensor, Tensor> {
  const steps = stepsBetween(new Set(seeds.keys()), results);
  return pushForward(steps, seeds, (step, tangents) => {
    const { op, attrs } = appliedAt(step);
    return op.jvp(tangents, { inputs: step.inputs, output: step.output, attrs });
  });
}

/** The result, computed by the same ops with other tensors in place of the variables. */
export function replay(
  result: Tensor,
  variables: readonly Tensor[],
  replacements: readonly Tensor[],
): Tensor {
  const replaced = new Map(variables.map((x, i) => [x, replacements[i]!]));
  for (const step of stepsBetween(new Set(variables), [result])) {
    const { op, attrs } = appliedAt(step);
    const inputs = step.inputs.map((x) => replaced.get(x) ?? x);
    replaced.set(step.output, apply(op, inputs, attrs));
  }
  return replaced.get(result) ?? result;
}
