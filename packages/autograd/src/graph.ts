/** The part of a tensor graph that lies between variables and results, as steps for the engine. */
import { add, type Tensor } from '@deftjs/tensor';
import { backpropagate, pushForward, type Step } from './engine.ts';

/**
 * Applied ops that depend on a variable and that a result depends on, each after its inputs. Everything else is a
 * constant to the derivative: with a frozen base no weight gradient is even built.
 */
function stepsBetween(variables: ReadonlySet<Tensor>, results: readonly Tensor[]): Step<Tensor>[] {
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

function appliedAt(step: Step<Tensor>) {
  const { source } = step.output;
  if (source.kind !== 'applied') {
    throw new Error(
      'autograd: a tensor was evaluated inside the function being differentiated; evaluate it outside',
    );
  }
  return source;
}

/** Cotangents of everything between the variables and the results. */
export function pullBack(
  variables: readonly Tensor[],
  seeds: ReadonlyMap<Tensor, Tensor>,
): ReadonlyMap<Tensor, Tensor> {
  const steps = stepsBetween(new Set(variables), [...seeds.keys()]);
  const dependent = new Set([...variables, ...steps.map((step) => step.output)]);
  const pullback = (step: Step<Tensor>, dy: Tensor): readonly (Tensor | null)[] => {
    const { op, attrs } = appliedAt(step);
    const cotangents = op.vjp(dy, { inputs: step.inputs, output: step.output, attrs });
    return cotangents.map((dx, i) => (dependent.has(step.inputs[i]!) ? dx : null));
  };
  return backpropagate(steps, seeds, pullback, add);
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
