/** Folders of pipelines as diffusers saves them: model_index.json and one folder for each part. */
import { join } from 'node:path';
import type { Module } from '@deftjs/autograd/nn';
import { ConfigError, type JsonConfig, type JsonValue, type TensorSource } from '@deftjs/tensor';
import { clipTextWeights, clipTextWithProjectionWeights } from '../clipText.ts';
import { omniGenWeights } from '../omniGen.ts';
import { DiT } from '../pipelines/dit.ts';
import { Flux } from '../pipelines/flux.ts';
import { OmniGen } from '../pipelines/omniGen.ts';
import { StableDiffusionXL } from '../pipelines/stableDiffusionXL.ts';
import { t5Weights } from '../t5.ts';
import { instructionEncoder } from '../tokenizer.ts';
import { vaeWeights } from '../vae.ts';
import { loadWeights } from '../weights.ts';
import { openWeights, readConfigFile } from './modelFolder.ts';
import { openClipTokenizer, openT5Tokenizer } from './tokenizerFolder.ts';

/** A folder whose index has been checked. */
export interface PipelineFolder {
  readonly index: JsonConfig;
  /** The JSON file of a part. Default: its config.json. */
  config(part: string, file?: string): Promise<JsonConfig>;
  /** Loads the weights of a part into the module, under the names that the module has. */
  load(part: string, module: Module, names?: (source: TensorSource) => TensorSource): Promise<void>;
}

/**
 * The folder of a pipeline of that class.
 * @param classes the classes that each part may have, "|" between them; other parts may be there and are not used
 * @throws ConfigError naming what is of another class; the system's error where a file is missing
 */
export async function openPipelineFolder(
  folder: string,
  pipelineClass: string,
  classes: Readonly<Record<string, string>>,
): Promise<PipelineFolder> {
  const index = await readConfigFile(join(folder, 'model_index.json'));
  const refuse = (key: string, expected: string, value: JsonValue | undefined): never => {
    throw new ConfigError(`model_index.json: ${key}: expected ${expected}; got ${JSON.stringify(value)}`);
  };
  if (index._class_name !== pipelineClass) refuse('_class_name', pipelineClass, index._class_name);
  for (const [part, expected] of Object.entries(classes)) {
    const entry = index[part];
    if (!Array.isArray(entry) || !expected.split('|').includes(entry[1])) refuse(part, expected, entry);
  }
  return {
    index,
    config: (part, file = 'config.json') => readConfigFile(join(folder, part, file)),
    async load(part, module, names = (source) => source) {
      await using file = await openWeights(join(folder, part));
      await loadWeights(module, names(file));
    },
  };
}

const schedulerFile = 'scheduler_config.json';
const t5Tokenizers = 'T5Tokenizer|T5TokenizerFast';

/**
 * The Stable Diffusion XL pipeline in the folder, with its weights.
 * @param samplerClass the class of the sampler to use, configured by the folder's scheduler; default: the folder's own
 * @throws ConfigError; WeightsError; SafetensorsError; the system's error where a file is missing
 */
export async function openStableDiffusionXL(
  folder: string,
  samplerClass?: string,
): Promise<StableDiffusionXL> {
  const { index, config, load } = await openPipelineFolder(folder, 'StableDiffusionXLPipeline', {
    unet: 'UNet2DConditionModel',
    text_encoder: 'CLIPTextModel',
    text_encoder_2: 'CLIPTextModelWithProjection',
    vae: 'AutoencoderKL',
    tokenizer: 'CLIPTokenizer',
    tokenizer_2: 'CLIPTokenizer',
  });
  const pipeline = new StableDiffusionXL({
    unet: await config('unet'),
    textEncoder: await config('text_encoder'),
    textEncoder2: await config('text_encoder_2'),
    vae: await config('vae'),
    scheduler: await config('scheduler', schedulerFile),
    tokenizer: await openClipTokenizer(join(folder, 'tokenizer')),
    tokenizer2: await openClipTokenizer(join(folder, 'tokenizer_2')),
    forceZerosForEmptyPrompt: index.force_zeros_for_empty_prompt !== false,
    ...(samplerClass !== undefined && { samplerClass }),
  });
  await load('unet', pipeline.unet);
  await load('text_encoder', pipeline.text_encoder, clipTextWeights);
  await load('text_encoder_2', pipeline.text_encoder_2, clipTextWithProjectionWeights);
  await load('vae', pipeline.vae, vaeWeights);
  return pipeline;
}

/** The FLUX pipeline in the folder, with its weights. @throws as `openStableDiffusionXL` */
export async function openFlux(folder: string): Promise<Flux> {
  const { config, load } = await openPipelineFolder(folder, 'FluxPipeline', {
    transformer: 'FluxTransformer2DModel',
    text_encoder: 'CLIPTextModel',
    text_encoder_2: 'T5EncoderModel',
    vae: 'AutoencoderKL',
    scheduler: 'FlowMatchEulerDiscreteScheduler',
    tokenizer: 'CLIPTokenizer',
    tokenizer_2: t5Tokenizers,
  });
  const pipeline = new Flux({
    transformer: await config('transformer'),
    textEncoder: await config('text_encoder'),
    textEncoder2: await config('text_encoder_2'),
    vae: await config('vae'),
    scheduler: await config('scheduler', schedulerFile),
    tokenizer: await openClipTokenizer(join(folder, 'tokenizer')),
    tokenizer2: await openT5Tokenizer(join(folder, 'tokenizer_2')),
  });
  await load('transformer', pipeline.transformer);
  await load('text_encoder', pipeline.text_encoder, clipTextWeights);
  await load('text_encoder_2', pipeline.text_encoder_2, t5Weights);
  await load('vae', pipeline.vae, vaeWeights);
  return pipeline;
}

/** The OmniGen pipeline in the folder, with its weights. @throws as `openStableDiffusionXL` */
export async function openOmniGen(folder: string): Promise<OmniGen> {
  const { config, load } = await openPipelineFolder(folder, 'OmniGenPipeline', {
    transformer: 'OmniGenTransformer2DModel',
    vae: 'AutoencoderKL',
    scheduler: 'FlowMatchEulerDiscreteScheduler',
  });
  const pipeline = new OmniGen({
    transformer: await config('transformer'),
    vae: await config('vae'),
    scheduler: await config('scheduler', schedulerFile),
    encode: instructionEncoder(
      await config('tokenizer', 'tokenizer.json'),
      await config('tokenizer', 'tokenizer_config.json'),
    ),
  });
  await load('transformer', pipeline.transformer, omniGenWeights);
  await load('vae', pipeline.vae, vaeWeights);
  return pipeline;
}

/**
 * The DiT pipeline in the folder, with its weights.
 * @param samplerClass as `openStableDiffusionXL`
 * @throws as `openStableDiffusionXL`
 */
export async function openDiT(folder: string, samplerClass?: string): Promise<DiT> {
  const { config, load } = await openPipelineFolder(folder, 'DiTPipeline', {
    transformer: 'DiTTransformer2DModel|Transformer2DModel',
    vae: 'AutoencoderKL',
  });
  const pipeline = new DiT({
    transformer: await config('transformer'),
    vae: await config('vae'),
    scheduler: await config('scheduler', schedulerFile),
    ...(samplerClass !== undefined && { samplerClass }),
  });
  await load('transformer', pipeline.transformer);
  await load('vae', pipeline.vae, vaeWeights);
  return pipeline;
}
