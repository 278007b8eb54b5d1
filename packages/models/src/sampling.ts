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
  narrow,
  normalNumbers,
  reshape,
  split,
  sub,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import type { Denoising } from './schedulers/index.ts';

/** A denoising network: samples [B, C, H, W], times [B] and context [B, L, D] to the output for each, [B, C, H, W]. */
export type Denoiser = (samples: Tensor, times: Tensor, context: Tensor) => Tensor;

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
function compiledStep(network: Denoiser, guidanceScale: number, clip: number, device: Device) {
  return compile(
    (state: StepState, step: Tensor, context: Tensor, noise: Tensor) => {
      const [t, scale, x0Sample, x0Output, ...next] = split(step, 9, 0).map((v) =>
        reshape(v, []),
      ) as Tensor[];
      const [nextSample, nextOutput, nextX0, nextPrevious, nextNoise] = next as Tensor[];
      const x = mul(state.sample, scale!);
      const count = x.shape[0]!;
      const guided = guidanceScale !== 1;
      const input = guided ? concat([x, x]) : x;
      const out = network(input, expand(t!, [input.shape[0]!]), context);
      const without = narrow(out, 0, 0, count);
      const output = guided
        ? add(without, mul(sub(narrow(out, 0, count, count), without), guidanceScale))
        : out; // (1)
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

export interface DrawRequest {
  readonly network: Denoiser;
  readonly denoising: Denoising;
  /** Captions [N, L, D], and the empty caption [1, L, D]. */
  readonly context: Tensor;
  readonly emptyContext: Tensor;
  readonly guidanceScale: number;
  /** One seed for each picture: it alone decides the noise. */
  readonly seeds: readonly number[];
  /** Channels, height and width of what the network draws. */
  readonly shape: readonly [number, number, number];
  /** Standard normal numbers [N, ...shape] to begin with; default: drawn from the seeds. */
  readonly start?: Tensor;
  readonly device: Device;
}

/** What the network draws for the captions: [N, ...shape], evaluated. */
export async function draw(request: DrawRequest): Promise<Tensor> {
  const { network, denoising, context, emptyContext, guidanceScale, seeds, shape, start, device } = request;
  const size = shape[0] * shape[1] * shape[2];
  const noiseOf = (stream: number, scale: number): Tensor => {
    const noise = new Float32Array(seeds.length * size);
    seeds.forEach((seed, i) => {
      noise.set(
        normalNumbers(foldIn(keyOf(seed), stream), size).map((z) => scale * z),
        i * size,
      );
    });
    return tensor(noise, [seeds.length, ...shape]);
  };
  const guided = guidanceScale !== 1;
  const contexts = guided ? concat([expand(emptyContext, context.shape), context]) : context;
  const clip = Math.min(...denoising.steps.map((step) => step.clip));
  const step = compiledStep(network, guidanceScale, clip, device);
  await evaluate([contexts], device);
  const { initialScale } = denoising;
  const sample = start ? mul(start, initialScale) : noiseOf(0, initialScale);
  await evaluate([sample], device);
  let state: StepState = { sample, x0: noiseOf(0, 0) };
  for (const [i, coefficient] of denoising.steps.entries()) {
    const before = state;
    using noise = noiseOf(i + 1, coefficient.next.noise === 0 ? 0 : 1);
    using values = coefficients(coefficient);
    state = await step(state, values, contexts, noise);
    await eventLoopTurn();
    for (const spent of Object.values(before)) spent.dispose();
  }
  step.dispose();
  contexts.dispose();
  state.x0.dispose();
  return state.sample;
}
