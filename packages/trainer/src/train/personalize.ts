/**
 * Teaching a base model something from a handful of captioned pictures, with prior preservation (Ruiz et al. 2023, eq. (2))
 * when asked:
 *
 *     loss = mean error on the pictures + weight * mean error on pictures of what the model knows               (1)
 *
 * over one batch, or over the mean of several (gradient accumulation).
 */
import { valueAndGrad } from '@deftjs/autograd';
import { setTraining, trainableState, withState } from '@deftjs/autograd/nn';
import {
  accumulate,
  adamW,
  clipByGlobalNorm,
  movingAverage,
  type Packing,
  packing,
  type Vectors,
} from '@deftjs/autograd/optim';
import { withDropout } from '@deftjs/deft';
import {
  add,
  alias,
  compile,
  type Device,
  foldIn,
  item,
  keyOf,
  mean,
  mul,
  type Tensor,
  tensor,
  treeLeaves,
  treeMap,
  zeros,
} from '@deftjs/tensor';
import type { TextToImage } from '../base/textToImage.ts';
import type { TrainConfig } from '../config/index.ts';
import type { PictureSize } from '../data/index.ts';
import { type BatchTensors, batchTensors, type Contexts, errorsOf } from './batch.ts';
import { bucketsOf, type Captioned, captionedBatch, firstSteps } from './dataset.ts';
import { firstFaultyLayer, guarded } from './finite.ts';
import { learningRateGroups } from './method.ts';
import { type PackedState, packedState, type Weights } from './packed.ts';
import { averageDecay, learningRates } from './rates.ts';
import type { Taken } from './steps.ts';

/** How what is trained lies in vectors. */
export function packingOf(model: TextToImage, config: TrainConfig): Packing<Weights> {
  return packing(trainableState(model), learningRateGroups(config));
}

/** The state that training starts from: what the method trains, as applied. */
export function firstState(model: TextToImage, config: TrainConfig): PackedState {
  return packedState(model, packingOf(model, config), { keepsAverage: config.ema_decay !== null });
}

/** What was learnt: the average where one is kept. */
export function learnt({ weights, average }: PackedState): Vectors {
  return average ?? weights;
}

/** The pictures of (1), each set a batch: [pictures] or [pictures, prior]. */
type Sets = readonly (readonly Captioned[])[];

/** What steps are taken on. */
export interface StepData {
  /** What is to be learnt, as the model stores it. */
  readonly pictures: readonly Captioned[];
  /** What is to be kept; may be empty. */
  readonly prior: readonly Captioned[];
  /** Of all their captions; null where text encoders are part of the step. */
  readonly contexts: Contexts | null;
}

/** (1) of one batch of each set, with the model's present weights. */
export function lossOfBatches(
  model: TextToImage,
  { prior }: TrainConfig,
  batches: readonly BatchTensors[],
): Tensor {
  return batches
    .map((batch, i) => mul(mean(errorsOf(model, batch)), i === 0 ? 1 : (prior?.weight ?? 0)))
    .reduce((sum, term) => add(sum, term));
}

/** The loss of one batch of each set, as a function of the weights and the key of dropout. */
function lossOf(model: TextToImage, config: TrainConfig) {
  return (weights: Weights, batches: readonly BatchTensors[], dropped: Tensor): Tensor =>
    withState(model, weights, () => withDropout(model, dropped, () => lossOfBatches(model, config, batches)));
}

/** What a step takes from outside: nothing of it is built into the compiled program. */
type Rates = {
  readonly learningRate: Tensor;
  readonly averageDecay: Tensor;
  /** What weight decay pulls towards; empty for zero. */
  readonly start: Vectors;
};

/** The update of the state by a loss and its gradient, as a graph. */
function updateOf(config: TrainConfig, { groups }: Packing<Weights>) {
  const optimizer = adamW({ betas: [0.9, 0.99], weightDecay: config.weight_decay, groups }); // betas of the official code
  return (state: PackedState, loss: Tensor, gradient: Vectors, rates: Rates) => {
    const { clipped, norm } = clipByGlobalNorm(gradient, config.max_grad_norm);
    const { parameters: weights, state: next } = optimizer.update(state.weights, clipped, state.optimizer, {
      learningRate: rates.learningRate,
      ...(config.decay_towards === 'start' && { decayTowards: rates.start }),
    });
    const average = state.average && movingAverage(state.average, weights, rates.averageDecay);
    const after = { weights, optimizer: next as PackedState['optimizer'], average };
    return { state: guarded(loss, norm, after, state), loss, norm };
  };
}

/**
 * The training step: `take` is a function of (state, step number), compiled. The state passed in is used up.
 */
