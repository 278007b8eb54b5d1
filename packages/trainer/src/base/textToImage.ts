/**
 * A text-to-image model: a text encoder, a denoising UNet and a codec, in one module tree whose parameter paths are
 * "unet.<diffusers key>" and "text_encoder.<transformers key>".
 */
import { Module } from '@deftjs/autograd/nn';
import { CLIPTextModel, type JsonConfig, UNet2DConditionModel } from '@deftjs/models';
import type { Tensor } from '@deftjs/tensor';
import { flowErrors } from '../diffusion/flow.ts';
import type { BatchTensors } from '../train/batch.ts';
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

  /** Token ids [B, L] to the context [B, L, D] that the UNet attends to. */
  encodeText(tokens: Tensor): Tensor {
    return this.text_encoder.forward(tokens).lastHiddenState;
  }

  /** The training error of each picture (equation (1) of diffusion/flow.ts): [B]. */
  flowErrors({ pictures, noise, levels, tokens }: BatchTensors): Tensor {
    return flowErrors(this.denoise, {
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
