/**
 * The noise schedule of discrete-time diffusion (DDPM, arXiv 2006.11239), and what training needs of it.
 *
 *   x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,   abar_t = prod_{s <= t} (1 - beta_s)     (1)
 *
 * A network predicts one of three things, each an affine function of the other two and x_t:
 *
 *   epsilon        eps
 *   v_prediction   v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0     (arXiv 2202.00512, appendix D)     (2)
 *   sample         x_0
 */
import { type ConfigReader, configReader, type JsonConfig } from '@deftjs/tensor';

export const predictionTypes = ['epsilon', 'v_prediction', 'sample'] as const;
export type PredictionType = (typeof predictionTypes)[number];

export interface NoiseSchedule {
  /** abar_t for t = 0 .. T - 1. */
  readonly alphasCumprod: Float64Array;
  readonly predictionType: PredictionType;
}

/**
 * The schedule that a diffusers scheduler_config.json describes, whatever sampler it belongs to.
 * @throws ConfigError
 */
export function noiseSchedule(config: JsonConfig): NoiseSchedule {
  return readNoiseSchedule(configReader('scheduler', config));
}

/** The noise schedule among the fields of a scheduler's config. @throws ConfigError */
export function readNoiseSchedule(read: ConfigReader): NoiseSchedule {
  const numTrainTimesteps = read.count('num_train_timesteps', 1000);
  const betas = readBetas(read, numTrainTimesteps);
  let product = 1;
  let alphasCumprod: Float64Array = betas.map((beta) => {
    product *= 1 - beta;
    return product;
  });
  if (read.boolean('rescale_betas_zero_snr', false)) alphasCumprod = rescaleToZeroTerminalSnr(alphasCumprod);
  return { alphasCumprod, predictionType: read.choice('prediction_type', predictionTypes, 'epsilon') };
}

function readBetas(read: ConfigReader, length: number): Float64Array {
  const trained = read.numbers('trained_betas', length);
  if (trained !== undefined) return Float64Array.from(trained);
  const start = read.number('beta_start', 0.0001);
  const end = read.number('beta_end', 0.02);
  switch (read.choice('beta_schedule', ['linear', 'scaled_linear', 'squaredcos_cap_v2'], 'linear')) {
    case 'linear':
      return linspace(start, end, length);
    case 'scaled_linear':
      return linspace(Math.sqrt(start), Math.sqrt(end), length).map((root) => root * root);
    case 'squaredcos_cap_v2':
      return cosineBetas(length);
  }
}

/** `length` numbers from start to end, both included. */
export function linspace(start: number, end: number, length: number): Float64Array {
  return Float64Array.from({ length }, (_, i) =>
    length === 1 ? start : start + ((end - start) * i) / (length - 1),
  );
}

// abar(u) = cos^2((u + 0.008) / 1.008 * pi / 2), arXiv 2102.09672 eq. (17); betas capped at 0.999.
function cosineBetas(length: number): Float64Array {
  const abar = (u: number) => Math.cos(((u + 0.008) / 1.008) * (Math.PI / 2)) ** 2;
  return Float64Array.from({ length }, (_, i) =>
    Math.min(1 - abar((i + 1) / length) / abar(i / length), 0.999),
  );
}

// arXiv 2305.08891 algorithm 1: sqrt(abar) shifted so that its last value is 0, scaled so that its first one stays.
function rescaleToZeroTerminalSnr(alphasCumprod: Float64Array): Float64Array {
  const first = Math.sqrt(alphasCumprod[0]!);
  const last = Math.sqrt(alphasCumprod.at(-1)!);
  return alphasCumprod.map((abar) => (((Math.sqrt(abar) - last) * first) / (first - last)) ** 2);
}

/** Weights of clean data and of noise in a sum of the two. */
export interface Mixture {
  readonly sample: number;
  readonly noise: number;
}

/** The weights of x_0 and eps in x_t: (1). */
export function noisyMixture({ alphasCumprod }: NoiseSchedule, timestep: number): Mixture {
  const abar = alphasCumprod[timestep];
  if (abar === undefined) {
    throw new RangeError(
      `noisyMixture: expected a timestep in [0, ${alphasCumprod.length - 1}]; got ${timestep}`,
    );
  }
  return { sample: Math.sqrt(abar), noise: Math.sqrt(1 - abar) };
}

/** The weights of x_0 and eps in what the network is trained to predict. */
export function targetMixture(schedule: NoiseSchedule, timestep: number): Mixture {
  const { sample, noise } = noisyMixture(schedule, timestep);
  switch (schedule.predictionType) {
    case 'epsilon':
      return { sample: 0, noise: 1 };
    case 'v_prediction':
      return { sample: -noise, noise: sample }; // (2)
    case 'sample':
      return { sample: 1, noise: 0 };
  }
}

/** abar_t / (1 - abar_t): the signal-to-noise ratio at the timestep. */
export function signalToNoise(schedule: NoiseSchedule, timestep: number): number {
  const { sample, noise } = noisyMixture(schedule, timestep);
  return (sample / noise) ** 2;
}
