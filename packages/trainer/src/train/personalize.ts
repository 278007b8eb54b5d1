/**
 * Teaching a base model a new subject: what the method trains, trained on a handful of captioned pictures,
 * with prior preservation (Ruiz et al. 2023, eq. (2)) when asked:
 *
 *     loss = mean error on the pictures + weight * mean error on pictures of what the model knows               (1)
 */
import { valueAndGrad } from '@deftjs/autograd';
import { setTraining, trainableState, withState } from '@deftjs/autograd/nn';
import { adamW, clipByGlobalNorm, constant, warmup } from '@deftjs/autograd/optim';
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
  treeMap,
} from '@deftjs/tensor';
import { drawPrompts } from '../base/draw.ts';
import type { TextToImage } from '../base/textToImage.ts';
import type { TrainConfig } from '../config/index.ts';
import { caption, renderScene, sampleScene, toPlanes } from '../world/index.ts';
import { type BatchTensors, batchTensors } from './batch.ts';
import { type Captioned, captionedBatch } from './dataset.ts';
import { learningRateGroups } from './method.ts';
import type { Taken } from './steps.ts';

type Weights = Record<string, Tensor>;

/** Everything that a step changes. */
export type AdapterState = {
  readonly weights: Weights;
  readonly optimizer: ReturnType<ReturnType<typeof adamW>['init']>;
};

function optimizerOf(config: TrainConfig) {
  // Betas of the official code.
  return adamW({
    betas: [0.9, 0.99],
    weightDecay: config.weight_decay,
    groups: learningRateGroups(config),
  });
}

/** The state that training starts from: what the method trains, as applied. */
export function firstAdapterState(model: TextToImage, config: TrainConfig): AdapterState {
  const weights = treeMap(alias, trainableState(model));
  return { weights, optimizer: optimizerOf(config).init(weights) };
}

/** Pictures of what the base knows, for prior preservation; none when it is not asked for. */
export async function priorPictures(
  model: TextToImage,
  { prior, seed, sampling }: TrainConfig,
  device: Device,
): Promise<Captioned[]> {
  if (prior === null) return [];
  const scenes = Array.from({ length: prior.pictures }, (_, i) => sampleScene(seed ^ 0x9e1, i));
  const captions = scenes.map((scene, i) => caption(scene, seed, i));
  if (prior.source === 'world') {
    return scenes.map((scene, i) => ({
      pixels: toPlanes(renderScene(scene, model.pictureSize)),
      caption: captions[i]!,
    }));
  }
  const { steps, guidance_scale: guidanceScale } = sampling;
  const drawn = await drawPrompts(model, { prompts: captions, seeds: [seed], steps, guidanceScale, device });
  return drawn.map(({ pictures }, i) => ({ pixels: toPlanes(pictures[0]!), caption: captions[i]! }));
}

/**
 * The training step as a function of (state, step number): one compiled program. The state passed in is used up.
 * @param pictures what is to be learnt
 * @param prior what is to be kept; may be empty
 */
export function adapterStep(
  model: TextToImage,
  config: TrainConfig,
  pictures: readonly Captioned[],
  prior: readonly Captioned[],
  device: Device,
) {
  setTraining(model, true);
  const optimizer = optimizerOf(config);
  const rates = warmup(constant(config.learning_rate), config.warmup_steps);
  const { batch_size: batchSize, caption_dropout: captionDropout, seed } = config;
  const priorWeight = config.prior?.weight ?? 0;
  const compiled = compile(
    (state: AdapterState, batches: readonly BatchTensors[], learningRate: Tensor, dropped: Tensor) => {
      const losses = (): Tensor =>
        batches
          .map((batch, i) => mul(mean(model.flowErrors(batch)), i === 0 ? 1 : priorWeight))
          .reduce((sum, term) => add(sum, term)); // (1)
      const loss = (weights: Weights): Tensor =>
        withState(model, weights, () => withDropout(model, dropped, losses));
      const { value, gradient } = valueAndGrad(loss)(state.weights);
      const { clipped, norm } = clipByGlobalNorm(gradient, config.max_grad_norm);
      const next = optimizer.update(state.weights, clipped, state.optimizer, { learningRate });
      return { state: { weights: next.parameters, optimizer: next.state }, loss: value, norm };
    },
    { device, donate: { 0: 'state' } },
  );
  return async (state: AdapterState, step: number): Promise<Taken<AdapterState>> => {
    const sets = prior.length === 0 ? [pictures] : [pictures, prior];
    const batches = sets.map((items, i) =>
      batchTensors(captionedBatch(items, { batchSize, captionDropout, seed: seed + i }, step), model),
    );
    const learningRate = rates(step);
    const dropped = tensor(Uint32Array.from(foldIn(foldIn(keyOf(seed), step), 2))); // 0 and 1 are the noise's
    const result = await compiled(state, batches, tensor(learningRate), dropped);
    const [loss, norm] = [await item(result.loss), await item(result.norm)];
    const spent = [...batches.flatMap((batch) => Object.values(batch)), result.loss, result.norm];
    for (const value of spent) value.dispose();
    return { state: result.state, loss, measured: { learning_rate: learningRate, gradient_norm: norm } };
  };
}
