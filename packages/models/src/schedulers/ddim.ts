/**
 * DDIM (arXiv 2010.02502) with eta = 0, as diffusers' DDIMScheduler:
 *
 *   x' = sqrt(abar') x0 + sqrt(1 - abar') eps,   abar' = abar at T // steps before the timestep     (12 there)
 */
import { configReader, type JsonConfig } from '@deftjs/tensor';
import { predictNoise, predictX0, type Sampler } from './denoising.ts';
import { readNoiseSchedule } from './noiseSchedule.ts';
import { readSpacing, roundHalfEven, spaceTimesteps } from './timesteps.ts';

/** The sampler that the config describes. @throws ConfigError */
export function ddim(config: JsonConfig): Sampler {
  const read = configReader('DDIMScheduler', config);
  const { alphasCumprod, predictionType } = readNoiseSchedule(read);
  const spacing = readSpacing(read, 'leading');
  const finalAlphaCumprod = read.boolean('set_alpha_to_one', true) ? 1 : alphasCumprod[0]!;
  const clip = read.boolean('clip_sample', true)
    ? read.number('clip_sample_range', 1)
    : Number.POSITIVE_INFINITY;
  read.only({ thresholding: false });
  return (numSteps, skip = 0) => {
    const stride = Math.floor(alphasCumprod.length / numSteps);
    const timesteps = spaceTimesteps(spacing, numSteps, alphasCumprod.length).map(roundHalfEven);
    const steps = timesteps.map((timestep) => {
      const abar = alphasCumprod[timestep]!;
      const nextAbar = alphasCumprod[timestep - stride] ?? finalAlphaCumprod;
      const [alpha, sigma] = [Math.sqrt(abar), Math.sqrt(1 - abar)];
      const noise = predictNoise(predictionType, alpha, sigma);
      const nextSigma = Math.sqrt(1 - nextAbar);
      return {
        timestep,
        inputScale: 1,
        mixture: { sample: alpha, noise: sigma },
        x0: predictX0(predictionType, alpha, sigma),
        clip,
        next: {
          sample: nextSigma * noise.sample,
          output: nextSigma * noise.output,
          x0: Math.sqrt(nextAbar),
          previousX0: 0,
          noise: 0,
        },
      };
    });
    return { initialScale: 1, steps: steps.slice(skip) };
  };
}
