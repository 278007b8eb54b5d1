import { cast, concat, cos, mul, ShapeError, sin, type Tensor, tensor, unsqueeze } from '@deftjs/tensor';

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
  const angles = mul(unsqueeze(cast(t, 'f32'), 1), frequencies(half, half - frequencyShift, maxPeriod)); // [N, half]
  const waves = [sin(angles), cos(angles)];
  return concat(flipSinToCos ? waves.reverse() : waves, 1);
}

// Angles reach thousands of radians, where the last digit of a frequency shows: so exponents are rounded to float32 at
// each step, as they were when the networks that see these features were trained.
function frequencies(count: number, denominator: number, maxPeriod: number): Tensor {
  const exponent = (i: number) =>
    Math.fround(Math.fround(Math.fround(-Math.log(maxPeriod)) * i) / denominator);
  return tensor(
    Float32Array.from({ length: count }, (_, i) => Math.exp(exponent(i))),
    [count],
  );
}
