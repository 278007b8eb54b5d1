/** Noise levels sigma_t = sqrt((1 - abar_t) / abar_t), as samplers in the manner of Karras et al. use them. */
import { linspace } from './noiseSchedule.ts';

/** Noise levels of the training timesteps, ascending. An abar of 0 counts as 2^-24, the level half floats can hold. */
export function trainingSigmas(alphasCumprod: Float64Array): Float64Array {
  return alphasCumprod.map((abar) => {
    const finite = abar === 0 ? 2 ** -24 : abar;
    return Math.sqrt((1 - finite) / finite);
  });
}

/** The value at a fractional index, linear between its neighbours. */
export function interpolate(values: Float64Array, index: number): number {
  const low = Math.min(Math.floor(index), values.length - 1);
  const high = Math.min(low + 1, values.length - 1);
  return values[low]! + (values[high]! - values[low]!) * (index - low);
}

/** Descending noise levels, evenly spaced in sigma^(1/7): arXiv 2206.00364 eq. (5). */
export function karrasSigmas(sigmaMin: number, sigmaMax: number, numSteps: number): number[] {
  const rho = 7;
  return Array.from(linspace(sigmaMax ** (1 / rho), sigmaMin ** (1 / rho), numSteps), (root) => root ** rho);
}

/** The fractional training timestep of a noise level: the inverse of the levels, linear in log sigma. */
export function timestepOf(sigma: number, sigmas: Float64Array): number {
  const logSigma = Math.log(Math.max(sigma, 1e-10));
  const above = sigmas.findIndex((level) => Math.log(level) > logSigma);
  const low = Math.min(above === -1 ? sigmas.length - 2 : Math.max(above - 1, 0), sigmas.length - 2);
  const [lowLog, highLog] = [Math.log(sigmas[low]!), Math.log(sigmas[low + 1]!)];
  return low + Math.min(1, Math.max(0, (lowLog - logSigma) / (lowLog - highLog)));
}
