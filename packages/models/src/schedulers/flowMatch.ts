/**
 * Rectified flow (arXiv 2209.03003): x_s = (1 - s) x0 + s eps, the network predicts dx/ds = eps - x0, and Euler steps
 * lead from s = 1 down to 0, as diffusers' FlowMatchEulerDiscreteScheduler:
 *
 *   x' = x + (s' - s) o
 *
 * Levels are shifted towards noise by s -> k s / (1 + (k - 1) s) (arXiv 2403.03206 eq. (23)).
 */
import { configReader, type JsonConfig } from '@deftjs/tensor';
import type { Sampler } from './denoising.ts';
import { linspace, type Mixture } from './noiseSchedule.ts';
import { checkNumSteps } from './timesteps.ts';

/** The sampler that the config describes. @throws ConfigError */
export function flowMatchEuler(config: JsonConfig): Sampler {
  const read = configReader('FlowMatchEulerDiscreteScheduler', config);
  const numTrainTimesteps = read.count('num_train_timesteps', 1000);
  const k = read.number('shift', 1);
  read.only({
    use_dynamic_shifting: false,
    invert_sigmas: false,
    shift_terminal: null,
    use_karras_sigmas: false,
    use_exponential_sigmas: false,
    use_beta_sigmas: false,
    stochastic_sampling: false,
  });
  const shift = (s: number) => (k * s) / (1 + (k - 1) * s);
  return (numSteps) => {
    checkNumSteps(numSteps, numTrainTimesteps);
    // The lower end has been shifted already when the levels between the ends are: so diffusers has it.
    const levels = Array.from(linspace(1, shift(1 / numTrainTimesteps), numSteps), shift);
    const steps = levels.map((level, i) => ({
      timestep: level * numTrainTimesteps,
      inputScale: 1,
      x0: { sample: 1, output: -level },
      clip: Number.POSITIVE_INFINITY,
      next: { sample: 1, output: (levels[i + 1] ?? 0) - level, x0: 0, previousX0: 0, noise: 0 },
    }));
    return { initialScale: 1, steps };
  };
}

/** The weights of x0 and eps in x_s, s in [0, 1]. */
export function flowNoisyMixture(s: number): Mixture {
  return { sample: 1 - s, noise: s };
}

/** The weights of x0 and eps in what the network is trained to predict, at every s. */
export const flowTargetMixture: Mixture = { sample: -1, noise: 1 };
