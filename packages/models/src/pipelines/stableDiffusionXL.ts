/**
 * Stable Diffusion XL (arXiv 2307.01952): Stable Diffusion with two text encoders, told the sizes of pictures.
 *
 *   tokens -> two encoders -> context [N, L, D1 + D2] and pooled text [N, P] -> denoising steps -> decoder
 */
import { Module } from '@deftjs/autograd/nn';
import {
  concat,
  expand,
  getDevice,
  type JsonConfig,
  type Tensor,
  tensor,
  treeMap,
  zerosLike,
} from '@deftjs/tensor';
import { CLIPTextModel, CLIPTextModelWithProjection } from '../clipText.ts';
import { draw, guided, repeated } from '../sampling.ts';
import { type Sampler, sampler } from '../schedulers/index.ts';
import type { Tokenizer } from '../tokenizer.ts';
import { UNet2DConditionModel } from '../unet.ts';
import { AutoencoderKL } from '../vae.ts';
import { decodeLatents, encodePictures, expectSeeds, latentSize, skippedSteps } from './latents.ts';
import type { PictureRequest } from './stableDiffusion.ts';

/** The parts of a pipeline: their config.json files, and the tokenizers. */
export interface StableDiffusionXLParts {
  readonly unet: JsonConfig;
  readonly textEncoder: JsonConfig;
  readonly textEncoder2: JsonConfig;
  readonly vae: JsonConfig;
  readonly scheduler: JsonConfig;
  readonly tokenizer: Tokenizer;
  readonly tokenizer2: Tokenizer;
  /** Whether a missing negative prompt is zeros rather than the empty text. */
  readonly forceZerosForEmptyPrompt: boolean;
  /** The class of the sampler; default: the one that the scheduler's config names. */
  readonly samplerClass?: string;
}

/** What the UNet sees of texts and sizes. */
export type XLContext = {
  /** [N, L, D1 + D2]. */
  readonly context: Tensor;
  /** [N, P]. */
  readonly textEmbeds: Tensor;
  /** Height and width of the original, top and left of the crop, height and width wanted, in pixels [N, 6]. */
  readonly timeIds: Tensor;
};

export class StableDiffusionXL extends Module {
  readonly unet: UNet2DConditionModel;
  readonly text_encoder: CLIPTextModel;
  readonly text_encoder_2: CLIPTextModelWithProjection;
  readonly vae: AutoencoderKL;
  readonly #parts: StableDiffusionXLParts;
  readonly #sampler: Sampler;

  /** @throws ConfigError */
  constructor(parts: StableDiffusionXLParts) {
    super();
    this.unet = new UNet2DConditionModel(parts.unet);
    this.text_encoder = new CLIPTextModel(parts.textEncoder);
    this.text_encoder_2 = new CLIPTextModelWithProjection(parts.textEncoder2);
    this.vae = new AutoencoderKL(parts.vae);
    this.#parts = parts;
    this.#sampler = sampler(parts.scheduler, parts.samplerClass);
  }

  /** What texts give the UNet: the hidden states before the last layers, side by side, and the second's pooled text. */
  encodeTexts(texts: readonly string[]): Pick<XLContext, 'context' | 'textEmbeds'> {
    const { tokenizer, tokenizer2 } = this.#parts;
    const idsOf = ({ encode, length }: Tokenizer) =>
      tensor(texts.flatMap(encode), [texts.length, length], 'i32');
    const first = this.text_encoder.forward(idsOf(tokenizer));
    const second = this.text_encoder_2.forward(idsOf(tokenizer2));
    const context = concat([first.hiddenStates.at(-2)!, second.hiddenStates.at(-2)!], 2);
    return { context, textEmbeds: second.textEmbeds };
  }

  /** The UNet's output for noisy latents, times and what it sees. */
  readonly denoise = (latents: Tensor, times: Tensor, { context, textEmbeds, timeIds }: XLContext): Tensor =>
    this.unet.forward(latents, times, context, { textEmbeds, timeIds });

  /**
   * Latents of pictures of the prompts: [N, Z, h, w], evaluated.
   * @throws ShapeError when the size is no multiple of what the VAE takes; RangeError when seeds and prompts differ in
   *   number, or a strength leaves no step
   */
  async drawLatents(request: PictureRequest): Promise<Tensor> {
    const { prompts, negativePrompt, seeds, steps, guidanceScale, start } = request;
    const name = 'stableDiffusionXL';
    const count = prompts.length;
    expectSeeds(name, seeds, count);
    const skip = skippedSteps(name, steps, request.from);
    const sampleSize = typeof this.#parts.unet.sample_size === 'number' ? this.#parts.unet.sample_size : 128;
    const [height, width] = latentSize(name, this.vae, request, sampleSize);
    const device = request.device ?? getDevice();
    using from = request.from && (await encodePictures(this.vae, request.from.pictures, device));
    const pixels = [height * this.vae.factor, width * this.vae.factor];
    const timeIds = expand(tensor([...pixels, 0, 0, ...pixels], [1, 6]), [count, 6]);
    const texts = this.encodeTexts(prompts);
    const without =
      negativePrompt === undefined && this.#parts.forceZerosForEmptyPrompt
        ? treeMap(zerosLike, texts)
        : repeated(this.encodeTexts([negativePrompt ?? '']), count);
    const latents = await draw({
      network: guided(this.denoise, guidanceScale),
      denoising: this.#sampler(steps, skip),
      context: { with: { ...texts, timeIds }, without: { ...without, timeIds } },
      seeds,
      shape: [this.vae.config.latentChannels, height, width],
      ...(start && { start }),
      ...(from && { from }),
      device,
    });
    for (const spent of [...Object.values(texts), ...Object.values(without), timeIds]) spent.dispose();
    return latents;
  }

  /** Pictures of the prompts: [N, 3, H, W] in [0, 1], evaluated. @throws as `drawLatents` */
  async draw(request: PictureRequest): Promise<Tensor> {
    const device = request.device ?? getDevice();
    using latents = await this.drawLatents({ ...request, device });
    return await decodeLatents(this.vae, latents, device);
  }
}
