/**
 * Stable Diffusion (arXiv 2112.10752): text to latents to pictures.
 *
 *   tokens -> text encoder -> context [N, L, D] -> denoising steps on latents [N, Z, h, w] -> decoder -> [N, 3, f h, f w]
 */
import { Module } from '@deftjs/autograd/nn';
import { type Device, getDevice, type JsonConfig, type Tensor, tensor } from '@deftjs/tensor';
import { CLIPTextModel } from '../clipText.ts';
import { type Denoiser, draw, guided, repeated } from '../sampling.ts';
import { type Sampler, sampler } from '../schedulers/index.ts';
import type { Tokenizer } from '../tokenizer.ts';
import { UNet2DConditionModel } from '../unet.ts';
import { AutoencoderKL } from '../vae.ts';
import {
  type DrawOptions,
  decodeLatents,
  encodePictures,
  expectSeeds,
  latentSize,
  skippedSteps,
} from './latents.ts';

/** The parts of a pipeline: their config.json files, and the tokenizer. */
export interface StableDiffusionParts {
  readonly unet: JsonConfig;
  readonly textEncoder: JsonConfig;
  readonly vae: JsonConfig;
  readonly scheduler: JsonConfig;
  readonly tokenizer: Tokenizer;
  /** The class of the sampler; default: the one that the scheduler's config names. */
  readonly samplerClass?: string;
}

export interface PictureRequest extends DrawOptions {
  /** One picture is drawn for each. */
  readonly prompts: readonly string[];
  /** What the pictures are guided away from, for all prompts. Default: the empty text. */
  readonly negativePrompt?: string;
  /** How far to go beyond the prediction without the prompt; 1 is no guidance. */
  readonly guidanceScale: number;
}

export class StableDiffusion extends Module {
  readonly unet: UNet2DConditionModel;
  readonly text_encoder: CLIPTextModel;
  readonly vae: AutoencoderKL;
  readonly #tokenizer: Tokenizer;
  readonly #sampler: Sampler;
  readonly #sampleSize: number;

  /** @throws ConfigError */
  constructor({ unet, textEncoder, vae, scheduler, tokenizer, samplerClass }: StableDiffusionParts) {
    super();
    this.unet = new UNet2DConditionModel(unet);
    this.text_encoder = new CLIPTextModel(textEncoder);
    this.vae = new AutoencoderKL(vae);
    this.#tokenizer = tokenizer;
    this.#sampler = sampler(scheduler, samplerClass);
    this.#sampleSize = typeof unet.sample_size === 'number' ? unet.sample_size : 64;
  }

  /** The context that texts give the UNet: [N, L, D]. */
  encodeTexts(texts: readonly string[]): Tensor {
    const { length } = this.#tokenizer;
    const ids = texts.flatMap((text) => this.#tokenizer.encode(text));
    return this.text_encoder.forward(tensor(ids, [texts.length, length], 'i32')).lastHiddenState;
  }

  /** The UNet's output for noisy latents, times and context. */
  readonly denoise: Denoiser = (latents, times, context) => this.unet.forward(latents, times, context);

  /**
   * Latents of pictures of the prompts: [N, Z, h, w], evaluated.
   * @throws ShapeError when the size is no multiple of what the VAE takes; RangeError when seeds and prompts differ in
   *   number, or a strength leaves no step
   */
  async drawLatents(request: PictureRequest): Promise<Tensor> {
    const { prompts, negativePrompt = '', seeds, steps, guidanceScale, start } = request;
    expectSeeds('stableDiffusion', seeds, prompts.length);
    const skip = skippedSteps('stableDiffusion', steps, request.from);
    const size = latentSize('stableDiffusion', this.vae, request, this.#sampleSize);
    const device = request.device ?? getDevice();
    using from = request.from && (await encodePictures(this.vae, request.from.pictures, device));
    using context = this.encodeTexts(prompts);
    using without = repeated(this.encodeTexts([negativePrompt]), prompts.length);
    return await draw({
      network: guided(this.denoise, guidanceScale),
      denoising: this.#sampler(steps, skip),
      context: { with: context, without },
      seeds,
      shape: [this.vae.config.latentChannels, ...size],
      ...(start && { start }),
      ...(from && { from }),
      device,
    });
  }

  /** Pictures of the prompts: [N, 3, H, W] in [0, 1], evaluated. @throws as `drawLatents` */
  async draw(request: PictureRequest): Promise<Tensor> {
    const device = request.device ?? getDevice();
    using latents = await this.drawLatents(request);
    return await this.decode(latents, device);
  }

  /** Pictures of latents: [N, 3, H, W] in [0, 1], evaluated. */
  decode(latents: Tensor, device: Device): Promise<Tensor> {
    return decodeLatents(this.vae, latents, device);
  }
}
