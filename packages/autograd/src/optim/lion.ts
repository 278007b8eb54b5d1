/**
 * Lion (Chen et al., "Symbolic discovery of optimization algorithms", 2023, program 1): the sign of a mix of momentum and
 * gradient, so that every element moves equally far.
 *
 *     p <- p - lr (sign(b1 m + (1 - b1) g) + decay p)            m <- b2 m + (1 - b2) g
 */
import { add, cast, mul, sign, sub, Tensor, type Tree, treeLeaves, treeWith } from '@deftjs/tensor';
import {
  decayedBy,
  expectRange,
  inTypeOf,
  leavesAlike,
  type Optimizer,
  type ParameterGroup,
  settingsOf,
  times,
  zeroMoments,
} from './optimizer.ts';

export interface LionOptions {
  /** b1 and b2; default 0.9 and 0.99. */
  readonly betas?: readonly [number, number];
  /** Shrinks the parameter by itself; default 0. */
  readonly weightDecay?: number;
  readonly groups?: readonly ParameterGroup[];
}

/** The momentum of each parameter. */
export type LionState = { readonly momentum: Tree };

/** Lion: a learning rate 3 to 10 times smaller than AdamW's, and as much more decay. @throws RangeError */
export function lion(options: LionOptions = {}): Optimizer<LionState> {
  const { betas = [0.9, 0.99], weightDecay = 0, groups = [] } = options;
  const [b1, b2] = betas;
  expectRange('lion', 'betas[0]', b1, 0, 1);
  expectRange('lion', 'betas[1]', b2, 0, 1);
  expectRange('lion', 'weightDecay', weightDecay, 0, Number.POSITIVE_INFINITY);
  return {
    init: (parameters) => ({ momentum: treeWith(parameters, zeroMoments(parameters)) }),
    update(parameters, gradients, state, { learningRate, decayTowards }) {
      const [gs, ms] = leavesAlike('lion', parameters, { gradients, momentum: state.momentum }) as [
        Tensor[],
        Tensor[],
      ];
      const settings = settingsOf(parameters, groups, weightDecay);
      const shrink = decayedBy('lion', parameters, decayTowards);
      const next = treeLeaves(parameters).map((stored, i) => {
        const [m, { learningRateFactor, weightDecay: decay }] = [ms[i]!, settings[i]!];
        const rate = learningRate instanceof Tensor ? cast(learningRate, m.dtype) : learningRate;
        const lr = times(rate, learningRateFactor);
        const [p, g] = [inTypeOf(m, stored), inTypeOf(m, gs[i]!)];
        const shrunk = decay === 0 ? p : shrink(p, i, times(lr, decay));
        const direction = sign(add(mul(m, b1), mul(g, 1 - b1)));
        return {
          p: cast(sub(shrunk, mul(direction, lr)), stored.dtype),
          m: add(mul(m, b2), mul(g, 1 - b2)),
        };
      });
      const momentum = treeWith(
        state.momentum,
        next.map(({ m }) => m),
      );
      const moved = treeWith(
        parameters,
        next.map(({ p }) => p),
      );
      return { parameters: moved, state: { momentum } };
    },
  };
}
