/** Networks that pictures are compared by: CLIP, DINO and DINOv2, in the folders that transformers saves. */
import { join } from 'node:path';
import {
  CLIPModel,
  clipWeights,
  Dinov2Model,
  type ImageProcessor,
  imageProcessor,
  type JsonConfig,
  loadWeights,
  type RgbPicture,
  ViTModel,
  vitWeights,
} from '@deftjs/models';
import { openClipTokenizer, openWeights, readConfigFile } from '@deftjs/models/node';
import { type Device, narrow, read, squeeze, type Tensor, tensor } from '@deftjs/tensor';
import { UserError } from '../userError.ts';
import { checkWords } from '../world/vocabulary.ts';
import { encoderTokens, encoderVocabulary, worldTokenizer } from './worldEncoder.ts';

/** Vectors of length one. */
export type Features = readonly Float64Array[];

export interface PictureEncoder {
  /** "CLIP", "DINO" or "DINOv2"; "world CLIP" for the project's own, whose numbers stand for CLIP's in the picture world alone. */
  readonly name: string;
  pictures(pictures: readonly RgbPicture[]): Promise<Features>;
  /** Captions in the space of the pictures; absent where the network knows no text. */
  readonly texts?: (captions: readonly string[]) => Promise<Features>;
}

/** Pictures that go through a network at once. */
const batch = 8;

/**
 * The encoder in a folder with config.json, preprocessor_config.json, weights and, of CLIP, a tokenizer. What DINO and
 * DINOv2 see in a picture is their class token after the last norm.
 * @throws {UserError} for a model of another kind; as the readers of the files
 */
export async function openPictureEncoder(folder: string, device: Device): Promise<PictureEncoder> {
  const config = await readConfigFile(join(folder, 'config.json')).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    throw new UserError(`${folder}: no config.json here; expected a folder of CLIP, DINO or DINOv2`, 2);
  });
  const prepare = imageProcessor(await readConfigFile(join(folder, 'preprocessor_config.json')));
  await using weights = await openWeights(folder);
  switch (config.model_type) {
    case 'clip': {
      const model = new CLIPModel(config);
      await loadWeights(model, clipWeights(weights));
      const { tokenizer_class: reader } = await readConfigFile(join(folder, 'tokenizer_config.json'));
      if (reader !== worldTokenizer.tokenizer_class) {
        return clipEncoder('CLIP', model, prepare, await openClipTokenizer(folder), device);
      }
      checkWords(folder, await readConfigFile(join(folder, 'vocab.json')), encoderVocabulary);
      const tokenizer = { length: encoderTokens('').length, encode: encoderTokens };
      return clipEncoder('world CLIP', model, prepare, tokenizer, device);
    }
    case 'dinov2': {
      const model = new Dinov2Model(config);
      await loadWeights(model, weights);
      return selfSupervised('DINOv2', prepare, (x) => model.forward(x), device);
    }
    case 'vit': {
      const model = new ViTModel(config);
      await loadWeights(model, vitWeights(weights));
      return selfSupervised('DINO', prepare, (x) => model.forward(x), device);
    }
    default:
      throw new UserError(
        `${folder}: ${kindOf(config)} is no encoder known here; expected clip, vit or dinov2`,
        2,
      );
  }
}

function kindOf({ model_type: type }: JsonConfig): string {
  return type === undefined ? 'a model without model_type' : `model_type ${JSON.stringify(type)}`;
}

function clipEncoder(
  name: string,
  model: CLIPModel,
  prepare: ImageProcessor,
  tokenizer: { readonly length: number; encode(caption: string): ArrayLike<number> & Iterable<number> },
  device: Device,
): PictureEncoder {
  return {
    name,
    pictures: (pictures) => inBatches(pictures, (some) => model.embedPictures(prepare(some)), device),
    texts: (captions) =>
      inBatches(
        captions,
        (some) => {
          const ids = some.flatMap((caption) => [...tokenizer.encode(caption)]);
          return model.embedTexts(tensor(Int32Array.from(ids), [some.length, tokenizer.length]));
        },
        device,
      ),
  };
}

function selfSupervised(
  name: string,
  prepare: ImageProcessor,
  tokens: (x: Tensor) => Tensor,
  device: Device,
): PictureEncoder {
  const classToken = (x: Tensor): Tensor => squeeze(narrow(tokens(x), 1, 0, 1), 1); // [B, L, C] -> [B, C]
  return { name, pictures: (list) => inBatches(list, (some) => classToken(prepare(some)), device) };
}

/** What the network gives for each, as vectors of length one. */
async function inBatches<T>(
  items: readonly T[],
  embed: (some: readonly T[]) => Tensor,
  device: Device,
): Promise<Features> {
  const features: Float64Array[] = [];
  for (let from = 0; from < items.length; from += batch) {
    const embedded = embed(items.slice(from, from + batch)); // [B, C]
    const width = embedded.shape[1]!;
    const numbers = Float64Array.from(await read(embedded, device));
    for (let at = 0; at < numbers.length; at += width) {
      const vector = numbers.subarray(at, at + width);
      const length = Math.hypot(...vector);
      features.push(vector.map((value) => value / length));
    }
  }
  return features;
}

/**
 * Cosine of each picture with its caption (CLIP-T). Radford et al. 2021; Hessel et al. 2021 report it times 2.5, and nothing
 * below zero.
 */
export function alignment(pictures: Features, captions: Features): number[] {
  return pictures.map((picture, i) => cosine(picture, captions[i]!));
}

/** Mean cosine of each picture with all real ones (CLIP-I, DINO): Ruiz et al. 2023, section 4.2. */
export function likeness(pictures: Features, real: Features): number[] {
  return pictures.map((picture) => real.reduce((sum, one) => sum + cosine(picture, one), 0) / real.length);
}

function cosine(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0);
}
