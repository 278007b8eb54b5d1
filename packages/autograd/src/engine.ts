/**
 * Reverse and forward accumulation over any value type: the chain rule along a list of steps, and nothing else.
 *
 * A step knows one output, its inputs, and how to move derivatives across itself. The engine knows the order and adds
 * up what arrives at one place. It imports nothing.
 */

/** One applied function. Values are compared by identity. */
export interface Step<V> {
  readonly inputs: readonly V[];
  readonly output: V;
}

/** Cotangents of the inputs from the cotangent of the output; null where nothing flows. */
export type Pullback<V> = (step: Step<V>, cotangent: V) => readonly (V | null)[];

/** Tangent of the output from those of the inputs (null: zero); null when it is zero. */
export type Pushforward<V> = (step: Step<V>, tangents: readonly (V | null)[]) => V | null;

/**
 * Cotangents of all values that the seeds depend on, from the seeds' own: each step is visited once, last first.
 *
 * @param steps in the order computed: a step's inputs are outputs of earlier steps, or leaves
 * @param seeds cotangents of some values
 */
export function backpropagate<V>(
  steps: readonly Step<V>[],
  seeds: ReadonlyMap<V, V>,
  pullback: Pullback<V>,
  add: (a: V, b: V) => V,
): Map<V, V> {
  const cotangents = new Map(seeds);
  for (const step of steps.toReversed()) {
    const cotangent = cotangents.get(step.output);
    if (cotangent === undefined) continue; // nothing that was asked for depends on this step
    pullback(step, cotangent).forEach((arriving, i) => {
      if (arriving === null) return;
      const input = step.inputs[i]!;
      const before = cotangents.get(input);
      cotangents.set(input, before === undefined ? arriving : add(before, arriving));
    });
  }
  return cotangents;
}

/** Tangents of all values that depend on the seeds: each step is visited once, first first. */
export function pushForward<V>(
  steps: readonly Step<V>[],
  seeds: ReadonlyMap<V, V>,
  pushforward: Pushforward<V>,
): Map<V, V> {
  const tangents = new Map(seeds);
  for (const step of steps) {
    const arriving = step.inputs.map((input) => tangents.get(input) ?? null);
    if (arriving.every((tangent) => tangent === null)) continue;
    const tangent = pushforward(step, arriving);
    if (tangent !== null) tangents.set(step.output, tangent);
  }
  return tangents;
}
