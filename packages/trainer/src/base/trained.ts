/**
 * What a run of `deft train` leaves of its model, each method in the files that its community reads:
 *
 *   deft, para, lora     adapter/adapter_model.safetensors and adapter_config.json (PEFT); text encoder in adapter/text_encoder/
 *   svdiff               adapter/spectral_shifts.safetensors
 *   custom_diffusion     adapter/pytorch_custom_diffusion_weights.safetensors, and the word as below
 *   textual_inversion    adapter/learned_embeds.safetensors
 *   dreambooth           model/, a whole model
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { loadState, type Module, stateOf, trainableState } from '@deftjs/autograd/nn';
import {
  loadPeft,
  loadSpectralShifts,
  readCustomDiffusion,
  readLearnedEmbeds,
  setAdapterStrength,
  writeCustomDiffusion,
  writeLearnedEmbeds,
  writePeft,
  writeSpectralShifts,
} from '@deftjs/deft';
import { add, type Device, mul, sub, type Tensor } from '@deftjs/tensor';
import { modelName, type TrainConfig } from '../config/index.ts';
import { UserError } from '../userError.ts';
import { loadBase, saveModel } from './folder.ts';
import type { TextToImage } from './textToImage.ts';

const spectralShifts = 'spectral_shifts.safetensors';
const customDiffusion = 'pytorch_custom_diffusion_weights.safetensors';
const learnedEmbeds = 'learned_embeds.safetensors';

/** Where the vectors of a taught word are. */
const wordPath = 'text_encoder.embeddings.token_embedding.new_words';

/** The parts that hang adapters on layers, each with its folder in the run's. */
function adaptedParts(model: TextToImage, config: TrainConfig): [folder: string, part: Module][] {
  const trainsText = 'text_encoder' in config && config.text_encoder !== null;
  return [
    ['adapter', model.denoiser],
    ...(trainsText
      ? model.textEncoders.map(([name, part]): [string, Module] => [`adapter/${name}`, part])
      : []),
  ];
}

/** Teaches the base the word that the job names, if its method has one. @throws {UserError} as `teachWord` */
async function teachWordOf(model: TextToImage, config: TrainConfig): Promise<void> {
  if (!('word' in config) || config.word === null) return;
  await model.teachWord(config.word, config.initial_word, config.vectors);
}

/** The base of a job as its steps find it: at the job's resolution, with the word it names. @throws {UserError} */
export async function openBaseOf(config: TrainConfig): Promise<TextToImage> {
  const model = await loadBase(config.base);
  model.resize(config.data.resolution);
  await teachWordOf(model, config);
  return model;
}

/** What was written. */
export interface TrainedFiles {
  /** The file that holds the weights, relative to the run's folder. */
  readonly main: string;
  /** Whose format it is. */
  readonly format: string;
}

/**
 * Writes the files of what the model has learnt.
 * @param write takes a name relative to the run's folder
 */
export async function writeTrained(
  write: (name: string, data: Uint8Array | string) => void,
  model: TextToImage,
  config: TrainConfig,
): Promise<TrainedFiles> {
  const file = (name: string, data: Uint8Array): string => {
    write(`adapter/${name}`, data);
    return `adapter/${name}`;
  };
  const words = async (word: string): Promise<string> =>
    file(learnedEmbeds, await writeLearnedEmbeds({ [word]: stateOf(model)[wordPath]! }));
  switch (config.method) {
    case 'deft':
    case 'para':
    case 'lora':
      for (const [folder, part] of adaptedParts(model, config)) {
        const base = { nameOrPath: modelName(config.base), autoMapping: null };
        const { weights, config: adapterConfig } = await writePeft(part, { base });
        write(`${folder}/adapter_model.safetensors`, weights);
        write(`${folder}/adapter_config.json`, adapterConfig);
      }
      return { main: 'adapter/adapter_model.safetensors', format: 'the file names and keys of PEFT' };
    case 'svdiff':
      for (const [folder, part] of adaptedParts(model, config))
        write(`${folder}/${spectralShifts}`, await writeSpectralShifts(part));
      return { main: `adapter/${spectralShifts}`, format: 'as SVDiff for diffusers names it' };
    case 'custom_diffusion':
      if (config.word !== null) await words(config.word);
      return {
        main: file(customDiffusion, await writeCustomDiffusion(trainableState(model.denoiser))),
        format: 'as diffusers names Custom Diffusion',
      };
    case 'textual_inversion':
      return { main: await words(config.word), format: 'as diffusers names new words' };
    case 'dreambooth':
      await saveModel((name, data) => write(`model/${name}`, data), model);
      return {
        main: `model/${model.partNames.denoiser}/diffusion_pytorch_model.safetensors`,
        format: 'a whole model',
      };
  }
}

/**
 * The base of a run with what the run learnt.
 * @param strength how much of it: 0 nothing, 1 all
 * @throws {UserError} when the run has not ended; as the readers of the files
 */
export async function openTrained(
  run: string,
  config: TrainConfig,
  device: Device,
  strength: number,
): Promise<TextToImage> {
  const bytes = (name: string): Uint8Array => {
    const path = join(run, name);
    if (!fs.existsSync(path)) throw new UserError(`${path}: missing; has the run ended?`, 2);
    return fs.readFileSync(path);
  };
  const model = await openBaseOf(config);
  const loadWords = async (word: string): Promise<void> => {
    const name = `adapter/${learnedEmbeds}`;
    const { [word]: vectors } = await readLearnedEmbeds(join(run, name), bytes(name));
    if (!vectors) throw new UserError(`${join(run, name)}: the word "${word}" is missing`);
    blend(model, { [wordPath]: vectors }, strength);
  };
  switch (config.method) {
    case 'deft':
    case 'para':
    case 'lora':
      for (const [folder, part] of adaptedParts(model, config)) {
        const weights = bytes(`${folder}/adapter_model.safetensors`);
        const text = new TextDecoder().decode(bytes(`${folder}/adapter_config.json`));
        await loadPeft(part, { weights, config: text }, { name: join(run, folder) });
        setAdapterStrength(part, strength);
      }
      break;
    case 'svdiff':
      for (const [folder, part] of adaptedParts(model, config)) {
        const name = `${folder}/${spectralShifts}`;
        await loadSpectralShifts(part, bytes(name), { name: join(run, name), device });
        setAdapterStrength(part, strength);
      }
      break;
    case 'custom_diffusion': {
      const name = `adapter/${customDiffusion}`;
      if (config.word !== null) await loadWords(config.word);
      blend(model.denoiser, await readCustomDiffusion(join(run, name), bytes(name)), strength);
      break;
    }
    case 'textual_inversion':
      await loadWords(config.word);
      break;
    case 'dreambooth':
      bytes('model/model_index.json');
      blend(model, stateOf(await loadBase(join(run, 'model'))), strength);
  }
  return model;
}

/** Moves weights from what they are towards others: by 0 not at all, by 1 all the way. */
function blend(module: Module, to: Readonly<Record<string, Tensor>>, strength: number): void {
  if (strength === 0) return;
  const from = stateOf(module);
  const mixed = Object.entries(to).map(([path, w]) => {
    const w0 = from[path];
    return [path, strength === 1 || !w0 ? w : add(w0, mul(sub(w, w0), strength))];
  });
  loadState(module, Object.fromEntries(mixed), true);
}
