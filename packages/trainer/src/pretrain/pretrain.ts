/** Training a base model from scratch on the picture world. */
import { isDeepStrictEqual } from 'node:util';
import { initialize, loadState, stateOf } from '@deftjs/autograd/nn';
import { type Device, mean } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { drawPrompts, withWeights } from '../base/draw.ts';
import { loadBase, saveBase } from '../base/folder.ts';
import { UnifiedModel } from '../base/unified.ts';
import { WorldModel } from '../base/world.ts';
import type { PainterConfig } from '../config/index.ts';
import { beat } from '../progress/index.ts';
import { chartPng, gridPng, lossChart } from '../report/index.ts';
import type { Run } from '../runs/index.ts';
import { type BatchTensors, batchTensors, errorsOf } from '../train/batch.ts';
import type { Weights } from '../train/packed.ts';
import { UserError } from '../userError.ts';
import { instructionVocabulary, maxTokens, vocabulary } from '../world/index.ts';
import { type InstructionMix, instructionBatch, worldBatch } from './batches.ts';
import { type Lesson, runPretraining } from './step.ts';
import { taskSheet } from './taskSheet.ts';

function mixOf({ text_share: textShare, tasks, blend }: UnifiedJob): InstructionMix {
  return { textShare, tasks, blend };
}

/** What a model that draws learns: pictures of the world, with their captions and, where it reads them, with pictures. */
function drawingLesson(model: Pretrained, config: PainterConfig): Lesson<BatchTensors> {
  const batches = {
    worldSeed: config.world_seed,
    seed: config.seed,
    batchSize: config.batch_size,
    captionDropout: config.caption_dropout,
    objective: model.objective,
    size: model.pictureSize,
  };
  return {
    batch: (step) => {
      const drawn =
        'text_share' in config ? instructionBatch(batches, mixOf(config), step) : worldBatch(batches, step);
      return batchTensors(drawn, model);
    },
    loss: (batch) => mean(errorsOf(model, batch)),
  };
}

type UnifiedJob = Extract<PainterConfig, { text_share: number }>;

/** What pretraining makes. */
export type Pretrained = WorldModel | UnifiedModel;

/** The model that a configuration describes, with weights of its seed. */
export function newModel({ model, seed }: PainterConfig): Pretrained {
  const built = 'transformer' in model ? unifiedModel(model) : worldModel(model);
  initialize(built, seed);
  if (built instanceof UnifiedModel) readAsDrawn(built);
  return built;
}

/** Takes the weights of a model of the same configuration. @throws {UserError} */
async function startFrom(model: Pretrained, folder: string): Promise<void> {
  const before = await loadBase(folder);
  const isAlike =
    before.constructor === model.constructor &&
    isDeepStrictEqual((before as Pretrained).config, model.config);
  if (!isAlike) throw new UserError(`start: ${folder} is a model of another configuration`, 2);
  loadState(model, stateOf(before));
  if (model instanceof UnifiedModel) readAsDrawn(model);
}

/**
 * Lets pictures that are given be read at first as those that are drawn, so that what attends from patch to patch finds them.
 * From unrelated projections 5,000 steps did not teach a model of 6 layers to look at them; from equal ones 100 do.
 */
function readAsDrawn({ transformer: { patch_embedding: patches } }: UnifiedModel): void {
  const { input_image_proj: given, output_image_proj: drawn } = patches;
  given.weight.value = drawn.weight.value;
  given.bias!.value = drawn.bias!.value;
}

function worldModel({ unet, text_encoder, block_size: blockSize }: Extract<Parts, { unet: unknown }>) {
  const { hidden_size: width, ...encoder } = text_encoder;
  return new WorldModel({
    unet: { _class_name: 'UNet2DConditionModel', ...unet },
    textEncoder: {
      _class_name: 'CLIPTextModel',
      vocab_size: vocabulary.length,
      max_position_embeddings: maxTokens,
      hidden_size: width,
      hidden_act: 'quick_gelu',
      ...encoder,
    },
    scheduler: { _class_name: 'FlowMatchEulerDiscreteScheduler', num_train_timesteps: 1000, shift: 1 },
    blockSize,
  });
}

function unifiedModel({ transformer }: Extract<Parts, { transformer: unknown }>) {
  const {
    picture_size: size,
    patch_size: patch,
    hidden_size: width,
    num_attention_heads: heads,
  } = transformer;
  const factors = new Array<number>(width / heads / 2).fill(1); // sequences are short: positions as they are
  return new UnifiedModel({
    transformer: {
      _class_name: 'OmniGenTransformer2DModel',
      in_channels: 3,
      patch_size: patch,
      hidden_size: width,
      intermediate_size: transformer.intermediate_size,
      num_layers: transformer.num_layers,
      num_attention_heads: heads,
      num_key_value_heads: heads,
      vocab_size: instructionVocabulary.length,
      pos_embed_max_size: size / patch,
      max_position_embeddings: 4096,
      original_max_position_embeddings: 4096,
      rope_scaling: { type: 'su', short_factor: factors, long_factor: factors },
    },
    scheduler: {
      _class_name: 'FlowMatchEulerDiscreteScheduler',
      invert_sigmas: true,
      num_train_timesteps: 1000,
      shift: 1,
    },
  });
}

type Parts = PainterConfig['model'];

/**
 * Trains as configured and leaves in the run's folder: checkpoints, sheets of samples, the loss curve, and at the end
 * `base/`, the averaged weights as a model folder.
 */
export async function pretrain(config: PainterConfig, run: Run, signal: AbortSignal): Promise<void> {
  const { device, why } = await openDevice(config.device);
  console.error(`deft: ${why}`);
  const model = newModel(config);
  if (config.start !== null) await startFrom(model, config.start);
  const isSampled = (done: number): boolean => done % config.sample_every === 0;
  const finished = await runPretraining(model, config, drawingLesson(model, config), {
    run,
    device,
    signal,
    after: async (average, done) => {
      if (!isSampled(done)) return;
      beat('other');
      await writeSamples(config, model, average, run, done, device);
    },
  });
  const { average, done } = finished;
  if (!isSampled(done)) await writeSamples(config, model, average, run, done, device);
  await saveBase((name, data) => run.write(`base/${name}`, data), model, {
    weights: { ...stateOf(model), ...average },
  });
  const points = finished.losses.map((loss, i) => ({ step: i + 1, loss }));
  run.write('loss.png', await chartPng(await lossChart(points, config.name)));
  run.write('loss.json', JSON.stringify(finished.losses.map((loss) => Number(loss.toPrecision(5)))));
}

/** A sheet of samples drawn with the averaged weights. */
async function writeSamples(
  config: PainterConfig,
  model: Pretrained,
  weights: Weights,
  run: Run,
  done: number,
  device: Device,
): Promise<void> {
  const { prompts, seeds, steps, guidance_scale: guidanceScale } = config.sampling;
  const title = `${config.name}, step ${done}`;
  const file = (kind: string): string => `samples/${kind}-${String(done).padStart(6, '0')}.png`;
  await withWeights(model, weights, async () => {
    const options = { steps, guidanceScale, device };
    const drawn = await drawPrompts(model, { prompts, seeds, ...options });
    const pictures = drawn.flatMap((row) => row.pictures);
    run.write(file('step'), await gridPng(pictures, { columns: seeds.length, rowLabels: prompts, title }));
    if (model.readsPictures) run.write(file('tasks'), await taskSheet(model, title, options));
  });
}
