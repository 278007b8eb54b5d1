/**
 * AdamW (Loshchilov and Hutter 2019, algorithm 2), as PyTorch computes it. With step count t, learning rate a, decay w:
 *
 *     p <- p - a w p                                                                         (1)
 *     m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2                                (2)
 *     p <- p - a (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)                              (3)
 */
import { add, div, mul, pow, sqrt, sub, type Tensor, zeros, zerosLike } from '@deftjs/tensor';
import { type Optimizer, type ParameterGroup, type State, settingsOf } from './optimizer.ts';

export interface AdamWOptions {
  readonly betas?: readonly [number, number];
  readonly eps?: number;
  readonly weightDecay?: number;
  /** The first group whose test passes decides; without one, the options above hold. */
  readonly groups?: readonly ParameterGroup[];
}

/** What AdamW remembers: the step count [], and both moments of each parameter. */
export type AdamWState = { readonly step: Tensor; readonly m: State; readonly v: State };

/** AdamW. Defaults are PyTorch's: betas (0.9, 0.999), eps 1e-8, decay 0.01. */
export function adamW(options: AdamWOptions = {}): Optimizer<AdamWState> {
  const { betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, groups = [] } = options;
  const [beta1, beta2] = betas;
  return {
    init: (parameters) => {
      const moments = (): State =>
        Object.fromEntries(Object.entries(parameters).map(([path, p]) => [path, zerosLike(p)]));
      return { step: zeros([]), m: moments(), v: moments() };
    },
    update: (parameters, gradients, state, { learningRate }) => {
      const step = add(state.step, 1);
      const scale1 = sub(1, pow(beta1, step));
      const scale2 = sub(1, pow(beta2, step));
      const next = { parameters: {} as State, m: {} as State, v: {} as State };
      for (const [path, p] of Object.entries(parameters)) {
        const g = gradients[path]!;
        const group = settingsOf(groups, path);
        const rate = mul(learningRate, group.learningRateFactor ?? 1);
        const m = add(mul(state.m[path]!, beta1), mul(g, 1 - beta1)); // (2)
        const v = add(mul(state.v[path]!, beta2), mul(mul(g, g), 1 - beta2));
        const decayed = sub(p, mul(p, mul(rate, group.weightDecay ?? weightDecay))); // (1)
        const direction = div(div(m, scale1), add(sqrt(div(v, scale2)), eps));
        next.parameters[path] = sub(decayed, mul(direction, rate)); // (3)
        next.m[path] = m;
        next.v[path] = v;
      }
      return { parameters: next.parameters, state: { step, m: next.m, v: next.v } };
    },
  };
}
