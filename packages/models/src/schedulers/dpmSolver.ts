/**
 * DPM-Solver++(2M) (arXiv 2211.01095 algorithm 2), as diffusers' DPMSolverMultistepScheduler of order 1 or 2.
 * With x = alpha x0 + sigma eps, lambda = ln(alpha / sigma), h = lambda' - lambda and r = (lambda - lambda_before) / h:
 *
 *   x' = (sigma' / sigma) x - alpha' (e^-h - 1) (x0 + w (x0 - x0_before) / r)
 *
 * w is 0 for a first-order step, 1/2 for the midpoint rule and -((e^-h - 1) / h + 1) / (e^-h - 1) for Heun's.
 */
import { configReader, type JsonConfig } from '@deftjs/tensor';
import { predictX0, type Sampler } from './denoising.ts';
import { readNoiseSchedule } from './noiseSchedule.ts';
import { interpolate, karrasSigmas, timestepOf, trainingSigmas } from './sigmas.ts';
import { checkNumSteps, readSpacing, roundHalfEven, spaceTimesteps } from './timesteps.ts';

/** Fewer steps than this end with a first-order one where the config says lower_order_final. */
const fewSteps = 15;

/** The sampler that the config describes. @throws ConfigError */
export function dpmSolver(config: JsonConfig): Sampler {
  const read = configReader('DPMSolverMultistepScheduler', config);
  const { alphasCumprod, predictionType } = readNoiseSchedule(read);
  const spacing = readSpacing(read, 'linspace');
  const karras = read.boolean('use_karras_sigmas', false);
  const final = read.choice('final_sigmas_type', ['zero', 'sigma_min'], 'zero');
  const heun = read.choice('solver_type', ['midpoint', 'heun'], 'midpoint') === 'heun';
  const lowerOrderFinal = read.boolean('lower_order_final', true);
  const eulerAtFinal = read.boolean('euler_at_final', false);
  const order = read.count('solver_order', 2);
  if (order !== 1 && order !== 2) read.refuse('solver_order', 'expected 1 or 2');
  read.only({
    algorithm_type: 'dpmsolver++',
    thresholding: false,
    use_exponential_sigmas: false,
    use_beta_sigmas: false,
    use_lu_lambdas: false,
    use_flow_sigmas: false,
    use_dynamic_shifting: false,
    variance_type: null,
    lambda_min_clipped: Number.NEGATIVE_INFINITY,
  });
  const levels = trainingSigmas(alphasCumprod);
  const truncated = config.beta_schedule === 'squaredcos_cap_v2';

  function visited(numSteps: number): { timesteps: number[]; sigmas: number[] } {
    if (karras) {
      const sigmas = karrasSigmas(levels[0]!, levels.at(-1)!, numSteps);
      const exact = sigmas.map((sigma) => timestepOf(sigma, levels));
      return { sigmas, timesteps: exact.map(truncated ? Math.trunc : roundHalfEven) };
    }
    // Unlike other samplers, this one drops the last of one timestep more where the spacing would reach the end.
    const timesteps =
      spacing.kind === 'trailing'
        ? spaceTimesteps(spacing, numSteps, levels.length)
        : spaceTimesteps(spacing, numSteps + 1, levels.length)
            .slice(0, -1)
            .map(roundHalfEven);
    return { timesteps, sigmas: timesteps.map((timestep) => interpolate(levels, timestep)) };
  }

  return (numSteps, skip = 0) => {
    checkNumSteps(numSteps, levels.length - 1);
    const { timesteps, sigmas } = visited(numSteps);
    const ends = [...sigmas, final === 'zero' ? 0 : levels[0]!].map(toAlphaSigma);
    const steps = timesteps.map((timestep, i) => {
      const [from, to] = [ends[i]!, ends[i + 1]!];
      const isLast = i === numSteps - 1;
      const lowOrder =
        isLast && (eulerAtFinal || (lowerOrderFinal && numSteps < fewSteps) || final === 'zero');
      const h = to.lambda - from.lambda;
      const decay = Math.expm1(-h);
      let extrapolation = 0; // w / r
      if (order === 2 && i > skip && !lowOrder) {
        const r = (from.lambda - ends[i - 1]!.lambda) / h;
        extrapolation = (heun ? -(decay / h + 1) / decay : 1 / 2) / r;
      }
      return {
        timestep,
        inputScale: 1,
        mixture: { sample: from.alpha, noise: from.sigma },
        x0: predictX0(predictionType, from.alpha, from.sigma),
        clip: Number.POSITIVE_INFINITY,
        next: {
          sample: to.sigma / from.sigma,
          output: 0,
          x0: -to.alpha * decay * (1 + extrapolation),
          previousX0: to.alpha * decay * extrapolation,
          noise: 0,
        },
      };
    });
    return { initialScale: 1, steps: steps.slice(skip) };
  };
}

// sigma of x = x0 + sigma eps, as alpha and sigma of the variance-preserving form.
function toAlphaSigma(level: number): { alpha: number; sigma: number; lambda: number } {
  const alpha = 1 / Math.sqrt(level * level + 1);
  return { alpha, sigma: level * alpha, lambda: -Math.log(level) };
}
