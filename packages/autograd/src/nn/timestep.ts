import { arange, cast, concat, cos, exp, mul, ShapeError, sin, type Tensor, unsqueeze } from '@deftjs/tensor';

export interface TimestepEmbeddingOptions {
  /** Cosines before sines (diffusers' `flip_sin_to_cos`). */
  readonly flipSinToCos?: boolean;
  /** Subtracted from half the width in the exponent's denominator (`downscale_freq_shift`). */
  readonly frequencyShift?: number;
  readonly maxPeriod?: number;
}

/**
 * Sinusoidal features of timesteps (Vaswani et al. 2017, section 3.5): sin and cos of t maxPeriod^(-i / (h - shift)),
 * i = 0 ... h - 1, h = width / 2.
 *
 * @param t timesteps [N], any number type
 * @returns [N, width]
 * @throws ShapeError when the width is odd
 */
export function timestepEmbedding(t: Tensor, width: number, options: TimestepEmbeddingOptions = {}): Tensor {
  const { flipSinToCos = false, frequencyShift = 1, maxPeriod = 10000 } = options;
  if (width % 2 !== 0) throw new ShapeError(`timestepEmbedding: the width must be even; got ${width}`);
  const half = width / 2;
  const exponent = mul(cast(arange(half), 'f32'), -Math.log(maxPeriod) / (half - frequencyShift));
  const angles = mul(unsqueeze(cast(t, 'f32'), 1), exp(exponent)); // [N, half]
  const waves = [sin(angles), cos(angles)];
  return concat(flipSinToCos ? waves.reverse() : waves, 1);
}
