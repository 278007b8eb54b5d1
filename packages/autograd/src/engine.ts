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
 * Cotangents of all values that the seeds depend on, from the seeds' own: each step is visited once, last first, when
 * everything that reaches its output has arrived.
 *
 * @param steps in the order computed: a step's inputs are outputs of earlier steps, or leaves
 * @param seeds cotangents of some values
 * @param total the sum of at least two cotangents that arrived at one value, in the order of arrival
 */
export function backpropagate<V>(
  steps: readonly Step<V>[],
  seeds: ReadonlyMap<V, V>,
  pullback: Pullback<V>,
  total: (arrived: readonly V[]) => V,
): Map<V, V> {
  const arrivals = new Map(Array.from(seeds, ([value, seed]) => [value, [seed]]));
  const cotangents = new Map<V, V>();
  const settle = (value: V): V | undefined => {
    const arrived = arrivals.get(value);
    if (arrived === undefined) return undefined; // nothing that was asked for depends on it
    const cotangent = arrived.length === 1 ? arrived[0]! : total(arrived);
    cotangents.set(value, cotangent);
    arrivals.delete(value);
    return cotangent;
  };
  for (const step of steps.toReversed()) {
    const cotangent = settle(step.output);
    if (cotangent === undefined) continue;
    pullback(step, cotangent).forEach((arriving, i) => {
      if (arriving === null) return;
      const input = step.inputs[i]!;
      const before = arrivals.get(input);
      if (before) before.push(arriving);
      else arrivals.set(input, [arriving]);
    });
  }
  for (const value of [...arrivals.keys()]) settle(value);
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
