/**
 * Stable Diffusion (arXiv 2112.10752): text to latents to pictures.
 *
 *   tokens -> text encoder -> context [N, L, D] -> denoising steps on latents [N, Z, h, w] -> decoder -> [N, 3, f h, f w]
 */
import { Module } from '@deftjs/autograd/nn';
import {
  add,
  clamp,
  compile,
  concat,
  type Device,
  evaluate,
  getDevice,
  type JsonConfig,
  mul,
  narrow,
  ShapeError,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import { CLIPTextModel } from '../clipText.ts';
import { type Denoiser, draw } from '../sampling.ts';
import { type Sampler, sampler } from '../schedulers/index.ts';
import type { Tokenizer } from '../tokenizer.ts';
import { UNet2DConditionModel } from '../unet.ts';
import { AutoencoderKL } from '../vae.ts';

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

export interface PictureRequest {
  /** One picture is drawn for each. */
  readonly prompts: readonly string[];
  /** What the pictures are guided away from, for all prompts. Default: the empty text. */
  readonly negativePrompt?: string;
  /** One seed for each prompt: it alone decides the noise. */
  readonly seeds: readonly number[];
  readonly steps: number;
  /** How far to go beyond the prediction without the prompt; 1 is no guidance. */
  readonly guidanceScale: number;
  /** Pixels; default: what the UNet was trained on. */
  readonly size?: { readonly width: number; readonly height: number };
  /** Standard normal latents [N, Z, h, w] to begin with; default: drawn from the seeds. */
  readonly start?: Tensor;
  readonly device?: Device;
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
   * @throws ShapeError when the size is no multiple of what the VAE takes; RangeError when seeds and prompts differ in number
   */
  async drawLatents(request: PictureRequest): Promise<Tensor> {
    const { prompts, negativePrompt = '', seeds, steps, guidanceScale, start } = request;
    if (seeds.length !== prompts.length) {
      throw new RangeError(
        `stableDiffusion: expected ${prompts.length} seeds, one for each prompt; got ${seeds.length}`,
      );
    }
    const device = request.device ?? getDevice();
    using context = this.encodeTexts(prompts);
    using emptyContext = this.encodeTexts([negativePrompt]);
    await evaluate([context, emptyContext], device);
    return await draw({
      network: this.denoise,
      denoising: this.#sampler(steps),
      context,
      emptyContext,
      guidanceScale,
      seeds,
      shape: [this.vae.config.latentChannels, ...this.latentSize(request.size)],
      ...(start && { start }),
      device,
    });
  }

  /** Pictures of the prompts: [N, 3, H, W] in [0, 1], evaluated. @throws as `drawLatents` */
  async draw(request: PictureRequest): Promise<Tensor> {
    const device = request.device ?? getDevice();
    using latents = await this.drawLatents(request);
    return await this.decode(latents, device);
  }

  /** Pictures of latents, one after another, which takes the memory of one: [N, 3, H, W] in [0, 1], evaluated. */
  async decode(latents: Tensor, device: Device): Promise<Tensor> {
    const decode = compile(
      (one: Tensor) => clamp(add(mul(this.vae.decode(this.vae.unscale(one)), 0.5), 0.5), 0, 1),
      { device },
    );
    const decoded: Tensor[] = [];
    for (let i = 0; i < latents.shape[0]!; i += 1) {
      using one = narrow(latents, 0, i, 1);
      decoded.push(await decode(one));
    }
    const pictures = concat(decoded);
    await evaluate([pictures], device);
    for (const spent of decoded) spent.dispose();
    decode.dispose();
    return pictures;
  }

  /** Height and width of the latents of a picture. */
  private latentSize(size: PictureRequest['size']): [height: number, width: number] {
    if (size === undefined) return [this.#sampleSize, this.#sampleSize];
    const { factor } = this.vae;
    const { height, width } = size;
    if (height % factor !== 0 || width % factor !== 0) {
      throw new ShapeError(
        `stableDiffusion: expected a size in multiples of ${factor} pixels; got ${width} x ${height}`,
      );
    }
    return [height / factor, width / factor];
  }
}
