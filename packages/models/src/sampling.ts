/**
 * Drawing with a denoiser: any sampler, classifier-free guidance, all prompts at once.
 *
 *     o = u + g (c - u)      u, c: the network's output without and with the caption; g: guidance scale       (1)
 *
 * (Ho and Salimans 2022, eq. (6), with g = 1 + w.) The coefficients of a step are input values of one compiled
 * function, so all steps of a drawing, and all drawings of the same size, share one program.
 */
import {
  add,
  clamp,
  compile,
  concat,
  type Device,
  evaluate,
  eventLoopTurn,
  expand,
  foldIn,
  keyOf,
  mul,
  normalNumbers,
  numel,
  reshape,
  type Shape,
  split,
  sub,
  type Tensor,
  type Tree,
  tensor,
  treeLeaves,
  treeMap,
  treeWith,
} from '@deftjs/tensor';
import type { Denoising } from './schedulers/index.ts';

/**
 * A denoising network: samples [B, ...] and times [B] to the output for each, shaped as the samples. The context is
 * what else it sees: a tensor, or several, whose first axis is the batch.
 */
export type Denoiser<Context extends Tree = Tensor> = (
  samples: Tensor,
  times: Tensor,
  context: Context,
) => Tensor;

/** What a network sees with and without the caption; every tensor of either has as many rows as there are pictures. */
export type Contrast<Context extends Tree> = { readonly with: Context; readonly without: Context };

/** The network guided away from what it would draw without the caption: (1). A scale of 1 is no guidance. */
export function guided<Context extends Tree>(
  network: Denoiser<Context>,
  guidanceScale: number,
): Denoiser<Contrast<Context>> {
  return (x, times, context) => {
    if (guidanceScale === 1) return network(x, times, context.with);
    const captioned = treeLeaves(context.with);
    const both = treeLeaves(context.without).map((plain, i) => concat([plain, captioned[i]!]));
    const outputs = network(concat([x, x]), concat([times, times]), treeWith(context.without, both));
    const [without, withCaption] = split(outputs, 2, 0) as [Tensor, Tensor];
    return add(without, mul(sub(withCaption, without), guidanceScale)); // (1)
  };
}

/** One context [1, ...] for each of `count` pictures. */
export function repeated<Context extends Tree>(context: Context, count: number): Context {
  return treeMap((one) => expand(one, [count, ...one.shape.slice(1)]), context);
}

interface StepState {
  readonly [key: string]: Tensor;
  readonly sample: Tensor;
  readonly x0: Tensor;
}

/** The coefficients of a step as one vector; see schedulers/denoising.ts for their meaning. */
function coefficients({ timestep, inputScale, x0, next }: Denoising['steps'][number]): Tensor {
  const list = [timestep, inputScale, x0.sample, x0.output];
  return tensor(Float32Array.of(...list, next.sample, next.output, next.x0, next.previousX0, next.noise));
}

/** A function that takes one denoising step of N pictures, compiled at its first call. */
function compiledStep<Context extends Tree>(network: Denoiser<Context>, clip: number, device: Device) {
  return compile(
    (state: StepState, step: Tensor, context: Context, noise: Tensor) => {
      const [t, scale, x0Sample, x0Output, ...next] = split(step, 9, 0).map((v) =>
        reshape(v, []),
      ) as Tensor[];
      const [nextSample, nextOutput, nextX0, nextPrevious, nextNoise] = next as Tensor[];
      const output = network(mul(state.sample, scale!), expand(t!, [state.sample.shape[0]!]), context);
      const predicted = add(mul(state.sample, x0Sample!), mul(output, x0Output!));
      const x0 = Number.isFinite(clip) ? clamp(predicted, -clip, clip) : predicted;
      const terms = [
        mul(state.sample, nextSample!),
        mul(output, nextOutput!),
        mul(x0, nextX0!),
        mul(state.x0, nextPrevious!),
        mul(noise, nextNoise!),
      ];
      return { sample: terms.reduce((sum, term) => add(sum, term)), x0 };
    },
    { device },
  );
}

export interface DrawRequest<Context extends Tree> {
  /** Guided or not. */
  readonly network: Denoiser<Context>;
  readonly denoising: Denoising;
  readonly context: Context;
  /** One seed for each picture: it alone decides the noise. */
  readonly seeds: readonly number[];
  /** Channels, height and width of what the network draws, or any other shape. */
  readonly shape: Shape;
  /** Standard normal numbers [N, ...shape] to begin with; default: drawn from the seeds. */
  readonly start?: Tensor;
  /** What to begin from [N, ...shape]: noise is added to it, as much as the first step expects. Default: noise alone. */
  readonly from?: Tensor;
  readonly device: Device;
}

/** What the network draws: [N, ...shape], evaluated. */
export async function draw<Context extends Tree>(request: DrawRequest<Context>): Promise<Tensor> {
  const { network, denoising, context, seeds, shape, start, from, device } = request;
  const size = numel(shape);
  const noiseOf = (stream: number, scale: number): Tensor => {
    const noise = new Float32Array(seeds.length * size);
    if (scale !== 0) {
      seeds.forEach((seed, i) => {
        noise.set(
          normalNumbers(foldIn(keyOf(seed), stream), size).map((z) => scale * z),
          i * size,
        );
      });
    }
    return tensor(noise, [seeds.length, ...shape]);
  };
  const clip = Math.min(...denoising.steps.map((step) => step.clip));
  const step = compiledStep(network, clip, device);
  await evaluate(treeLeaves(context), device);
  const first = start ?? noiseOf(0, 1);
  const mixture = denoising.steps[0]!.mixture;
  const sample = from
    ? add(mul(from, mixture.sample), mul(first, mixture.noise))
    : mul(first, denoising.initialScale);
  await evaluate([sample], device);
  let state: StepState = { sample, x0: noiseOf(0, 0) };
  for (const [i, coefficient] of denoising.steps.entries()) {
    const before = state;
    using noise = noiseOf(i + 1, coefficient.next.noise === 0 ? 0 : 1);
    using values = coefficients(coefficient);
    state = await step(state, values, context, noise);
    await eventLoopTurn();
    for (const spent of Object.values(before)) spent.dispose();
  }
  step.dispose();
  state.x0.dispose();
  return state.sample;
}
