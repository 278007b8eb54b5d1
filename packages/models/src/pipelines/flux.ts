/**
 * FLUX.1 (Black Forest Labs 2024): text to latents to pictures.
 *
 *   tokens -> T5 -> context [N, L, D]; tokens -> CLIP -> pooled text [N, P]
 *   -> steps of the flow on latents [N, Z, h, w], which the network sees as tokens of 2 x 2 of them -> decoder
 */
import { Module } from '@deftjs/autograd/nn';
import { ConfigError, expand, getDevice, type JsonConfig, mul, type Tensor, tensor } from '@deftjs/tensor';
import { CLIPTextModel } from '../clipText.ts';
import { FluxTransformer2DModel, picturePositions } from '../flux.ts';
import { patchify, unpatchify } from '../patches.ts';
import { draw } from '../sampling.ts';
import { type FlowSampler, flowMatchEuler } from '../schedulers/index.ts';
import { T5EncoderModel } from '../t5.ts';
import type { Tokenizer } from '../tokenizer.ts';
import { AutoencoderKL } from '../vae.ts';
import {
  type DrawOptions,
  decodeLatents,
  encodePictures,
  expectSeeds,
  latentSize,
  skippedSteps,
} from './latents.ts';

/** The parts of a pipeline: their config.json files, and the tokenizers of CLIP and T5. */
export interface FluxParts {
  readonly transformer: JsonConfig;
  readonly textEncoder: JsonConfig;
  readonly textEncoder2: JsonConfig;
  readonly vae: JsonConfig;
  readonly scheduler: JsonConfig;
  readonly tokenizer: Tokenizer;
  readonly tokenizer2: Tokenizer;
}

export interface FluxRequest extends DrawOptions {
  /** One picture is drawn for each. */
  readonly prompts: readonly string[];
  /** The guidance that a network with guidance_embeds imitates; others ignore it. */
  readonly guidanceScale: number;
}

/** What the transformer sees of texts. */
export type FluxContext = {
  /** [N, L, D]. */
  readonly context: Tensor;
  /** [N, P]. */
  readonly pooled: Tensor;
  /** Guidance scales [N]. */
  readonly guidance: Tensor;
};

/** Latents across a token, and across the pictures that FLUX was trained on. */
const patch = 2;
const sampleSize = 128;

export class Flux extends Module {
  readonly transformer: FluxTransformer2DModel;
  readonly text_encoder: CLIPTextModel;
  readonly text_encoder_2: T5EncoderModel;
  readonly vae: AutoencoderKL;
  readonly #parts: FluxParts;
  readonly #sampler: FlowSampler;

  /** @throws ConfigError, also when the transformer's channels are not those of 2 x 2 latents */
  constructor(parts: FluxParts) {
    super();
    this.transformer = new FluxTransformer2DModel(parts.transformer);
    this.text_encoder = new CLIPTextModel(parts.textEncoder);
    this.text_encoder_2 = new T5EncoderModel(parts.textEncoder2);
    this.vae = new AutoencoderKL(parts.vae);
    this.#parts = parts;
    this.#sampler = flowMatchEuler(parts.scheduler);
    const { inChannels, outWidth } = this.transformer.config;
    const expected = patch ** 2 * this.vae.config.latentChannels;
    if (inChannels !== expected || outWidth !== expected) {
      throw new ConfigError(
        `flux: expected a transformer of ${expected} channels, of 2 x 2 latents; got ${inChannels} to ${outWidth}`,
      );
    }
  }

  /** What texts give the transformer: T5's hidden states and CLIP's pooled token. */
  encodeTexts(texts: readonly string[]): Pick<FluxContext, 'context' | 'pooled'> {
    const { tokenizer, tokenizer2 } = this.#parts;
    const idsOf = ({ encode, length }: Tokenizer) =>
      tensor(texts.flatMap(encode), [texts.length, length], 'i32');
    return {
      context: this.text_encoder_2.forward(idsOf(tokenizer2)),
      pooled: this.text_encoder.forward(idsOf(tokenizer)).pooled,
    };
  }

  /** The velocity of noisy latents [N, Z, h, w] at levels in [0, 1]. */
  velocity(latents: Tensor, levels: Tensor, { context, pooled, guidance }: FluxContext): Tensor {
    const [rows, columns] = latents.shape.slice(2).map((extent) => extent / patch) as [number, number];
    const out = this.transformer.forward({
      sample: patchify(latents, patch, 'cpq'), // [N, h w / 4, 4 Z]
      context,
      pooled,
      levels,
      ...(this.transformer.config.guidanceEmbeds && { guidance }),
      positions: picturePositions(rows, columns),
    });
    return unpatchify(out, [rows, columns], patch, 'cpq');
  }

  /**
   * Latents of pictures of the prompts: [N, Z, h, w], evaluated.
   * @throws ShapeError when the size does not consist of whole tokens; RangeError when seeds and prompts differ in
   *   number, or a strength leaves no step
   */
  async drawLatents(request: FluxRequest): Promise<Tensor> {
    const { prompts, seeds, steps, guidanceScale, start } = request;
    expectSeeds('flux', seeds, prompts.length);
    const skip = skippedSteps('flux', steps, request.from);
    const [height, width] = latentSize('flux', this.vae, request, sampleSize, patch);
    const device = request.device ?? getDevice();
    using from = request.from && (await encodePictures(this.vae, request.from.pictures, device));
    const { scheduler } = this.#parts;
    const numTrainTimesteps = Number(scheduler.num_train_timesteps ?? 1000);
    const texts = this.encodeTexts(prompts);
    const context = { ...texts, guidance: expand(tensor([guidanceScale]), [prompts.length]) };
    const latents = await draw({
      network: (x, times, seen: FluxContext) => this.velocity(x, mul(times, 1 / numTrainTimesteps), seen),
      denoising: this.#sampler(steps, skip, { imageTokens: (height * width) / patch ** 2, even: true }),
      context,
      seeds,
      shape: [this.vae.config.latentChannels, height, width],
      ...(start && { start }),
      ...(from && { from }),
      device,
    });
    for (const spent of Object.values(context)) spent.dispose();
    return latents;
  }

  /** Pictures of the prompts: [N, 3, H, W] in [0, 1], evaluated. @throws as `drawLatents` */
  async draw(request: FluxRequest): Promise<Tensor> {
    const device = request.device ?? getDevice();
    using latents = await this.drawLatents({ ...request, device });
    return await decodeLatents(this.vae, latents, device);
  }
}
