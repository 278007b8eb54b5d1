/** The configured method on a model: what is frozen, what is trained, and how fast. */
import { setTrainable, trainableState } from '@deftjs/autograd/nn';
import type { ParameterGroup } from '@deftjs/autograd/optim';
import { attach, crossAttentionKeysAndValues, deft, type Method, methods } from '@deftjs/deft';
import { type Device, numel } from '@deftjs/tensor';
import type { TextToImage } from '../base/textToImage.ts';
import type { TrainConfig, TrainConfigOf } from '../config/index.ts';

/** What is trained of a model. */
export interface TrainedPart {
  /** Tensors of the base that are adapted or trained. */
  readonly layers: number;
  /** How many numbers are trained. */
  readonly parameters: number;
}

type AdapterConfig = TrainConfigOf<'deft' | 'para' | 'lora' | 'svdiff'>;

/** The method that hangs on layers, with its options. @throws RangeError for options that do not go together */
function adapterMethod(config: AdapterConfig): Method {
  switch (config.method) {
    case 'deft': {
      const { rank, projector, scaling, alpha, start, init_scale: initScale, gate, dropout } = config;
      return deft({ rank, projector, scaling, alpha, start, initScale, gate, dropout });
    }
    case 'para': {
      const { rank, projector, scaling } = config;
      return methods.para({ rank, projector, scaling });
    }
    case 'lora': {
      const { rank, alpha, start, rslora: rsLora, dropout } = config;
      return methods.lora({ rank, alpha: alpha ?? rank, start, rsLora, dropout });
    }
    case 'svdiff':
      return methods.svdiff({ scale: config.scale });
  }
}

/** Attaches adapters to the UNet and, when asked for, the text encoder; returns the number of layers. */
async function attachAdapters(model: TextToImage, config: AdapterConfig, device: Device): Promise<number> {
  const { seed, target_modules: targetModules, exclude_modules: excludeModules, text_encoder: text } = config;
  const method = adapterMethod(config);
  const patterns =
    config.method === 'lora' ? { rankPattern: config.rank_pattern, alphaPattern: config.alpha_pattern } : {};
  const rows = await attach(model.denoiser, {
    method,
    targetModules,
    excludeModules,
    ...patterns,
    seed,
    device,
  });
  if (text === null) return rows.length;
  const { target_modules } = text;
  let count = rows.length;
  for (const [, encoder] of model.textEncoders) {
    count += (await attach(encoder, { method, targetModules: target_modules, seed, device })).length;
  }
  return count;
}

const adapterPath = /\.adapters\./;
const wordPath = /\.new_words$/;
const keysAndValues = new RegExp(`${crossAttentionKeysAndValues}\\.weight$`);

/** The paths of the denoiser's parameters, and of the text encoders' where they are trained whole. */
function partsPath({ partNames }: TextToImage, withText: boolean): RegExp {
  const parts = [partNames.denoiser, ...(withText ? partNames.textEncoders : [])];
  return new RegExp(`^(${parts.join('|')})\\.`);
}

/** Whether any text encoder is part of what is trained: then captions are encoded in every step. */
export function trainsText(model: TextToImage): boolean {
  return Object.keys(trainableState(model)).some((path) => textPath.test(path));
}

/**
 * Freezes the model but for what the method trains, attaching adapters where the method has them.
 * @throws Error as `attach`; RangeError for options that do not go together; the model is of no use then
 */
export async function applyMethod(
  model: TextToImage,
  config: TrainConfig,
  device: Device,
): Promise<TrainedPart> {
  let adapted: number | null = null;
  switch (config.method) {
    case 'textual_inversion':
      setTrainable(model, wordPath);
      break;
    case 'custom_diffusion':
      setTrainable(model, (path) => wordPath.test(path) || keysAndValues.test(path));
      break;
    case 'dreambooth':
      setTrainable(model, partsPath(model, config.text_encoder !== null));
      break;
    default:
      adapted = await attachAdapters(model, config, device);
      setTrainable(model, adapterPath);
  }
  const trained = Object.values(trainableState(model));
  return {
    layers: adapted ?? trained.length,
    parameters: trained.reduce((sum, { shape }) => sum + numel(shape), 0),
  };
}

/** What P is to DEFT, whatever its projector trains in its place. */
const basisPath = /\.deft_[PWH]$/;
const textPath = /^text_encoder(_\d)?\./;

/** The parameters whose settings are not the configured ones: groups of the configuration, DEFT's P, and the text encoder. */
export function learningRateGroups(config: TrainConfig): ParameterGroup[] {
  const basis = config.method === 'deft' ? config.p_learning_rate_ratio : 1;
  const text = ('text_encoder' in config && config.text_encoder?.learning_rate_ratio) || 1;
  const configured = config.parameter_groups.map(({ match, learning_rate_ratio, weight_decay }) => ({
    match: new RegExp(match),
    learningRateFactor: learning_rate_ratio,
    ...(weight_decay !== null && { weightDecay: weight_decay }),
  }));
  return [
    ...configured,
    {
      match: (path) => textPath.test(path) && basisPath.test(path),
      learningRateFactor: text * basis,
    },
    { match: textPath, learningRateFactor: text },
    { match: basisPath, learningRateFactor: basis },
  ];
}

/** The method's settings in words, for the report: "rank 4, projector qr". */
export function settingsInWords(config: TrainConfig): string {
  switch (config.method) {
    case 'deft':
    case 'para':
      return `rank ${config.rank}, projector ${config.projector}`;
    case 'lora':
      return `rank ${config.rank}, alpha ${config.alpha ?? config.rank}`;
    case 'svdiff':
      return 'singular values';
    case 'dreambooth':
      return config.text_encoder === null ? 'the UNet' : 'the UNet and the text encoder';
    case 'custom_diffusion':
      return `keys and values of cross-attention${config.word === null ? '' : `, the word ${config.word}`}`;
    case 'textual_inversion':
      return `the word ${config.word}, ${config.vectors} vectors`;
  }
}
