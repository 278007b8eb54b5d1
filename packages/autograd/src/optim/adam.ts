/**
 * Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019), as PyTorch computes them:
 *
 *     m <- b1 m + (1 - b1) g            v <- b2 v + (1 - b2) g^2                                  (1)
 *     p <- p - lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps)                                 (2)
 *
 * AdamW first shrinks p by lr * decay * p; Adam adds decay * p to g. t counts steps from 1 and is part of the state.
 */
import {
  add,
  cast,
  div,
  exp,
  less,
  mul,
  neg,
  type Operand,
  sqrt,
  square,
  sub,
  Tensor,
  type Tree,
  treeLeaves,
  treeWith,
  where,
  zeros,
} from '@deftjs/tensor';
import {
  awayFrom,
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

export interface AdamOptions {
  /** b1 and b2; default 0.9 and 0.999. */
  readonly betas?: readonly [number, number];
  /** Added to the root of the corrected second moment; default 1e-8. */
  readonly eps?: number;
  /** Default 0 for Adam, 0.01 for AdamW. */
  readonly weightDecay?: number;
  readonly groups?: readonly ParameterGroup[];
}

/** Steps taken, as an f32 scalar (exact to 2^24), and the moments of each parameter. */
export type AdamState = { readonly step: Tensor; readonly m: Tree; readonly v: Tree };

/**
 * 1 - beta^t for whole t >= 1. beta^t is near 1 for small t, where the difference would lose up to four digits of
 * f32: there z = -t log(beta) is small and 1 - e^-z = z (1 - z/2 (1 - z/3 (1 - ...))).
 */
function oneMinusPower(beta: number, step: Tensor): Operand {
  if (beta === 0) return 1;
  const z = mul(step, -Math.log(beta));
  let series: Operand = 1;
  for (let n = 8; n >= 2; n -= 1) series = sub(1, mul(mul(z, 1 / n), series));
  return where(less(z, 1 / 8), mul(z, series), sub(1, exp(neg(z)))); // next term: 8^-8 / 9! < 2e-13
}

function adamLike(name: 'adam' | 'adamW', options: AdamOptions): Optimizer<AdamState> {
  const { betas = [0.9, 0.999], eps = 1e-8, groups = [] } = options;
  const [b1, b2] = betas;
  const decoupled = name === 'adamW';
  const weightDecay = options.weightDecay ?? (decoupled ? 0.01 : 0);
  expectRange(name, 'betas[0]', b1, 0, 1);
  expectRange(name, 'betas[1]', b2, 0, 1);
  expectRange(name, 'eps', eps, 0, Number.POSITIVE_INFINITY);
  expectRange(name, 'weightDecay', weightDecay, 0, Number.POSITIVE_INFINITY);
  return {
    init: (parameters) => ({
      step: zeros([]),
      m: treeWith(parameters, zeroMoments(parameters)),
      v: treeWith(parameters, zeroMoments(parameters)),
    }),
    update(parameters, gradients, state, { learningRate, decayTowards }) {
      const [gs, ms, vs] = leavesAlike(name, parameters, { gradients, m: state.m, v: state.v }) as [
        Tensor[],
        Tensor[],
        Tensor[],
      ];
      const settings = settingsOf(parameters, groups, weightDecay);
      const away = awayFrom(name, parameters, decayTowards);
      const shrink = decayedBy(name, parameters, decayTowards);
      const step = add(state.step, 1);
      // Scalars of a step, in the two types that parameters may have: shared by all of them.
      const scalars = new Map<string, { root: Operand; rate: Operand; correction: Operand }>();
      const scalarsIn = (dtype: Tensor['dtype']) => {
        const known = scalars.get(dtype);
        if (known) return known;
        const t = cast(step, dtype);
        const rate = learningRate instanceof Tensor ? cast(learningRate, dtype) : learningRate;
        const second = oneMinusPower(b2, t);
        const made = {
          rate,
          correction: oneMinusPower(b1, t),
          root: second instanceof Tensor ? sqrt(second) : Math.sqrt(second),
        };
        scalars.set(dtype, made);
        return made;
      };
      const next = treeLeaves(parameters).map((stored, i) => {
        const [m, v, { learningRateFactor, weightDecay: decay }] = [ms[i]!, vs[i]!, settings[i]!];
        const { rate, correction, root } = scalarsIn(m.dtype);
        const lr = times(rate, learningRateFactor);
        const p = inTypeOf(m, stored);
        const raw = inTypeOf(m, gs[i]!);
        const g = decoupled || decay === 0 ? raw : add(raw, mul(away(p, i), decay));
        const shrunk = decoupled && decay !== 0 ? shrink(p, i, times(lr, decay)) : p;
        const nextM = add(mul(m, b1), mul(g, 1 - b1)); // (1)
        const nextV = add(mul(v, b2), mul(square(g), 1 - b2));
        const denominator = add(div(sqrt(nextV), root), eps);
        const moved = sub(shrunk, mul(quotient(lr, correction), div(nextM, denominator))); // (2)
        return { p: cast(moved, stored.dtype), m: nextM, v: nextV };
      });
      return {
        parameters: treeWith(
          parameters,
          next.map(({ p }) => p),
        ),
        state: {
          step,
          m: treeWith(
            state.m,
            next.map(({ m }) => m),
          ),
          v: treeWith(
            state.v,
            next.map(({ v }) => v),
          ),
        },
      };
    },
  };
}

const quotient = (a: Operand, b: Operand): Operand =>
  a instanceof Tensor || b instanceof Tensor ? div(a, b) : a / b;

/** Adam; weight decay is added to the gradient. @throws RangeError for settings out of range */
export function adam(options: AdamOptions = {}): Optimizer<AdamState> {
  return adamLike('adam', options);
}

/** AdamW; weight decay shrinks the parameter by itself. @throws RangeError for settings out of range */
export function adamW(options: AdamOptions = {}): Optimizer<AdamState> {
  return adamLike('adamW', options);
}
