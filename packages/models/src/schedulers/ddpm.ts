/**
 * Ancestral sampling (DDPM, arXiv 2006.11239), as diffusers' DDPMScheduler: a draw from the posterior
 *
 *   q(x' | x, x0) = N(a x0 + b x, s^2),   with alpha = abar / abar', beta = 1 - alpha:                (6), (7) there
 *   a = sqrt(abar') beta / (1 - abar),   b = sqrt(alpha) (1 - abar') / (1 - abar),
 *   s^2 = beta (1 - abar') / (1 - abar)   "fixed_small",   or   beta   "fixed_large"
 */
import { configReader, type JsonConfig } from '@deftjs/tensor';
import { predictX0, type Sampler } from './denoising.ts';
import { readNoiseSchedule } from './noiseSchedule.ts';
import { readSpacing, roundHalfEven, spaceTimesteps } from './timesteps.ts';

/** The sampler that the config describes. @throws ConfigError */
export function ddpm(config: JsonConfig): Sampler {
  const read = configReader('DDPMScheduler', config);
  const { alphasCumprod, predictionType } = readNoiseSchedule(read);
  const spacing = readSpacing(read, 'leading');
  const variance = read.choice('variance_type', ['fixed_small', 'fixed_large'], 'fixed_small');
  const clip = read.boolean('clip_sample', true)
    ? read.number('clip_sample_range', 1)
    : Number.POSITIVE_INFINITY;
  read.only({ thresholding: false });
  return (numSteps, skip = 0) => {
    const stride = Math.floor(alphasCumprod.length / numSteps);
    const timesteps = spaceTimesteps(spacing, numSteps, alphasCumprod.length).map(roundHalfEven);
    const steps = timesteps.map((timestep) => {
      const abar = alphasCumprod[timestep]!;
      const nextAbar = alphasCumprod[timestep - stride] ?? 1;
      const alpha = abar / nextAbar;
      const beta = 1 - alpha;
      const small = Math.max((beta * (1 - nextAbar)) / (1 - abar), 1e-20);
      return {
        timestep,
        inputScale: 1,
        mixture: { sample: Math.sqrt(abar), noise: Math.sqrt(1 - abar) },
        x0: predictX0(predictionType, Math.sqrt(abar), Math.sqrt(1 - abar)),
        clip,
        next: {
          sample: (Math.sqrt(alpha) * (1 - nextAbar)) / (1 - abar),
          output: 0,
          x0: (Math.sqrt(nextAbar) * beta) / (1 - abar),
          previousX0: 0,
          noise: timestep === 0 ? 0 : Math.sqrt(variance === 'fixed_small' ? small : beta),
        },
      };
    });
    return { initialScale: 1, steps: steps.slice(skip) };
  };
}
