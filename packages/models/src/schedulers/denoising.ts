/**
 * Samplers as numbers.
 *
 * Every sampler here walks the same way; only the coefficients differ. With x the sample and o the network's output:
 *
 *   o    = network(inputScale x, timestep)
 *   x0   = x0.sample x + x0.output o                              the clean image it believes in, clamped if asked   (1)
 *   x'   = next.sample x + next.output o + next.x0 x0 + next.previousX0 x0_before + next.noise N(0, 1)               (2)
 *
 * So a sampler is a function from a config and a number of steps to a list of coefficients, computed once, in float64.
 */
import type { Mixture, PredictionType } from './noiseSchedule.ts';

export interface DenoisingStep {
  /** What the network is told; Euler and flow matching have fractions here. */
  readonly timestep: number;
  readonly inputScale: number;
  /** The sample that the step begins with is mixture.sample x0 + mixture.noise N(0, 1). */
  readonly mixture: Mixture;
  readonly x0: { readonly sample: number; readonly output: number };
  /** x0 is clamped to [-clip, clip]; Infinity where it is not. */
  readonly clip: number;
  readonly next: {
    readonly sample: number;
    readonly output: number;
    readonly x0: number;
    readonly previousX0: number;
    readonly noise: number;
  };
}

export interface Denoising {
  /** What standard normal noise is multiplied by to become the first sample. */
  readonly initialScale: number;
  readonly steps: readonly DenoisingStep[];
}

/**
 * Coefficients of a sampler for that many steps, at least 1.
 * @param skip how many of them are left out at the noisy end: drawing then begins with a sample of `mixture`
 * @throws RangeError
 */
export type Sampler = (numSteps: number, skip?: number) => Denoising;

/** What (1) and (2) need of the values they work on: arrays in tests, tensors on a device. */
export interface Combining<V> {
  /** The sum of coefficient times value; at least one term. */
  combine(terms: readonly (readonly [coefficient: number, value: V])[]): V;
  /** Values clamped to [-limit, limit]. */
  clamp(value: V, limit: number): V;
}

/** Plain arrays of one length, in float64. */
export const arrays: Combining<Float64Array> = {
  combine: (terms) =>
    Float64Array.from(terms[0]![1], (_, i) =>
      terms.reduce((sum, [weight, value]) => sum + weight * value[i]!, 0),
    ),
  clamp: (value, limit) => value.map((x) => Math.min(limit, Math.max(-limit, x))),
};

/**
 * The next sample and the x0 to hand to the following step, by (1) and (2).
 *
 * @param previousX0 the x0 of the step before; a step that weighs it needs it
 * @param noise standard normal numbers; a step that weighs them needs them
 */
export function denoise<V>(
  { combine, clamp }: Combining<V>,
  step: DenoisingStep,
  sample: V,
  output: V,
  previousX0?: V,
  noise?: V,
): { sample: V; x0: V } {
  const predicted = combine([
    [step.x0.sample, sample],
    [step.x0.output, output],
  ]);
  const x0 = step.clip === Number.POSITIVE_INFINITY ? predicted : clamp(predicted, step.clip);
  const terms: (readonly [number, V])[] = [];
  const add = (name: string, weight: number, value: V | undefined) => {
    if (weight === 0) return;
    if (value === undefined)
      throw new RangeError(`denoise: the step at timestep ${step.timestep} needs ${name}`);
    terms.push([weight, value]);
  };
  add('the sample', step.next.sample, sample);
  add('the output', step.next.output, output);
  add('x0', step.next.x0, x0);
  add('the previous x0', step.next.previousX0, previousX0);
  add('noise', step.next.noise, noise);
  return { sample: combine(terms), x0 };
}

/** Weights of the sample and of the network's output in something predicted from them. */
export interface Prediction {
  readonly sample: number;
  readonly output: number;
}

/**
 * The prediction of x0 from x = alpha x0 + sigma eps, alpha^2 + sigma^2 = 1.
 * @throws RangeError for an epsilon prediction at alpha = 0, where x holds nothing of x0
 */
export function predictX0(type: PredictionType, alpha: number, sigma: number): Prediction {
  switch (type) {
    case 'epsilon':
      if (alpha === 0)
        throw new RangeError('sampler: an epsilon prediction cannot start from zero terminal SNR');
      return { sample: 1 / alpha, output: -sigma / alpha };
    case 'v_prediction':
      return { sample: alpha, output: -sigma };
    case 'sample':
      return { sample: 0, output: 1 };
  }
}

/** The prediction of eps from x = alpha x0 + sigma eps, alpha^2 + sigma^2 = 1. */
export function predictNoise(type: PredictionType, alpha: number, sigma: number): Prediction {
  switch (type) {
    case 'epsilon':
      return { sample: 0, output: 1 };
    case 'v_prediction':
      return { sample: sigma, output: alpha };
    case 'sample':
      return { sample: 1 / sigma, output: -alpha / sigma };
  }
}
