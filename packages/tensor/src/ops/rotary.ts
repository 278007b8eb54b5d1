/**
 * Rotary position embedding (Su et al. 2021, RoFormer, eq. 34): each pair of channels (a, b) turned by an angle,
 *
 *     (a, b) -> (a cos t - b sin t, b cos t + a sin t),    t = position * base^(-2 i / width) for pair i        (1)
 *
 * Cosines are made on the host in float64: sin and cos of a shader are good to 2^-11 only. Which channels pair up is a
 * convention of the checkpoint: neighbours (FLUX, RoFormer) or channel i with channel i + D/2 (Llama, OmniGen).
 */
import { encode } from '../dtype.ts';
import { formatShape, formatShapes, ShapeError } from '../errors.ts';
import { checkShape, sameShape } from '../shape.ts';
import { type Tensor, tensor } from '../tensor.ts';
import { add, cast, mul, sub } from './elementwise.ts';
import { expand } from './expand.ts';
import { flip, reshape, unsqueeze } from './movement.ts';
import { iota } from './source.ts';

/** Cosines and sines of the angles of (1): [positions, width / 2] each. */
export interface RotaryTable {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/**
 * The table of (1) for the given positions (any finite numbers) and `width` channels, in f32.
 * @throws ShapeError unless the width is even, RangeError unless base > 0
 */
export function rotaryTable(positions: readonly number[], width: number, base = 10_000): RotaryTable {
  checkShape('rotaryTable', [width]);
  if (width % 2 !== 0) throw new ShapeError(`rotaryTable: the width must be even; got ${width}`);
  if (!(base > 0)) throw new RangeError(`rotaryTable: the base must be > 0; got ${base}`);
  const angles = positions.flatMap((position) =>
    Array.from({ length: width / 2 }, (_, i) => position * base ** ((-2 * i) / width)),
  );
  const table = (f: (angle: number) => number): Tensor =>
    tensor(encode('f32', angles.map(f)), [positions.length, width / 2], 'f32');
  return { cos: table(Math.cos), sin: table(Math.sin) };
}

/**
 * Equation (1) on x [..., T, D] with cos and sin that broadcast to [..., T, D/2].
 * @param pairs which channels turn together: 'interleaved' 2i and 2i + 1, 'halves' i and i + D/2
 * @throws ShapeError when D is odd or the tables do not fit, DTypeError when types differ
 */
export function rope(
  x: Tensor,
  { cos, sin }: RotaryTable,
  { pairs }: { readonly pairs: 'interleaved' | 'halves' },
): Tensor {
  const width = x.shape.at(-1);
  if (width === undefined || width % 2 !== 0) {
    throw new ShapeError(`rope: expected an even number of channels [..., D]; got ${formatShape(x.shape)}`);
  }
  const angles = [...x.shape.slice(0, -1), width / 2];
  if (!sameShape(cos.shape, sin.shape) || cos.shape.at(-1) !== width / 2) {
    throw new ShapeError(
      `rope: cos and sin must broadcast to ${formatShape(angles)}; got ${formatShapes([cos.shape, sin.shape])}`,
    );
  }
  const axis = pairs === 'interleaved' ? -1 : -2; // of the two channels of a pair
  const paired = reshape(x, [
    ...x.shape.slice(0, -1),
    ...(pairs === 'interleaved' ? [width / 2, 2] : [2, width / 2]),
  ]);
  const over = (table: Tensor): Tensor => unsqueeze(expand(table, angles), axis);
  const signs = sub(mul(cast(iota(paired.shape, axis), x.dtype), 2), 1); // -1 for a, 1 for b
  const turned = add(mul(paired, over(cos)), mul(flip(paired, axis), mul(signs, over(sin)))); // (1)
  return reshape(turned, x.shape);
}
