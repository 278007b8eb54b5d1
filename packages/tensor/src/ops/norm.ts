/**
 * Normalisation layers as functions:   y = (x - mean) r * weight + bias,   r = 1 / sqrt(var + eps)          (1)
 *
 * The variance is the mean of squared deviations (biased, two passes), so that a large mean costs no digits. With
 * z = (x - mean) r, over the n elements that share a mean,
 *
 *     dz/dx = r (I - 1 1^T / n - z z^T / n), so J v = r (v - mean(v) - z mean(z v))                          (2)
 *
 * which is symmetric: both vjp and jvp.
 */
import { formatShape, ShapeError } from '../errors.ts';
import { sameShape } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { withSymmetricDerivative } from './custom.ts';
import { add, mul, rsqrt, square, sub } from './elementwise.ts';
import { reshape } from './movement.ts';
import { mean } from './reduce.ts';

function expectChannels(
  op: string,
  channels: number,
  vectors: { [name: string]: Tensor | null | undefined },
): void {
  for (const [name, v] of Object.entries(vectors)) {
    if (v && !sameShape(v.shape, [channels])) {
      throw new ShapeError(`${op}: the ${name} must be [${channels}]; got ${formatShape(v.shape)}`);
    }
  }
}

function expectAxes(op: string, x: Tensor, least: number): void {
  if (x.rank < least) {
    throw new ShapeError(
      `${op}: expected at least ${least === 1 ? 'one axis' : 'two axes'}; got ${formatShape(x.shape)}`,
    );
  }
}

/** Zero mean and unit variance over the axes. @throws ShapeError when an axis is out of range or named twice */
export function standardize(x: Tensor, axes: number | readonly number[], eps: number): Tensor {
  const centred = (v: Tensor): Tensor => sub(v, mean(v, axes, true));
  const scale = (v: Tensor): Tensor => rsqrt(add(mean(square(centred(v)), axes, true), eps));
  return withSymmetricDerivative(
    (v) => mul(centred(v), scale(v)),
    (v, z, y) => mul(scale(y), sub(centred(v), mul(z, mean(mul(z, v), axes, true)))), // (2)
    x,
  );
}

/** Layer normalisation over the last axis (Ba et al. 2016); weight and bias [C]. @throws ShapeError */
export function layerNorm(x: Tensor, weight?: Tensor | null, bias?: Tensor | null, eps = 1e-5): Tensor {
  expectAxes('layerNorm', x, 1);
  expectChannels('layerNorm', x.shape.at(-1)!, { weight, bias });
  const y = standardize(x, -1, eps);
  const scaled = weight ? mul(y, weight) : y;
  return bias ? add(scaled, bias) : scaled;
}

/** Root-mean-square normalisation over the last axis (Zhang and Sennrich 2019); weight [C]. @throws ShapeError */
export function rmsNorm(x: Tensor, weight?: Tensor | null, eps = 1e-6): Tensor {
  expectAxes('rmsNorm', x, 1);
  expectChannels('rmsNorm', x.shape.at(-1)!, { weight });
  const y = mul(x, rsqrt(add(mean(square(x), -1, true), eps)));
  return weight ? mul(y, weight) : y;
}

/**
 * Group normalisation of x [N, C, ...] over the channels of each group and all pixels (Wu and He 2018); weight and
 * bias [C].
 * @throws ShapeError when the channels do not divide into the groups, or weight or bias are not [C]
 */
export function groupNorm(
  x: Tensor,
  groups: number,
  weight?: Tensor | null,
  bias?: Tensor | null,
  eps = 1e-5,
): Tensor {
  expectAxes('groupNorm', x, 2);
  const [n, c, ...pixels] = x.shape as [number, number, ...number[]];
  if (!(groups >= 1) || c % groups !== 0) {
    throw new ShapeError(
      `groupNorm: ${c} channels do not divide into ${groups} groups; got ${formatShape(x.shape)}`,
    );
  }
  expectChannels('groupNorm', c, { weight, bias });
  const grouped = standardize(
    reshape(x, [n, groups, c / groups, ...pixels]),
    pixels.map((_, i) => i + 3).concat(2),
    eps,
  );
  const y = reshape(grouped, x.shape);
  const channel = (v: Tensor): Tensor => reshape(v, [1, c, ...pixels.map(() => 1)]);
  const scaled = weight ? mul(y, channel(weight)) : y;
  return bias ? add(scaled, channel(bias)) : scaled;
}
