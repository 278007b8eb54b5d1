/**
 * Rectified flow (arXiv 2209.03003): x_s = (1 - s) x0 + s eps, the network predicts dx/ds = eps - x0, and Euler steps
 * lead from s = 1 down to 0, as diffusers' FlowMatchEulerDiscreteScheduler:
 *
 *   x' = x + (s' - s) o                                                                                     (1)
 *
 * Levels are shifted towards noise by s -> k s / (1 + (k - 1) s) (arXiv 2403.03206 eq. (23)), where k is a constant or
 * grows with the number of tokens of the picture ("dynamic shifting"): k = e^mu, or mu itself, mu linear in the tokens.
 * With inverted levels (OmniGen) time runs the other way, t = 1 - s, and the network predicts dx/dt = x0 - eps.
 */
import { type ConfigReader, configReader, type JsonConfig, type Key, normalNumbers } from '@deftjs/tensor';
import type { Denoising } from './denoising.ts';
import { linspace, type Mixture } from './noiseSchedule.ts';
import { checkNumSteps } from './timesteps.ts';

/** How a pipeline walks. */
export interface FlowWalk {
  /** Tokens of the pictures: needed where the config shifts dynamically. */
  readonly imageTokens?: number;
  /** Levels 1, 1 - 1/N ... 1/N before they are shifted, as FLUX and OmniGen want. Default: from 1 to the last training level. */
  readonly even?: boolean;
}

/** Coefficients of a flow for a number of steps. @throws RangeError as `Sampler`, or when the number of tokens is missing */
export type FlowSampler = (numSteps: number, skip?: number, walk?: FlowWalk) => Denoising;

/** The sampler that the config describes. @throws ConfigError */
export function flowMatchEuler(config: JsonConfig): FlowSampler {
  const read = configReader('FlowMatchEulerDiscreteScheduler', config);
  const numTrainTimesteps = read.count('num_train_timesteps', 1000);
  const inverted = read.boolean('invert_sigmas', false);
  const shiftOf = readShift(read);
  read.only({
    shift_terminal: null,
    use_karras_sigmas: false,
    use_exponential_sigmas: false,
    use_beta_sigmas: false,
    stochastic_sampling: false,
  });
  return (numSteps, skip = 0, { imageTokens, even = false } = {}) => {
    checkNumSteps(numSteps, even ? Number.POSITIVE_INFINITY : numTrainTimesteps);
    const k = shiftOf(imageTokens);
    const shift = (s: number) => (k.by * s) / (1 + (k.by - 1) * s);
    // The lower end has been shifted already when the levels between the ends are: so diffusers has it.
    const last = k.dynamic ? 1 / numTrainTimesteps : shift(1 / numTrainTimesteps);
    const levels = Array.from(linspace(1, even ? 1 / numSteps : last, numSteps), shift);
    const sign = inverted ? -1 : 1;
    const steps = levels.map((level, i) => ({
      timestep: (inverted ? 1 - level : level) * numTrainTimesteps,
      inputScale: 1,
      mixture: flowNoisyMixture(level),
      x0: { sample: 1, output: -sign * level },
      clip: Number.POSITIVE_INFINITY,
      next: { sample: 1, output: sign * ((levels[i + 1] ?? 0) - level), x0: 0, previousX0: 0, noise: 0 }, // (1)
    }));
    return { initialScale: 1, steps: steps.slice(skip) };
  };
}

/** k for pictures of so many tokens. */
function readShift(read: ConfigReader): (imageTokens?: number) => { by: number; dynamic: boolean } {
  const constant = read.number('shift', 1);
  const [fewest, most] = [read.count('base_image_seq_len', 256), read.count('max_image_seq_len', 4096)];
  const [least, greatest] = [read.number('base_shift', 0.5), read.number('max_shift', 1.15)];
  const exponential =
    read.choice('time_shift_type', ['exponential', 'linear'], 'exponential') === 'exponential';
  if (!read.boolean('use_dynamic_shifting', false)) return () => ({ by: constant, dynamic: false });
  return (imageTokens) => {
    if (imageTokens === undefined) {
      throw new RangeError('flowMatchEuler: use_dynamic_shifting needs the number of image tokens');
    }
    const mu = least + ((greatest - least) * (imageTokens - fewest)) / (most - fewest);
    return { by: exponential ? Math.exp(mu) : mu, dynamic: true };
  };
}

/** The weights of x0 and eps in x_s, s in [0, 1]. */
export function flowNoisyMixture(s: number): Mixture {
  return { sample: 1 - s, noise: s };
}

/** The weights of x0 and eps in what the network is trained to predict, at every s. */
export const flowTargetMixture: Mixture = { sample: -1, noise: 1 };

/**
 * Levels s to train at, in (0, 1): sigmoid(mean + std N(0, 1)), most of them where the task is hardest
 * (arXiv 2403.03206, section 3.1).
 */
export function logitNormalLevels(key: Key, count: number, { mean = 0, std = 1 } = {}): Float32Array {
  return Float32Array.from(normalNumbers(key, count), (z) => 1 / (1 + Math.exp(-(mean + std * z))));
}
