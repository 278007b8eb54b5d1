/**
 * A text-to-image model: a text encoder, a denoising UNet and a codec, in one module tree whose parameter paths are
 * "unet.<diffusers key>" and "text_encoder.<transformers key>".
 */
import { Module } from '@deftjs/autograd/nn';
import { addWords } from '@deftjs/deft';
import { CLIPTextModel, type JsonConfig, UNet2DConditionModel } from '@deftjs/models';
import { read, type Tensor, tensor } from '@deftjs/tensor';
import { denoisingErrors, flow, type Objective } from '../diffusion/objective.ts';
import type { BatchTensors } from '../train/batch.ts';
import { UserError } from '../userError.ts';
import { maxTokens, tokenize, tokenOf, wordIds, wordsOf } from '../world/index.ts';
import { blockCodec, type Codec } from './codec.ts';

/** The configurations of the parts, as their libraries write them. */
export interface TextToImageConfig {
  readonly unet: JsonConfig;
  readonly textEncoder: JsonConfig;
  readonly scheduler: JsonConfig;
  /** Pixels across one block of the codec. */
  readonly blockSize: number;
}

export class TextToImage extends Module {
  readonly unet: UNet2DConditionModel;
  readonly text_encoder: CLIPTextModel;
  readonly #config: TextToImageConfig;
  readonly #codec: Codec;
  readonly #taught = new Map<string, readonly number[]>();

  constructor(config: TextToImageConfig) {
    super();
    this.unet = new UNet2DConditionModel(config.unet);
    this.text_encoder = new CLIPTextModel(config.textEncoder);
    this.#config = config;
    this.#codec = blockCodec(config.blockSize);
  }

  get config(): TextToImageConfig {
    return this.#config;
  }

  get codec(): Codec {
    return this.#codec;
  }

  /** Channels, height and width of what the UNet draws. */
  get latentShape(): readonly [number, number, number] {
    const { in_channels: channels, sample_size: size } = this.#config.unet;
    return [Number(channels), Number(size), Number(size)];
  }

  /** Pixels across a picture. */
  get pictureSize(): number {
    return this.latentShape[2] * this.#codec.factor;
  }

  /** Why the text encoder cannot take a caption; null when it can. */
  captionProblem(caption: string): string | null {
    const ids = wordIds(caption, this.#taught);
    if (ids.length > maxTokens - 2) return `${ids.length} words, more than the base reads (${maxTokens - 2})`;
    const unknown = wordsOf(caption).find((word) => !this.#knows(word));
    return unknown === undefined ? null : `the base does not know the word "${unknown}"`;
  }

  #knows(word: string): boolean {
    return this.#taught.has(word) || tokenOf(word) !== tokenOf('<unk>');
  }

  /** Token ids of captions: i32 [captions, tokens]. */
  tokenize(captions: readonly string[]): Tensor {
    const ids = new Int32Array(captions.length * maxTokens);
    captions.forEach((caption, i) => {
      ids.set(tokenize(caption, this.#taught), i * maxTokens);
    });
    return tensor(ids, [captions.length, maxTokens]);
  }

  /**
   * Teaches the text encoder a word that stands for `vectors` vectors of its own, which begin as that of a word it knows.
   * The word may be known already: captions mean the new one from now on.
   * @throws {UserError} when the new word is no word, or the initial one unknown
   */
  async teachWord(word: string, initial: string, vectors: number): Promise<void> {
    if (!/^[a-z]+$/.test(word)) {
      throw new UserError(`word: expected one word of the letters a to z; got "${word}"`, 2);
    }
    const [id, ...more] = wordIds(initial);
    if (id === undefined || more.length > 0 || !this.#knows(initial)) {
      throw new UserError(`initial_word: expected one word that the base knows; got "${initial}"`, 2);
    }
    const { weight } = this.text_encoder.embeddings.token_embedding;
    const [count, width] = weight.shape as [number, number];
    const row = (await read(weight.value)).slice(width * id, width * (id + 1));
    const rows = Float32Array.from({ length: vectors * width }, (_, i) => row[i % width]!);
    addWords(this.text_encoder, 'embeddings.token_embedding', tensor(rows, [vectors, width]));
    this.#taught.set(
      word,
      Array.from({ length: vectors }, (_, i) => count + i),
    );
  }

  /** Token ids [B, L] to the context [B, L, D] that the UNet attends to. */
  encodeText(tokens: Tensor): Tensor {
    return this.text_encoder.forward(tokens).lastHiddenState;
  }

  /** What it is trained to do. */
  get objective(): Objective {
    return flow;
  }

  /** The training error of each picture (equation (1) of diffusion/objective.ts): [B]. */
  errors({ pictures, noise, levels, tokens }: BatchTensors): Tensor {
    return denoisingErrors(this.denoise, {
      pictures: this.#codec.encode(pictures),
      noise: this.#codec.encode(noise),
      levels,
      context: this.encodeText(tokens),
    });
  }

  /** The UNet's output for noisy latents [B, C, H, W], times [B] and context. */
  readonly denoise = (noisy: Tensor, times: Tensor, context: Tensor): Tensor =>
    this.unet.forward(noisy, times, context);
}
