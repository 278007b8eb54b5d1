/** Stable Diffusion folders as diffusers saves them: model_index.json and one folder for each part. */
import { join } from 'node:path';
import { ConfigError, type JsonConfig, type JsonValue } from '@deftjs/tensor';
import { clipTextWeights } from '../clipText.ts';
import { StableDiffusion } from '../pipelines/stableDiffusion.ts';
import { vaeWeights } from '../vae.ts';
import { loadWeights } from '../weights.ts';
import { openWeights, readConfigFile } from './modelFolder.ts';
import { openClipTokenizer } from './tokenizerFolder.ts';

/** The class that each part must have; a safety checker and its feature extractor may be there and are not used. */
const classes: Readonly<Record<string, string>> = {
  unet: 'UNet2DConditionModel',
  text_encoder: 'CLIPTextModel',
  vae: 'AutoencoderKL',
  tokenizer: 'CLIPTokenizer',
};

/**
 * The pipeline in the folder, with its weights.
 * @param samplerClass the sampler to use, configured by the folder's scheduler; default: the folder's own
 * @throws ConfigError naming the part that is of another class; WeightsError; SafetensorsError; the system's error
 *   where a file is missing
 */
export async function openStableDiffusion(folder: string, samplerClass?: string): Promise<StableDiffusion> {
  checkIndex(await readConfigFile(join(folder, 'model_index.json')));
  const config = (part: string, file = 'config.json') => readConfigFile(join(folder, part, file));
  const pipeline = new StableDiffusion({
    unet: await config('unet'),
    textEncoder: await config('text_encoder'),
    vae: await config('vae'),
    scheduler: await config('scheduler', 'scheduler_config.json'),
    tokenizer: await openClipTokenizer(join(folder, 'tokenizer')),
    ...(samplerClass !== undefined && { samplerClass }),
  });
  await using unet = await openWeights(join(folder, 'unet'));
  await loadWeights(pipeline.unet, unet);
  await using text = await openWeights(join(folder, 'text_encoder'));
  await loadWeights(pipeline.text_encoder, clipTextWeights(text));
  await using vae = await openWeights(join(folder, 'vae'));
  await loadWeights(pipeline.vae, vaeWeights(vae));
  return pipeline;
}

function checkIndex(index: JsonConfig): void {
  const refuse = (key: string, expected: string, value: JsonValue | undefined): never => {
    throw new ConfigError(`model_index.json: ${key}: expected ${expected}; got ${JSON.stringify(value)}`);
  };
  const { _class_name: pipeline } = index;
  if (pipeline !== 'StableDiffusionPipeline') refuse('_class_name', 'StableDiffusionPipeline', pipeline);
  for (const [part, expected] of Object.entries(classes)) {
    const entry = index[part];
    if (!Array.isArray(entry) || entry[1] !== expected) refuse(part, expected, entry);
  }
}
