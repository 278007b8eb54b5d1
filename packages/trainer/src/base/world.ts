/**
 * The model of the picture world: a CLIP text encoder that reads the world's words, a denoising UNet and an exact codec.
 */
import {
  CLIPTextModel,
  draw,
  flowMatchEuler,
  guided,
  type JsonConfig,
  repeated,
  UNet2DConditionModel,
} from '@deftjs/models';
import { evaluate, type Tensor, tensor } from '@deftjs/tensor';
import { denoisingErrors, flow, type Objective } from '../diffusion/objective.ts';
import { UserError } from '../userError.ts';
import { maxTokens, tokenize, tokenOf, wordIds, wordsOf } from '../world/index.ts';
import { blockCodec, type Codec } from './codec.ts';
import {
  appendWord,
  type PartNames,
  type PlanesRequest,
  type StoredBatch,
  TextToImage,
} from './textToImage.ts';

/** The configurations of the parts, as their libraries write them. */
export interface WorldConfig {
  readonly unet: JsonConfig;
  readonly textEncoder: JsonConfig;
  readonly scheduler: JsonConfig;
  /** Pixels across one block of the codec. */
  readonly blockSize: number;
}

export class WorldModel extends TextToImage {
  readonly unet: UNet2DConditionModel;
  readonly text_encoder: CLIPTextModel;
  readonly #config: WorldConfig;
  readonly #codec: Codec;
  readonly objective: Objective = flow;
  readonly vae = null;
  readonly #taught = new Map<string, readonly number[]>();

  constructor(config: WorldConfig) {
    super();
    this.unet = new UNet2DConditionModel(config.unet);
    this.text_encoder = new CLIPTextModel(config.textEncoder);
    this.#config = config;
    this.#codec = blockCodec(config.blockSize);
  }

  get config(): WorldConfig {
    return this.#config;
  }

  get partNames(): PartNames {
    return { denoiser: 'unet', textEncoders: ['text_encoder'] };
  }

  get ownSize(): number {
    return Number(this.#config.unet.sample_size) * this.#codec.factor;
  }

  get multiple(): number {
    return this.#codec.factor * 2 ** (this.unet.config.levels.length - 1);
  }

  protected wordsProblem(caption: string): string | null {
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
    this.#taught.set(word, await appendWord(this.text_encoder, id, vectors));
  }

  /** Token ids [B, L] to the context [B, L, D] that the UNet attends to. */
  encodeText(tokens: Tensor): Tensor {
    return this.text_encoder.forward(tokens).lastHiddenState;
  }

  errors({ stored, noise, levels, context }: StoredBatch<Tensor>): Tensor {
    return denoisingErrors(this.#denoise, {
      pictures: this.#codec.encode(stored),
      noise: this.#codec.encode(noise),
      levels,
      context,
    });
  }

  async draw({ prompts, seeds, steps, guidanceScale, size, device }: PlanesRequest): Promise<Tensor> {
    const context = this.encodeText(this.tokenize(prompts));
    const without = repeated(this.encodeText(this.tokenize([''])), prompts.length);
    await evaluate([context, without], device);
    const across = size / this.#codec.factor;
    using latents = await draw({
      network: guided(this.#denoise, guidanceScale),
      denoising: flowMatchEuler(this.#config.scheduler)(steps),
      context: { with: context, without },
      seeds,
      shape: [Number(this.#config.unet.in_channels), across, across],
      device,
    });
    for (const spent of [context, without]) spent.dispose();
    const pictures = this.#codec.decode(latents);
    await evaluate([pictures], device);
    return pictures;
  }

  /** The UNet's output for noisy latents [B, C, H, W], times [B] and context. */
  readonly #denoise = (noisy: Tensor, times: Tensor, context: Tensor): Tensor =>
    this.unet.forward(noisy, times, context);
}
