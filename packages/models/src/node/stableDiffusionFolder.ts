/** Stable Diffusion folders as diffusers saves them: model_index.json and one folder for each part. */
import { join } from 'node:path';
import { clipTextWeights } from '../clipText.ts';
import { StableDiffusion } from '../pipelines/stableDiffusion.ts';
import { singleFileText, singleFileUNet, singleFileVae } from '../singleFile.ts';
import type { Tokenizer } from '../tokenizer.ts';
import { vaeWeights } from '../vae.ts';
import { loadWeights } from '../weights.ts';
import { openSafetensorsFile } from './fileSource.ts';
import { openPipelineFolder } from './pipelineFolder.ts';
import { openClipTokenizer } from './tokenizerFolder.ts';

/** The class that each part must have; a safety checker and its feature extractor may be there and are not used. */
const classes: Readonly<Record<string, string>> = {
  unet: 'UNet2DConditionModel',
  text_encoder: 'CLIPTextModel',
  vae: 'AutoencoderKL',
  tokenizer: 'CLIPTokenizer',
};

export interface OpenStableDiffusionOptions {
  /** The class of the sampler to use, configured by the folder's scheduler; default: the folder's own. */
  readonly samplerClass?: string;
  /** In place of the one in the folder. */
  readonly tokenizer?: Tokenizer;
  /** A checkpoint in one file (CompVis, kohya), from which the weights are taken instead of the folder's. */
  readonly checkpoint?: string;
}

/**
 * The pipeline in the folder, with its weights.
 * @throws ConfigError naming the part that is of another class; WeightsError; SafetensorsError; the system's error
 *   where a file is missing
 */
export async function openStableDiffusion(
  folder: string,
  { samplerClass, checkpoint, tokenizer }: OpenStableDiffusionOptions = {},
): Promise<StableDiffusion> {
  const { config, load } = await openPipelineFolder(folder, 'StableDiffusionPipeline', classes);
  const pipeline = new StableDiffusion({
    unet: await config('unet'),
    textEncoder: await config('text_encoder'),
    vae: await config('vae'),
    scheduler: await config('scheduler', 'scheduler_config.json'),
    tokenizer: tokenizer ?? (await openClipTokenizer(join(folder, 'tokenizer'))),
    ...(samplerClass !== undefined && { samplerClass }),
  });
  const { unet, text_encoder: textEncoder, vae } = pipeline;
  if (checkpoint !== undefined) {
    await using file = await openSafetensorsFile(checkpoint);
    await loadWeights(unet, singleFileUNet(file, unet.config));
    await loadWeights(textEncoder, clipTextWeights(singleFileText(file)));
    await loadWeights(vae, singleFileVae(file, vae.config));
    return pipeline;
  }
  await load('unet', unet);
  await load('text_encoder', textEncoder, clipTextWeights);
  await load('vae', vae, vaeWeights);
  return pipeline;
}
