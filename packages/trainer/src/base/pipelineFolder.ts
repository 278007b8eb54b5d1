/** Pipelines in diffusers' folders as models to train, and whole models written in their layout. */
import fs from 'node:fs';
import { join } from 'node:path';
import { stateOf } from '@deftjs/autograd/nn';
import { type HostTensor, type JsonConfig, writeSafetensors } from '@deftjs/models';
import {
  openClipTokenizer,
  openFlux,
  openStableDiffusion,
  openStableDiffusionXL,
  openT5Tokenizer,
  readConfigFile,
} from '@deftjs/models/node';
import { read } from '@deftjs/tensor';
import { UserError } from '../userError.ts';
import { FluxModel, type PipelineModel, StableDiffusionModel, StableDiffusionXLModel } from './pipelines.ts';

/** What else can be opened, and why it cannot be trained on captioned pictures. */
const refused: Readonly<Record<string, string>> = {
  DiTPipeline: 'it draws pictures of numbered classes, not of captions',
  OmniGenPipeline: 'it is trained on pairs of pictures',
};

const openers: Readonly<Record<string, (folder: string) => Promise<PipelineModel>>> = {
  async StableDiffusionPipeline(folder) {
    const { tokenizer, scheduler, size } = await partsOf(folder);
    const pipeline = await openStableDiffusion(folder, { tokenizer });
    return new StableDiffusionModel({ pipeline, folder, scheduler, tokenizer }, size ?? 64);
  },
  async StableDiffusionXLPipeline(folder) {
    const { tokenizer, scheduler, size } = await partsOf(folder);
    const pipeline = await openStableDiffusionXL(folder);
    const tokenizer2 = await openClipTokenizer(join(folder, 'tokenizer_2'));
    return new StableDiffusionXLModel({ pipeline, folder, scheduler, tokenizer }, tokenizer2, size ?? 128);
  },
  async FluxPipeline(folder) {
    const { tokenizer: clip, scheduler } = await partsOf(folder);
    const pipeline = await openFlux(folder);
    const tokenizer = await openT5Tokenizer(join(folder, 'tokenizer_2'));
    return new FluxModel({ pipeline, folder, scheduler, tokenizer }, clip);
  },
};

async function partsOf(folder: string) {
  const unet = join(folder, 'unet/config.json');
  const { sample_size: size } = fs.existsSync(unet) ? await readConfigFile(unet) : {};
  return {
    tokenizer: await openClipTokenizer(join(folder, 'tokenizer')),
    scheduler: await readConfigFile(join(folder, 'scheduler/scheduler_config.json')),
    size: typeof size === 'number' ? size : null,
  };
}

/**
 * The model in a folder of diffusers.
 * @param index its model_index.json
 * @throws {UserError} naming the class, before any weight is read, when it is not one that can be trained; ConfigError,
 *   WeightsError, SafetensorsError
 */
export async function openPipelineModel(folder: string, index: JsonConfig): Promise<PipelineModel> {
  const name = String(index._class_name);
  const open = Object.hasOwn(openers, name) ? openers[name] : undefined;
  if (open === undefined) {
    const known = ['TextToImage', 'InstructionToImage', ...Object.keys(openers)].join(', ');
    const why = Object.hasOwn(refused, name) ? `; ${refused[name]}` : '';
    throw new UserError(`${folder}: a base of class ${name}${why}; expected one of ${known}`, 2);
  }
  return open(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') throw new UserError(`${error.path ?? folder}: missing`, 2);
    throw error;
  });
}

/** Where each part's weights are, and what transformers puts before their names. */
function weightsFile(part: string): string {
  return /^text_encoder/.test(part) ? 'model.safetensors' : 'diffusion_pytorch_model.safetensors';
}

/**
 * Writes a whole model in diffusers' layout, f32: the folder it was read from, but for the weights of these parts.
 * @param write takes a name relative to the model's folder, and what the file holds
 */
export async function savePipeline(
  write: (name: string, data: Uint8Array | string) => void,
  model: PipelineModel,
  parts: readonly string[],
): Promise<void> {
  for (const name of fs.readdirSync(model.folder, { recursive: true, encoding: 'utf8' })) {
    const path = join(model.folder, name);
    const isReplaced =
      /\.(safetensors|bin)(\.index\.json)?$/.test(name) && parts.some((p) => name.startsWith(`${p}/`));
    if (fs.statSync(path).isFile() && !isReplaced) write(name, fs.readFileSync(path));
  }
  const state = stateOf(model);
  for (const part of parts) {
    const prefix = part === 'text_encoder' ? 'text_model.' : '';
    const tensors: Record<string, HostTensor> = {};
    for (const [path, value] of Object.entries(state)) {
      if (!path.startsWith(`${part}.`)) continue;
      const data = Float32Array.from(await read(value));
      tensors[prefix + path.slice(part.length + 1)] = { dtype: 'f32', shape: value.shape, data };
    }
    write(`${part}/${weightsFile(part)}`, writeSafetensors(tensors, { format: 'pt' }));
  }
}
