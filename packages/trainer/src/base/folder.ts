/**
 * Text-to-image models on disk, laid out as a diffusers pipeline: model_index.json beside unet/ and text_encoder/, or
 * transformer/, scheduler/ and, for our own parts, vae/config.json (the block codec) and tokenizer/vocab.json (the world's words).
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { loadState, stateOf } from '@deftjs/autograd/nn';
import { asFloat32, type JsonConfig } from '@deftjs/models';
import { openWeights, readConfigFile } from '@deftjs/models/node';
import { type Tensor, tensor } from '@deftjs/tensor';
import { UserError } from '../userError.ts';
import { instructionVocabulary, vocabulary } from '../world/index.ts';
import { checkWords, idsOf } from '../world/vocabulary.ts';
import { openPipelineModel, savePipeline } from './pipelineFolder.ts';
import { PipelineModel } from './pipelines.ts';
import type { TextToImage } from './textToImage.ts';
import { UnifiedModel } from './unified.ts';
import { weightFile } from './weightFile.ts';
import { WorldModel } from './world.ts';

/** A kind of model that `deft pretrain` makes: what its folder holds. */
interface Kind {
  readonly index: JsonConfig;
  /** The file of weights of each part that has any. */
  readonly weights: Readonly<Record<string, string>>;
  /** Every word that it reads, in the order of the token ids. */
  readonly words: readonly string[];
}

const scheduler = ['diffusers', 'FlowMatchEulerDiscreteScheduler'];
const tokenizer = ['deft', 'WorldTokenizer'];

const world: Kind = {
  index: {
    _class_name: 'TextToImage',
    scheduler,
    text_encoder: ['transformers', 'CLIPTextModel'],
    tokenizer,
    unet: ['diffusers', 'UNet2DConditionModel'],
    vae: ['deft', 'BlockCodec'],
  },
  weights: { unet: 'diffusion_pytorch_model.safetensors', text_encoder: 'model.safetensors' },
  words: vocabulary,
};

const unified: Kind = {
  index: {
    _class_name: 'InstructionToImage',
    scheduler,
    tokenizer,
    transformer: ['diffusers', 'OmniGenTransformer2DModel'],
  },
  weights: { transformer: 'diffusion_pytorch_model.safetensors' },
  words: instructionVocabulary,
};

/** The configuration files of a model's parts. */
function configsOf(model: WorldModel | UnifiedModel): Record<string, JsonConfig> {
  const { config } = model;
  const schedule = { 'scheduler/scheduler_config.json': config.scheduler };
  if ('transformer' in config) return { 'transformer/config.json': config.transformer, ...schedule };
  return {
    'unet/config.json': config.unet,
    'text_encoder/config.json': config.textEncoder,
    ...schedule,
    'vae/config.json': { _class_name: 'BlockCodec', block_size: config.blockSize },
  };
}

function text(config: unknown): string {
  return `${JSON.stringify(config, null, 2)}\n`;
}

export interface SaveOptions {
  /** Values by path; default: the model's own. */
  readonly weights?: Readonly<Record<string, Tensor>>;
  /** What weights are rounded to; default f16. */
  readonly dtype?: 'f16' | 'f32';
}

/**
 * Writes the model's files.
 * @param write takes a name relative to the model's folder, and what the file holds
 */
export async function saveBase(
  write: (name: string, data: Uint8Array | string) => void,
  model: WorldModel | UnifiedModel,
  { weights = stateOf(model), dtype = 'f16' }: SaveOptions = {},
): Promise<void> {
  const kind = model instanceof WorldModel ? world : unified;
  const configs = {
    'model_index.json': kind.index,
    ...configsOf(model),
    'tokenizer/vocab.json': idsOf(kind.words),
  };
  for (const [name, config] of Object.entries(configs)) write(name, text(config));
  for (const [part, file] of Object.entries(kind.weights)) {
    const own = Object.entries(weights).filter(([path]) => path.startsWith(`${part}.`));
    const named = Object.fromEntries(own.map(([path, value]) => [path.slice(part.length + 1), value]));
    write(`${part}/${file}`, await weightFile(named, dtype));
  }
}

/** Writes a whole model, f32, in the layout of the folder that it was read from. */
export async function saveModel(
  write: (name: string, data: Uint8Array | string) => void,
  model: TextToImage,
): Promise<void> {
  if (model instanceof WorldModel || model instanceof UnifiedModel)
    return saveBase(write, model, { dtype: 'f32' });
  if (!(model instanceof PipelineModel)) throw new Error('saveModel: a model without a folder');
  const { denoiser, textEncoders } = model.partNames;
  await savePipeline(write, model, [denoiser, ...textEncoders]);
}

async function readPart(folder: string, name: string): Promise<JsonConfig> {
  const path = join(folder, name);
  if (!fs.existsSync(path))
    throw new UserError(
      `${path}: missing; the base is a folder of diffusers, or one that deft pretrain wrote`,
      2,
    );
  return readConfigFile(path);
}

/**
 * The model that a folder holds, in f32: one of ours, or a pipeline of diffusers.
 * @throws {UserError} when the folder is no base, or of a class that cannot be trained; ConfigError, SafetensorsError
 */
export async function loadBase(folder: string): Promise<TextToImage> {
  if (!fs.existsSync(folder))
    throw new UserError(`${folder}: no such base; expected a folder with model_index.json`, 2);
  const index = await readPart(folder, 'model_index.json');
  const kind = [world, unified].find((own) => own.index._class_name === index._class_name);
  return kind ? loadOwn(folder, kind) : openPipelineModel(folder, index);
}

async function loadOwn(folder: string, kind: Kind): Promise<WorldModel | UnifiedModel> {
  checkWords(folder, await readPart(folder, 'tokenizer/vocab.json'), kind.words);
  const model = kind === world ? await newWorld(folder) : await newUnified(folder);
  const state: Record<string, Tensor> = {};
  for (const part of Object.keys(kind.weights)) {
    await using weights = await openWeights(join(folder, part));
    for (const name of weights.names) {
      const values = await weights.read(name);
      state[`${part}.${name}`] = tensor(asFloat32(values), values.shape);
    }
  }
  loadState(model, state);
  return model;
}

async function newWorld(folder: string): Promise<WorldModel> {
  return new WorldModel({
    unet: await readPart(folder, 'unet/config.json'),
    textEncoder: await readPart(folder, 'text_encoder/config.json'),
    scheduler: await readPart(folder, 'scheduler/scheduler_config.json'),
    blockSize: Number((await readPart(folder, 'vae/config.json')).block_size),
  });
}

async function newUnified(folder: string): Promise<UnifiedModel> {
  return new UnifiedModel({
    transformer: await readPart(folder, 'transformer/config.json'),
    scheduler: await readPart(folder, 'scheduler/scheduler_config.json'),
  });
}
