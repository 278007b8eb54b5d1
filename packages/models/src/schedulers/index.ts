/** Samplers by the class names of diffusers. */
import { ConfigError, type JsonConfig } from '@deftjs/tensor';
import { ddim } from './ddim.ts';
import { ddpm } from './ddpm.ts';
import type { Sampler } from './denoising.ts';
import { dpmSolver } from './dpmSolver.ts';
import { euler } from './euler.ts';
import { flowMatchEuler } from './flowMatch.ts';

export * from './denoising.ts';
export {
  type FlowSampler,
  type FlowWalk,
  flowNoisyMixture,
  flowTargetMixture,
  logitNormalLevels,
} from './flowMatch.ts';
export {
  type Mixture,
  type NoiseSchedule,
  noiseSchedule,
  noisyMixture,
  type PredictionType,
  signalToNoise,
  targetMixture,
} from './noiseSchedule.ts';
export { ddim, ddpm, dpmSolver, euler, flowMatchEuler };

const samplers: ReadonlyMap<string, (config: JsonConfig) => Sampler> = new Map([
  ['DDPMScheduler', ddpm],
  ['DDIMScheduler', ddim],
  ['EulerDiscreteScheduler', euler],
  ['DPMSolverMultistepScheduler', dpmSolver],
  ['FlowMatchEulerDiscreteScheduler', flowMatchEuler],
]);

/**
 * The sampler of that class for the config.
 * @param className default: the one that the config names
 * @throws ConfigError when it is not implemented or the config asks for something that is not
 */
export function sampler(config: JsonConfig, className = config._class_name): Sampler {
  const make = typeof className === 'string' ? samplers.get(className) : undefined;
  if (make === undefined) {
    const known = [...samplers.keys()].join(', ');
    throw new ConfigError(
      `scheduler: class not supported; expected one of ${known}; got ${JSON.stringify(className)}`,
    );
  }
  return make(config);
}
