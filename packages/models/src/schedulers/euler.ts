/**
 * Euler steps on the probability flow, in samples scaled to x = x0 + sigma eps (arXiv 2206.00364 algorithm 1 without
 * churn), as diffusers' EulerDiscreteScheduler:
 *
 *   x' = x + (sigma' - sigma) (x - x0) / sigma
 *
 * The network was trained on alpha x with alpha = 1 / sqrt(sigma^2 + 1), which is the input scale.
 */
import { configReader, type JsonConfig } from '@deftjs/tensor';
import { predictX0, type Sampler } from './denoising.ts';
import { readNoiseSchedule } from './noiseSchedule.ts';
import { interpolate, karrasSigmas, timestepOf, trainingSigmas } from './sigmas.ts';
import { readSpacing, spaceTimesteps } from './timesteps.ts';

/** The sampler that the config describes. @throws ConfigError */
export function euler(config: JsonConfig): Sampler {
  const read = configReader('EulerDiscreteScheduler', config);
  const { alphasCumprod, predictionType } = readNoiseSchedule(read);
  const spacing = readSpacing(read, 'linspace');
  const karras = read.boolean('use_karras_sigmas', false);
  const final = read.choice('final_sigmas_type', ['zero', 'sigma_min'], 'zero');
  read.only({
    interpolation_type: 'linear',
    use_exponential_sigmas: false,
    use_beta_sigmas: false,
    timestep_type: 'discrete',
    sigma_min: null,
    sigma_max: null,
  });
  const levels = trainingSigmas(alphasCumprod);
  return (numSteps, skip = 0) => {
    let timesteps = spaceTimesteps(spacing, numSteps, alphasCumprod.length);
    let sigmas = timesteps.map((timestep) => interpolate(levels, timestep));
    if (karras) {
      sigmas = karrasSigmas(sigmas.at(-1)!, sigmas[0]!, numSteps);
      timesteps = sigmas.map((sigma) => timestepOf(sigma, levels));
    }
    const last = final === 'zero' ? 0 : levels[0]!;
    const steps = sigmas.map((sigma, i) => {
      const alpha = 1 / Math.sqrt(sigma * sigma + 1);
      const x0 = predictX0(predictionType, alpha, sigma * alpha);
      const slope = ((sigmas[i + 1] ?? last) - sigma) / sigma;
      return {
        timestep: timesteps[i]!,
        inputScale: alpha,
        mixture: { sample: 1, noise: sigma },
        x0: { sample: x0.sample * alpha, output: x0.output },
        clip: Number.POSITIVE_INFINITY,
        next: { sample: 1 + slope, output: 0, x0: -slope, previousX0: 0, noise: 0 },
      };
    });
    const largest = Math.max(...sigmas);
    return {
      initialScale: spacing.kind === 'leading' ? Math.hypot(largest, 1) : largest,
      steps: steps.slice(skip),
    };
  };
}
