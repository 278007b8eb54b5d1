/**
 * Stochastic gradient descent as PyTorch computes it, with g the gradient plus decay * p:
 *
 *     b <- momentum b + g         p <- p - lr b         (Nesterov: p <- p - lr (g + momentum b))
 */
import { add, cast, mul, type Operand, sub, Tensor, type Tree, treeLeaves, treeWith } from '@deftjs/tensor';
import {
  awayFrom,
  expectRange,
  inTypeOf,
  inWorkingType,
  leavesAlike,
  type Optimizer,
  type ParameterGroup,
  settingsOf,
  zeroMoments,
} from './optimizer.ts';

export interface SgdOptions {
  /** Default 0. */
  readonly momentum?: number;
  /** Whether to look one step ahead; default false. */
  readonly nesterov?: boolean;
  /** Added to the gradient, times the parameter; default 0. */
  readonly weightDecay?: number;
  readonly groups?: readonly ParameterGroup[];
}

/** What each parameter moves with; nothing without momentum. */
export type SgdState = { readonly momentum: Tree };

/** Gradient descent with momentum. @throws RangeError for settings out of range */
export function sgd(options: SgdOptions = {}): Optimizer<SgdState> {
  const { momentum = 0, nesterov = false, weightDecay = 0, groups = [] } = options;
  expectRange('sgd', 'momentum', momentum, 0, 1);
  expectRange('sgd', 'weightDecay', weightDecay, 0, Number.POSITIVE_INFINITY);
  return {
    init: (parameters) => ({
      momentum: momentum === 0 ? [] : treeWith(parameters, zeroMoments(parameters)),
    }),
    update(parameters, gradients, state, { learningRate, decayTowards }) {
      const [gs] = leavesAlike('sgd', parameters, { gradients }) as [Tensor[]];
      const [bs] = momentum === 0 ? [] : leavesAlike('sgd', parameters, { momentum: state.momentum });
      const settings = settingsOf(parameters, groups, weightDecay);
      const away = awayFrom('sgd', parameters, decayTowards);
      const next = treeLeaves(parameters).map((stored, i) => {
        const { learningRateFactor, weightDecay: decay } = settings[i]!;
        const p = inWorkingType(stored);
        const raw = inTypeOf(p, gs[i]!);
        const g = decay === 0 ? raw : add(raw, mul(away(p, i), decay));
        const b = bs ? add(mul(bs[i]!, momentum), g) : g;
        const direction = nesterov ? add(g, mul(b, momentum)) : b;
        const rate: Operand =
          learningRate instanceof Tensor
            ? mul(cast(learningRate, p.dtype), learningRateFactor)
            : learningRate * learningRateFactor;
        return { p: cast(sub(p, mul(direction, rate)), stored.dtype), b };
      });
      return {
        parameters: treeWith(
          parameters,
          next.map(({ p }) => p),
        ),
        state: {
          momentum: bs
            ? treeWith(
                state.momentum,
                next.map(({ b }) => b),
              )
            : [],
        },
      };
    },
  };
}
