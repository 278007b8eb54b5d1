/**
 * Text-to-image models on disk, laid out as a diffusers pipeline: model_index.json beside unet/, text_encoder/,
 * scheduler/ and, for our own parts, vae/config.json (the block codec) and tokenizer/vocab.json (the world's words).
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { loadState, stateOf } from '@deftjs/autograd/nn';
import { asFloat32, type HostTensor, type JsonConfig, writeSafetensors } from '@deftjs/models';
import { openWeights, readConfigFile } from '@deftjs/models/node';
import { read, type Tensor, tensor, toHalfBits } from '@deftjs/tensor';
import { UserError } from '../userError.ts';
import { vocabulary } from '../world/index.ts';
import { openPipelineModel, savePipeline } from './pipelineFolder.ts';
import { PipelineModel } from './pipelines.ts';
import type { TextToImage } from './textToImage.ts';
import { type WorldConfig, WorldModel } from './world.ts';

const weightsOf = {
  unet: 'diffusion_pytorch_model.safetensors',
  text_encoder: 'model.safetensors',
} as const;

const modelIndex = {
  _class_name: 'TextToImage',
  scheduler: ['diffusers', 'FlowMatchEulerDiscreteScheduler'],
  text_encoder: ['transformers', 'CLIPTextModel'],
  tokenizer: ['deft', 'WorldTokenizer'],
  unet: ['diffusers', 'UNet2DConditionModel'],
  vae: ['deft', 'BlockCodec'],
};

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
  model: WorldModel,
  { weights = stateOf(model), dtype = 'f16' }: SaveOptions = {},
): Promise<void> {
  const { unet, textEncoder, scheduler, blockSize } = model.config;
  const configs = {
    'model_index.json': modelIndex,
    'unet/config.json': unet,
    'text_encoder/config.json': textEncoder,
    'scheduler/scheduler_config.json': scheduler,
    'vae/config.json': { _class_name: 'BlockCodec', block_size: blockSize },
    'tokenizer/vocab.json': Object.fromEntries(vocabulary.map((word, id) => [word, id])),
  };
  for (const [name, config] of Object.entries(configs)) write(name, text(config));
  for (const [part, file] of Object.entries(weightsOf)) {
    const tensors: Record<string, HostTensor> = {};
    for (const [path, value] of Object.entries(weights)) {
      if (!path.startsWith(`${part}.`)) continue;
      const values = await read(value);
      const data = dtype === 'f16' ? Uint16Array.from(values, toHalfBits) : Float32Array.from(values);
      tensors[path.slice(part.length + 1)] = { dtype, shape: value.shape, data };
    }
    write(`${part}/${file}`, writeSafetensors(tensors, { format: 'pt' }));
  }
}

/** Writes a whole model, f32, in the layout of the folder that it was read from. */
export async function saveModel(
  write: (name: string, data: Uint8Array | string) => void,
  model: TextToImage,
): Promise<void> {
  if (model instanceof WorldModel) return saveBase(write, model, { dtype: 'f32' });
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
  return index._class_name === modelIndex._class_name ? loadWorld(folder) : openPipelineModel(folder, index);
}

async function loadWorld(folder: string): Promise<WorldModel> {
  const words = await readPart(folder, 'tokenizer/vocab.json');
  // Words may be appended later, but those that the base was trained with keep their ids.
  const moved = Object.entries(words).find(([word, id]) => vocabulary[Number(id)] !== word);
  if (moved)
    throw new UserError(`${folder}: its word "${moved[0]}" has another id in this version's vocabulary`, 2);
  const config: WorldConfig = {
    unet: await readPart(folder, 'unet/config.json'),
    textEncoder: await readPart(folder, 'text_encoder/config.json'),
    scheduler: await readPart(folder, 'scheduler/scheduler_config.json'),
    blockSize: Number((await readPart(folder, 'vae/config.json')).block_size),
  };
  const model = new WorldModel(config);
  const state: Record<string, Tensor> = {};
  for (const part of Object.keys(weightsOf)) {
    await using weights = await openWeights(join(folder, part));
    for (const name of weights.names) {
      const values = await weights.read(name);
      state[`${part}.${name}`] = tensor(asFloat32(values), values.shape);
    }
  }
  loadState(model, state);
  return model;
}
