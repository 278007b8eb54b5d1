/**
 * What a denoiser is trained to do. At every level of noise a picture x0 and noise eps make what it sees and what it should
 * predict, both mixtures of the two:
 *
 *     seen = a x0 + b eps,     target = c x0 + d eps,     error = w mean |network(seen, time, caption) - target|^2     (1)
 *
 * Rectified flow (arXiv 2209.03003) has a = 1 - s, b = s, target eps - x0; diffusion (arXiv 2006.11239) has a^2 + b^2 = 1 and
 * a target of eps, x0 or v. x0 follows from a prediction o as (d seen - b o) / (a d - b c), so with SNR = (a / b)^2 the weight
 * that makes (1) an error of x0 times min(SNR, gamma), min-SNR (arXiv 2303.09556), is
 *
 *     w = min(SNR, gamma) (b / (a d - b c))^2 = min(1, gamma (b / a)^2) (a / (a d - b c))^2                            (2)
 *
 * min(1, gamma / SNR) for eps and min(SNR, gamma) / (SNR + 1) for v, as the paper has it.
 */
import {
  type Denoiser,
  flowNoisyMixture,
  flowTargetMixture,
  type Mixture,
  type NoiseSchedule,
  noisyMixture,
  targetMixture,
} from '@deftjs/models';
import {
  add,
  foldIn,
  type Key,
  keyOf,
  mean,
  mul,
  narrow,
  normalNumbers,
  reshape,
  square,
  sub,
  type Tensor,
  type Tree,
  threefryNumbers,
} from '@deftjs/tensor';

/** How levels are drawn: evenly, or sigmoid(N(0, 1)), most of them in the middle (arXiv 2403.03206, section 3.1). */
export type LevelSampling = 'uniform' | 'logit_normal';

/** One level of noise. */
interface Level {
  /** What the network is told. */
  readonly time: number;
  readonly seen: Mixture;
  readonly target: Mixture;
}

/** A kind of objective. */
export interface Objective {
  /** The level at a place u in [0, 1) between picture and noise. */
  at(u: number): Level;
  /** How levels are drawn unless the configuration says otherwise. */
  readonly sampling: LevelSampling;
}

/** Rectified flow; the network is told 1000 s. */
export const flow: Objective = {
  at: (s) => ({ time: 1000 * s, seen: flowNoisyMixture(s), target: flowTargetMixture }),
  sampling: 'logit_normal',
};

/** The same with time running from noise to picture, as OmniGen is trained: told `longest` (1 - s), it predicts x0 - eps. */
export function timeReversedFlow(longest: number): Objective {
  return {
    at: (s) => ({
      time: longest * (1 - s),
      seen: flowNoisyMixture(s),
      target: { sample: 1, noise: -1 },
    }),
    sampling: 'logit_normal',
  };
}

/** Diffusion by a schedule, which says what is predicted. */
export function diffusion(schedule: NoiseSchedule): Objective {
  const steps = schedule.alphasCumprod.length;
  return {
    at(u) {
      const time = Math.min(steps - 1, Math.floor(steps * u));
      return { time, seen: noisyMixture(schedule, time), target: targetMixture(schedule, time) };
    },
    sampling: 'uniform',
  };
}

export interface NoiseOptions {
  /** null: the objective's own. */
  readonly sampling: LevelSampling | null;
  /** gamma of (2); null: w = 1. */
  readonly minSnrGamma: number | null;
  /** Standard deviation of a noise that is the same all over a channel: lets pictures differ in brightness as a whole. */
  readonly offset: number;
}

/** Columns of the table of levels: time, a, b, c, d, w. */
const columns = 6;

/** The noise of some pictures, on the host. */
export interface Noise {
  /** Standard normal numbers (and an offset), as many as the pictures have. */
  readonly noise: Float32Array;
  /** Six numbers for each picture: time, a, b, c, d and w of (1). */
  readonly levels: Float32Array;
}

/** w of (2). */
function weightOf(
  { seen: { sample: a, noise: b }, target: { sample: c, noise: d } }: Level,
  gamma: number,
): number {
  return Math.min(1, gamma * (b / a) ** 2) * (a / (a * d - b * c)) ** 2;
}

/** The place u of a level. */
function placeOf(key: Key, sampling: LevelSampling): number {
  if (sampling === 'uniform') return threefryNumbers(key, 1)[0]!;
  return 1 / (1 + Math.exp(-normalNumbers(key, 1)[0]!));
}

/**
 * The noise of pictures: each a pure function of the seed and the picture's place in the whole run, whatever the batches.
 * @param places one for each picture
 * @param shape channels, height and width of a picture
 */
export function drawNoise(
  objective: Objective,
  { sampling, minSnrGamma, offset }: NoiseOptions,
  seed: number,
  places: readonly number[],
  [channels, ...extents]: readonly number[],
): Noise {
  const area = extents.reduce((product, extent) => product * extent, 1);
  const size = channels! * area;
  const noise = new Float32Array(places.length * size);
  const levels = new Float32Array(places.length * columns);
  places.forEach((place, i) => {
    const key = foldIn(keyOf(seed), place);
    const level = objective.at(placeOf(foldIn(key, 0), sampling ?? objective.sampling));
    const { time, seen, target } = level;
    const w = minSnrGamma === null ? 1 : weightOf(level, minSnrGamma);
    levels.set([time, seen.sample, seen.noise, target.sample, target.noise, w], i * columns);
    const offsets = offset === 0 ? null : normalNumbers(foldIn(key, 2), channels!);
    normalNumbers(foldIn(key, 1), size).forEach((z, j) => {
      noise[i * size + j] = offsets ? z + offset * offsets[Math.floor(j / area)]! : z;
    });
  });
  return { noise, levels };
}

/** Pictures [B, C, H, W], noise of their shape, levels [B, 6] and captions [B, L, D]. */
export interface NoisyBatch<Context extends Tree> {
  readonly pictures: Tensor;
  readonly noise: Tensor;
  readonly levels: Tensor;
  readonly context: Context;
}

/** The error of each picture in (1): [B]. */
export function denoisingErrors<Context extends Tree>(
  network: Denoiser<Context>,
  { pictures, noise, levels, context }: NoisyBatch<Context>,
): Tensor {
  const count = levels.shape[0]!;
  const column = (i: number): Tensor => reshape(narrow(levels, 1, i, 1), [count, 1, 1, 1]);
  const mixture = (i: number): Tensor => add(mul(pictures, column(i)), mul(noise, column(i + 1)));
  const predicted = network(mixture(1), reshape(narrow(levels, 1, 0, 1), [count]), context);
  const errors = mean(square(sub(predicted, mixture(3))), [1, 2, 3]);
  return mul(errors, reshape(narrow(levels, 1, 5, 1), [count]));
}
