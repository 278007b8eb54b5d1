/**
 * Optimizers as pure functions of (parameters, gradients, state). Learning rate and step count are tensors, so that a
 * compiled step keeps its program when they change.
 */
import type { Tensor } from '@deftjs/tensor';

/** Tensors by parameter path. */
export type State = Record<string, Tensor>;

/** Settings for the parameters whose path passes the test. */
export interface ParameterGroup {
  match(path: string): boolean;
  /** Multiplies the learning rate; 1 by default. */
  readonly learningRateFactor?: number;
  /** Default: the optimizer's. */
  readonly weightDecay?: number;
}

export interface Optimizer<S> {
  /** What the optimizer remembers before the first step. */
  init(parameters: Readonly<State>): S;
  /** Parameters and memory after one step. `learningRate` is a scalar tensor. */
  update(
    parameters: Readonly<State>,
    gradients: Readonly<State>,
    state: S,
    settings: { readonly learningRate: Tensor },
  ): { parameters: State; state: S };
}

/** The settings of the first group that takes the path. */
export function settingsOf(groups: readonly ParameterGroup[], path: string): Omit<ParameterGroup, 'match'> {
  return groups.find((group) => group.match(path)) ?? {};
}
