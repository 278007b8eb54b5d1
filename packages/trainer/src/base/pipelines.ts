/** Folders of diffusers as models to train: latents of a VAE, free captions, the folder's own tokenizers and schedule. */
import {
  type AutoencoderKL,
  type CLIPTextModel,
  type CLIPTextModelWithProjection,
  type Flux,
  type FluxTransformer2DModel,
  noiseSchedule,
  type StableDiffusion,
  type StableDiffusionXL,
  type T5EncoderModel,
  type Tokenizer,
  type UNet2DConditionModel,
} from '@deftjs/models';
import {
  concat,
  evaluate,
  expand,
  full,
  type JsonConfig,
  mul,
  sub,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import type { PictureSize } from '../data/index.ts';
import { denoisingErrors, diffusion, flow, type Objective } from '../diffusion/objective.ts';
import { UserError } from '../userError.ts';
import {
  appendWord,
  type PartNames,
  type PlanesRequest,
  type StoredBatch,
  TextToImage,
} from './textToImage.ts';

/** A pipeline and what its folder says besides. */
export interface OpenedPipeline<P> {
  readonly pipeline: P;
  readonly folder: string;
  /** scheduler_config.json */
  readonly scheduler: JsonConfig;
  /** That captions must fit: CLIP's, or T5's where that reads them whole. */
  readonly tokenizer: Tokenizer;
}

type Drawing = Omit<PlanesRequest, 'size'> & { readonly size: { width: number; height: number } };

interface Pipeline {
  readonly vae: AutoencoderKL;
  draw(request: Drawing): Promise<Tensor>;
}

/** What all of them share. */
export abstract class PipelineModel extends TextToImage {
  readonly vae: AutoencoderKL;
  /** The folder that it was read from. */
  readonly folder: string;
  protected readonly tokenizer: Tokenizer;
  readonly #pipeline: Pipeline;

  constructor({ pipeline, folder, tokenizer }: OpenedPipeline<Pipeline>) {
    super();
    this.vae = pipeline.vae;
    this.folder = folder;
    this.tokenizer = tokenizer;
    this.#pipeline = pipeline;
  }

  protected wordsProblem(caption: string): string | null {
    const { room } = this.tokenizer;
    const count = this.tokenizer.encodePlain(caption).length;
    return count > room ? `${count} tokens, more than the base reads (${room})` : null;
  }

  /** Token ids of captions: i32 [captions, tokens]. */
  protected idsOf({ encode, length }: Tokenizer, captions: readonly string[]): Tensor {
    return tensor(captions.flatMap(encode), [captions.length, length], 'i32');
  }

  override storedShapeOf({ width, height }: PictureSize): readonly [number, number, number] {
    return [this.vae.config.latentChannels, height / this.vae.factor, width / this.vae.factor];
  }

  async draw({ size, ...request }: PlanesRequest): Promise<Tensor> {
    using drawn = await this.#pipeline.draw({ ...request, size: { width: size, height: size } });
    const pictures = sub(mul(drawn, 2), 1);
    await evaluate([pictures], request.device);
    return pictures;
  }

  async teachWord(word: string, _initial: string, _vectors: number): Promise<void> {
    throw new UserError(`word: this kind of base learns no new words; use words it knows, not "${word}"`, 2);
  }
}

/** Stable Diffusion: the objective is what its schedule predicts, eps or v. */
export class StableDiffusionModel extends PipelineModel {
  readonly unet: UNet2DConditionModel;
  readonly text_encoder: CLIPTextModel;
  readonly objective: Objective;
  readonly ownSize: number;

  constructor(opened: OpenedPipeline<StableDiffusion>, sampleSize: number) {
    super(opened);
    this.unet = opened.pipeline.unet;
    this.text_encoder = opened.pipeline.text_encoder;
    this.objective = diffusion(noiseSchedule(opened.scheduler));
    this.ownSize = sampleSize * this.vae.factor;
  }

  get partNames(): PartNames {
    return { denoiser: 'unet', textEncoders: ['text_encoder'] };
  }

  get multiple(): number {
    return this.vae.factor * 2 ** (this.unet.config.levels.length - 1);
  }

  tokenize(captions: readonly string[]): Tensor {
    return this.idsOf(this.tokenizer, captions);
  }

  encodeText(tokens: Tensor): Tensor {
    return this.text_encoder.forward(tokens).lastHiddenState;
  }

  errors({ stored: pictures, ...rest }: StoredBatch<Tensor>): Tensor {
    return denoisingErrors((x, times, context) => this.unet.forward(x, times, context), {
      pictures,
      ...rest,
    });
  }

  override async teachWord(word: string, initial: string, vectors: number): Promise<void> {
    if (/\s/.test(word)) throw new UserError(`word: expected one word; got "${word}"`, 2);
    const [id, ...more] = this.tokenizer.encodePlain(initial);
    if (id === undefined || more.length > 0) {
      throw new UserError(`initial_word: expected a word of one token; got "${initial}"`, 2);
    }
    this.tokenizer.teach(word, await appendWord(this.text_encoder, id, vectors));
  }
}

/** What two text encoders read. */
type TwoTexts = { readonly first: Tensor; readonly second: Tensor };

/** Stable Diffusion XL. */
export class StableDiffusionXLModel extends PipelineModel {
  readonly unet: UNet2DConditionModel;
  readonly text_encoder: CLIPTextModel;
  readonly text_encoder_2: CLIPTextModelWithProjection;
  readonly objective: Objective;
  readonly ownSize: number;
  readonly #tokenizer2: Tokenizer;

  constructor(opened: OpenedPipeline<StableDiffusionXL>, tokenizer2: Tokenizer, sampleSize: number) {
    super(opened);
    this.unet = opened.pipeline.unet;
    this.text_encoder = opened.pipeline.text_encoder;
    this.text_encoder_2 = opened.pipeline.text_encoder_2;
    this.objective = diffusion(noiseSchedule(opened.scheduler));
    this.ownSize = sampleSize * this.vae.factor;
    this.#tokenizer2 = tokenizer2;
  }

  get partNames(): PartNames {
    return { denoiser: 'unet', textEncoders: ['text_encoder', 'text_encoder_2'] };
  }

  get multiple(): number {
    return this.vae.factor * 2 ** (this.unet.config.levels.length - 1);
  }

  tokenize(captions: readonly string[]): TwoTexts {
    return { first: this.idsOf(this.tokenizer, captions), second: this.idsOf(this.#tokenizer2, captions) };
  }

  encodeText({ first, second }: TwoTexts): { context: Tensor; textEmbeds: Tensor } {
    const states = this.text_encoder_2.forward(second);
    const hidden = this.text_encoder.forward(first).hiddenStates.at(-2)!;
    return { context: concat([hidden, states.hiddenStates.at(-2)!], 2), textEmbeds: states.textEmbeds };
  }

  /** The network is told that pictures are whole and of the size that they have. */
  errors({ stored: pictures, ...rest }: StoredBatch<{ context: Tensor; textEmbeds: Tensor }>): Tensor {
    const [count, , height, width] = pictures.shape as [number, number, number, number];
    const pixels = [height * this.vae.factor, width * this.vae.factor];
    const timeIds = expand(tensor([...pixels, 0, 0, ...pixels], [1, 6]), [count, 6]);
    return denoisingErrors(
      (x, times, { context, textEmbeds }) => this.unet.forward(x, times, context, { textEmbeds, timeIds }),
      { pictures, ...rest },
    );
  }
}

/** FLUX.1: a flow. The guidance that a distilled network is told is 1, none, while it is trained. */
export class FluxModel extends PipelineModel {
  readonly transformer: FluxTransformer2DModel;
  readonly text_encoder: CLIPTextModel;
  readonly text_encoder_2: T5EncoderModel;
  readonly objective: Objective = flow;
  readonly ownSize: number;
  readonly #velocity: Flux['velocity'];
  readonly #clipTokenizer: Tokenizer;

  constructor(opened: OpenedPipeline<Flux>, clipTokenizer: Tokenizer) {
    super(opened);
    const { pipeline } = opened;
    this.transformer = pipeline.transformer;
    this.text_encoder = pipeline.text_encoder;
    this.text_encoder_2 = pipeline.text_encoder_2;
    this.ownSize = 128 * this.vae.factor;
    this.#velocity = pipeline.velocity.bind(pipeline);
    this.#clipTokenizer = clipTokenizer;
  }

  /** T5 stays as it is: it is larger than all that is learnt by it. */
  get partNames(): PartNames {
    return { denoiser: 'transformer', textEncoders: ['text_encoder'] };
  }

  get multiple(): number {
    return 2 * this.vae.factor;
  }

  tokenize(captions: readonly string[]): TwoTexts {
    return { first: this.idsOf(this.#clipTokenizer, captions), second: this.idsOf(this.tokenizer, captions) };
  }

  encodeText({ first, second }: TwoTexts): { context: Tensor; pooled: Tensor } {
    return { context: this.text_encoder_2.forward(second), pooled: this.text_encoder.forward(first).pooled };
  }

  errors({ stored: pictures, ...rest }: StoredBatch<{ context: Tensor; pooled: Tensor }>): Tensor {
    const guidance = full([pictures.shape[0]!], 1);
    return denoisingErrors(
      (x, times, context) => this.#velocity(x, mul(times, 1 / 1000), { ...context, guidance }),
      { pictures, ...rest },
    );
  }
}
