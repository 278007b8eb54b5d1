/** Gradients held in bounds, and averages of parameters over time. */
import {
  add,
  cast,
  clamp,
  div,
  minimum,
  mul,
  sqrt,
  square,
  sub,
  sum,
  Tensor,
  type Tree,
  treeLeaves,
  treeMap,
  treeWith,
  zeros,
} from '@deftjs/tensor';
import { leavesAlike } from './optimizer.ts';

/** The Euclidean length of all tensors of a tree taken as one vector, as a scalar: f64 if one of them is, else f32. */
export function globalNorm(tree: Tree): Tensor {
  const leaves = treeLeaves(tree);
  const dtype = leaves.some((x) => x.dtype === 'f64') ? 'f64' : 'f32';
  const squares = leaves.map((x) => sum(square(cast(x, dtype))));
  return sqrt(squares.reduce((total, term) => add(total, term), zeros([], dtype)));
}

/**
 * The tree scaled so that its norm is at most `maxNorm`, and the norm before. The factor is
 * min(1, maxNorm / (norm + 1e-6)), as in PyTorch; a norm that is not finite makes everything NaN.
 */
export function clipByGlobalNorm<P extends Tree>(
  gradients: P,
  maxNorm: number,
): { clipped: P; norm: Tensor } {
  const norm = globalNorm(gradients);
  const factor = minimum(div(maxNorm, add(norm, 1e-6)), 1);
  return { clipped: treeMap((g) => mul(g, cast(factor, g.dtype)), gradients), norm };
}

/** Every element held within [-limit, limit]. */
export function clipByValue<P extends Tree>(gradients: P, limit: number): P {
  return treeMap((g) => clamp(g, -limit, limit), gradients);
}

/**
 * total + weight * gradients, in the types of the total: the gradient of a large batch, part by part. Weights are each
 * part's share of the batch, and the first total is zeros: the sum is the gradient of the mean over the whole batch, up
 * to rounding.
 * @throws ShapeError when the trees do not fit
 */
export function accumulate<P extends Tree>(total: P, gradients: P, weight: Tensor | number): P {
  const [gs] = leavesAlike('accumulate', total, { gradients }) as [Tensor[]];
  const sums = treeLeaves(total).map((t, i) => {
    const share = weight instanceof Tensor ? cast(weight, t.dtype) : weight;
    return add(t, mul(cast(gs[i]!, t.dtype), share));
  });
  return treeWith(total, sums);
}

/**
 * decay * average + (1 - decay) * parameters: the exponential moving average one step on.
 * @throws ShapeError when the trees do not fit
 */
export function movingAverage<P extends Tree>(average: P, parameters: P, decay: Tensor | number): P {
  const [ps] = leavesAlike('movingAverage', average, { parameters }) as [Tensor[]];
  return treeWith(
    average,
    treeLeaves(average).map((a, i) => {
      const kept = decay instanceof Tensor ? cast(decay, a.dtype) : decay;
      const rest = kept instanceof Tensor ? sub(1, kept) : 1 - kept;
      return add(mul(a, kept), mul(cast(ps[i]!, a.dtype), rest));
    }),
  );
}
