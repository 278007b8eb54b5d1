/**
 * DiT (arXiv 2212.09748): classes to latents to pictures.
 *
 *   classes [N] -> denoising steps on latents [N, Z, h, w] -> decoder -> [N, 3, f h, f w]
 */
import { Module } from '@deftjs/autograd/nn';
import { type Device, full, getDevice, type JsonConfig, narrow, type Tensor, tensor } from '@deftjs/tensor';
import { DiTTransformer2DModel } from '../dit.ts';
import { type Denoiser, draw, guided } from '../sampling.ts';
import { type Sampler, sampler } from '../schedulers/index.ts';
import { AutoencoderKL } from '../vae.ts';
import {
  type DrawOptions,
  decodeLatents,
  encodePictures,
  expectSeeds,
  latentSize,
  skippedSteps,
} from './latents.ts';

/** The parts of a pipeline: their config.json files. */
export interface DiTParts {
  readonly transformer: JsonConfig;
  readonly vae: JsonConfig;
  readonly scheduler: JsonConfig;
  /** The class of the sampler; default: the one that the scheduler's config names. */
  readonly samplerClass?: string;
}

export interface ClassPictureRequest extends DrawOptions {
  /** One picture is drawn for each: its class. */
  readonly classes: readonly number[];
  /** How far to go beyond the prediction without a class; 1 is no guidance. */
  readonly guidanceScale: number;
}

export class DiT extends Module {
  readonly transformer: DiTTransformer2DModel;
  readonly vae: AutoencoderKL;
  readonly #sampler: Sampler;

  /** @throws ConfigError */
  constructor({ transformer, vae, scheduler, samplerClass }: DiTParts) {
    super();
    this.transformer = new DiTTransformer2DModel(transformer);
    this.vae = new AutoencoderKL(vae);
    this.#sampler = sampler(scheduler, samplerClass);
  }

  /** The prediction for noisy latents, times and labels i32 [N]; the variances that the network adds are left out. */
  readonly denoise: Denoiser = (latents, times, labels) =>
    narrow(this.transformer.forward(latents, times, labels), 1, 0, this.transformer.config.inChannels);

  /**
   * Latents of pictures of the classes: [N, Z, h, w], evaluated.
   * @throws RangeError when a class does not exist, seeds and classes differ in number or a strength leaves no step;
   *   ShapeError when the size does not consist of whole patches
   */
  async drawLatents(request: ClassPictureRequest): Promise<Tensor> {
    const { classes, seeds, steps, guidanceScale, start } = request;
    const { classes: known, patchSize, inChannels, sampleSize } = this.transformer.config;
    const wrong = classes.find((label) => !Number.isInteger(label) || label < 0 || label >= known);
    if (wrong !== undefined)
      throw new RangeError(`dit: expected classes from 0 to ${known - 1}; got ${wrong}`);
    expectSeeds('dit', seeds, classes.length);
    const skip = skippedSteps('dit', steps, request.from);
    const size = latentSize('dit', this.vae, request, sampleSize, patchSize);
    const device = request.device ?? getDevice();
    using from = request.from && (await encodePictures(this.vae, request.from.pictures, device));
    using labels = tensor([...classes], [classes.length], 'i32');
    using none = full([classes.length], known, 'i32');
    return await draw({
      network: guided(this.denoise, guidanceScale),
      denoising: this.#sampler(steps, skip),
      context: { with: labels, without: none },
      seeds,
      shape: [inChannels, ...size],
      ...(start && { start }),
      ...(from && { from }),
      device,
    });
  }

  /** Pictures of the classes: [N, 3, H, W] in [0, 1], evaluated. @throws as `drawLatents` */
  async draw(request: ClassPictureRequest): Promise<Tensor> {
    const device = request.device ?? getDevice();
    using latents = await this.drawLatents({ ...request, device });
    return await this.decode(latents, device);
  }

  /** Pictures of latents: [N, 3, H, W] in [0, 1], evaluated. */
  decode(latents: Tensor, device: Device): Promise<Tensor> {
    return decodeLatents(this.vae, latents, device);
  }
}