export function trainStep(model: TextToImage, config: TrainConfig, data: StepData, device: Device) {
  setTraining(model, true);
  const parts = config.gradient_accumulation;
  const packed = packingOf(model, config);
  const loss = lossOf(model, config);
  const update = updateOf(config, packed);
  const rates = learningRates(config);
  const start = config.decay_towards === 'start' ? packed.pack(treeMap(alias, trainableState(model))) : {};

  const whole = compile(
    (state: PackedState, batches: readonly BatchTensors[], dropped: Tensor, given: Rates) => {
      const { value, gradient } = valueAndGrad(loss)(packed.unpack(state.weights), batches, dropped);
      return update(state, value, packed.pack(gradient), given);
    },
    { device, donate: { 0: 'state' } },
  );
  type Sum = { readonly loss: Tensor; readonly gradient: Vectors };
  const part = compile(
    (sum: Sum, weights: Vectors, batches: readonly BatchTensors[], dropped: Tensor): Sum => {
      const { value, gradient } = valueAndGrad(loss)(packed.unpack(weights), batches, dropped);
      return accumulate(sum, { loss: value, gradient: packed.pack(gradient) }, 1 / parts);
    },
    { device },
  );
  const last = compile(
    (state: PackedState, sum: Sum, given: Rates) => update(state, sum.loss, sum.gradient, given),
    {
      device,
      donate: { 0: 'state' },
    },
  );

  const ratesOf = (step: number): Rates => ({
    learningRate: tensor(rates(step)),
    averageDecay: tensor(averageDecay(config.ema_decay ?? 0, step)),
    start,
  });
  const nothing = (state: PackedState): Sum => ({
    loss: zeros([]),
    gradient: treeMap((x) => zeros(x.shape), state.weights),
  });

  /** Compiles the step, for batches of every bucket, and uploads the weights that stay as they are. */
  const prepare = async (state: PackedState): Promise<void> => {
    for (const k of firstSteps(bucketsOf(data.pictures), config.batch_size, config.seed)) {
      const [batches, dropped] = [batchesOf(model, config, data, k), dropoutKey(config.seed, k)];
      if (parts === 1) await whole.prepare(state, batches, dropped, ratesOf(0));
      else await part.prepare(nothing(state), state.weights, batches, dropped);
    }
    if (parts > 1) await last.prepare(state, nothing(state), ratesOf(0));
  };

  const take = async (state: PackedState, step: number): Promise<Taken<PackedState>> => {
    const given = ratesOf(step);
    const used: Tensor[] = [];
    /** Batch `k` of the run. */
    const seen = (k: number): readonly [readonly BatchTensors[], Tensor] => {
      const batches = batchesOf(model, config, data, k);
      used.push(...treeLeaves(batches));
      return [batches, dropoutKey(config.seed, k)];
    };
    const taken = async () => {
      if (parts === 1) return whole(state, ...seen(step), given);
      let sum = nothing(state);
      for (let k = 0; k < parts; k += 1) {
        const before = sum;
        sum = await part(before, state.weights, ...seen(step * parts + k));
        if (k > 0) used.push(...treeLeaves(before));
      }
      used.push(...treeLeaves(sum));
      return last(state, sum, given);
    };
    const result = await taken();
    const [value, norm] = [await item(result.loss), await item(result.norm)];
    for (const spent of [...used, result.loss, result.norm]) spent.dispose();
    return {
      state: result.state,
      loss: value,
      measured: { learning_rate: rates(step), gradient_norm: norm },
    };
  };

  return { prepare, take };
}

/** The key of dropout in batch k. */
function dropoutKey(seed: number, k: number): Tensor {
  return tensor(Uint32Array.from(foldIn(keyOf(seed ^ 0xd80), k)));
}

/** Batch k of each set. */
export function batchesOf(
  model: TextToImage,
  config: TrainConfig,
  { pictures, prior, contexts }: StepData,
  k: number,
): BatchTensors[] {
  const sets: Sets = prior.length === 0 ? [pictures] : [pictures, prior];
  const { batch_size: batchSize, caption_dropout: captionDropout, seed } = config;
  const noise = {
    sampling: config.timesteps,
    minSnrGamma: config.min_snr_gamma,
    offset: config.offset_noise,
  };
  const { objective } = model;
  const {
    flip,
    random_crop: randomCrop,
    shuffle_captions: shuffleCaptions,
    keep_parts: keepParts,
  } = config.data;
  const shapeOf = (size?: PictureSize) => (size ? model.storedShapeOf(size) : model.storedShape);
  const options = { batchSize, captionDropout, objective, noise, shapeOf };
  return sets.map((items, i) => {
    const augmentation = i === 0 ? { flip, randomCrop, shuffleCaptions, keepParts } : null;
    return batchTensors(
      captionedBatch(items, { ...options, augmentation, seed: seed + i }, k),
      model,
      contexts,
    );
  });
}

/**
 * Where a step that gave no finite numbers went wrong, in words: the layer whose output is the first that is not finite, or
 * the backward pass.
 * @param state as it was before the step
 */
export async function faultOf(
  model: TextToImage,
  config: TrainConfig,
  data: StepData,
  state: PackedState,
  step: number,
  device: Device,
): Promise<string> {
  const loss = lossOf(model, config);
  const weights = packingOf(model, config).unpack(state.weights);
  for (let k = step * config.gradient_accumulation; k < (step + 1) * config.gradient_accumulation; k += 1) {
    const batches = batchesOf(model, config, data, k);
    const run = () => loss(weights, batches, dropoutKey(config.seed, k));
    const layer = await firstFaultyLayer(model, run, device);
    if (layer !== null) return `${layer} is the first layer whose output is not finite`;
  }
  return 'all layers give finite numbers; the gradient does not';
}
