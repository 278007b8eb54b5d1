/** What is done to gradients and weights besides stepping. */
import { add, div, minimum, mul, sqrt, square, sub, sum, type Tensor } from '@deftjs/tensor';
import type { State } from './optimizer.ts';

/** The Euclidean norm of all tensors together: a scalar. @throws RangeError when there is none */
export function globalNorm(tensors: Readonly<State>): Tensor {
  const squares = Object.values(tensors).map((x) => sum(square(x)));
  if (squares.length === 0) throw new RangeError('globalNorm: expected at least one tensor');
  return sqrt(squares.reduce((total, x) => add(total, x)));
}

/**
 * The gradients scaled down to a global norm of at most `maxNorm`, and the norm they had. As PyTorch: the factor is
 * maxNorm / (norm + 1e-6), at most 1.
 */
export function clipByGlobalNorm(
  gradients: Readonly<State>,
  maxNorm: number,
): { clipped: State; norm: Tensor } {
  const norm = globalNorm(gradients);
  const factor = minimum(div(maxNorm, add(norm, 1e-6)), 1);
  return {
    clipped: Object.fromEntries(Object.entries(gradients).map(([path, g]) => [path, mul(g, factor)])),
    norm,
  };
}

/** The moving average of weights: decay * average + (1 - decay) * weights; `decay` is a scalar tensor. */
export function movingAverage(average: Readonly<State>, weights: Readonly<State>, decay: Tensor): State {
  return Object.fromEntries(
    Object.entries(weights).map(([path, w]) => {
      const before = average[path]!;
      return [path, add(w, mul(sub(before, w), decay))];
    }),
  );
}
