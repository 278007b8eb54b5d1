/**
 * Rotary position embedding (RoFormer, arXiv 2104.09864, eq. (34)): pairs of channels (a, b) of queries and keys are
 * turned by angles that grow with the token's position,
 *
 *     (a, b) -> (a cos - b sin, b cos + a sin),                                                             (1)
 *
 * so that their products depend on differences of positions only. Angles are computed on the host in float64: they reach
 * thousands of radians, of which float32 keeps few digits after the point.
 */
import {
  add,
  concat,
  mul,
  reshape,
  type Shape,
  split,
  sub,
  type Tensor,
  tensor,
  unsqueeze,
} from '@deftjs/tensor';

/** Cosines and sines of the angles, each [..., L, D / 2], which broadcasts against heads [B, h, L, D / 2]. */
export interface Rotation {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** The rotation by angles given in reading order; cosines and sines are multiplied by `scale`. */
export function rotationBy(angles: Float64Array, shape: Shape, scale = 1): Rotation {
  const table = (wave: (angle: number) => number) =>
    tensor(
      Float32Array.from(angles, (angle) => scale * wave(angle)),
      shape,
    );
  return { cos: table(Math.cos), sin: table(Math.sin) };
}

/**
 * Heads [B, h, L, D] turned by (1).
 * @param pairing "neighbours": channels 2 i and 2 i + 1 are a pair; "halves": channels i and i + D / 2
 */
export function rotate(x: Tensor, { cos, sin }: Rotation, pairing: 'neighbours' | 'halves'): Tensor {
  const axis = pairing === 'halves' ? -2 : -1;
  const half = x.shape.at(-1)! / 2;
  const pairs = reshape(x, [...x.shape.slice(0, -1), ...(pairing === 'halves' ? [2, half] : [half, 2])]);
  const [a, b] = split(pairs, 2, axis) as [Tensor, Tensor];
  const [c, s] = [unsqueeze(cos, axis), unsqueeze(sin, axis)];
  return reshape(concat([sub(mul(a, c), mul(b, s)), add(mul(b, c), mul(a, s))], axis), x.shape);
}
