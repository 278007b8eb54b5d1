/**
 * OmniGen (arXiv 2409.11340): instructions of text and pictures to pictures.
 *
 *   tokens and latents of pictures -> one sequence -> steps of the flow on latents [N, Z, h, w] -> decoder
 *
 * Guided on two scales (InstructPix2Pix, arXiv 2211.09800, eq. (3)): with u, i and c the network's output for neither,
 * for the instruction's pictures alone, and for the instruction,
 *
 *     o = u + g_i (i - u) + g (c - i)                                                                       (1)
 */
import { Module } from '@deftjs/autograd/nn';
import {
  add,
  type Device,
  getDevice,
  type JsonConfig,
  mul,
  sub,
  type Tensor,
  type Tree,
  treeLeaves,
  unsqueeze,
} from '@deftjs/tensor';
import { OmniGenTransformer2DModel } from '../omniGen.ts';
import { batchInstructions, type ReadInstruction, readInstruction } from '../omniGenSequence.ts';
import { type Denoiser, draw } from '../sampling.ts';
import { type FlowSampler, flowMatchEuler } from '../schedulers/index.ts';
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
export interface OmniGenParts {
  readonly transformer: JsonConfig;
  readonly vae: JsonConfig;
  readonly scheduler: JsonConfig;
  /** Text to token ids, as many as it takes; the ids that begin a text only where `begins` says so. */
  readonly encode: (text: string, begins: boolean) => number[];
}

export interface InstructionRequest extends DrawOptions {
  /** One picture is drawn for each. The pictures of an instruction stand in it as `<img><|image_1|></img>`, from 1 on. */
  readonly prompts: readonly string[];
  /** The pictures of each prompt [3, H, W] in [0, 1], sides in multiples of a patch. Default: none. */
  readonly images?: readonly (readonly Tensor[])[];
  /** What the pictures are guided away from. Default: the empty instruction. */
  readonly negativePrompt?: string;
  /** g of (1). */
  readonly guidanceScale: number;
  /** g_i of (1): how close to keep to the pictures of the instruction. */
  readonly imageGuidanceScale: number;
}

/** Latents across the pictures that OmniGen was trained on. */
const sampleSize = 128;

/** What the network sees in one of the three passes of (1). */
type Condition = {
  readonly ids: Tensor;
  readonly places: Tensor;
  readonly mask: Tensor;
  readonly images: readonly Tensor[];
};

/** What networks see of the instruction, of its pictures alone, and of neither; no i where it has no pictures. */
export type InstructionContrast<Context extends Tree> = {
  readonly c: Context;
  readonly u: Context;
  readonly i?: Context;
};

/** Networks for the three contexts guided on two scales: (1), with i = u where there are no pictures. */
export function guidedByPictures<Context extends Tree>(
  network: Readonly<Record<'c' | 'u' | 'i', Denoiser<Context>>>,
  guidanceScale: number,
  imageGuidanceScale: number,
): Denoiser<InstructionContrast<Context>> {
  return (x, times, seen) => {
    const c = network.c(x, times, seen.c);
    const u = network.u(x, times, seen.u);
    if (!seen.i) return add(u, mul(sub(c, u), guidanceScale)); // (1) with i = u
    const i = network.i(x, times, seen.i);
    return add(add(u, mul(sub(i, u), imageGuidanceScale)), mul(sub(c, i), guidanceScale)); // (1)
  };
}

export class OmniGen extends Module {
  readonly transformer: OmniGenTransformer2DModel;
  readonly vae: AutoencoderKL;
  readonly #encode: OmniGenParts['encode'];
  readonly #sampler: FlowSampler;

  /** @throws ConfigError */
  constructor({ transformer, vae, scheduler, encode }: OmniGenParts) {
    super();
    this.transformer = new OmniGenTransformer2DModel(transformer);
    this.vae = new AutoencoderKL(vae);
    this.#encode = encode;
    this.#sampler = flowMatchEuler(scheduler);
  }

  /**
   * An instruction in the words that the model was trained with.
   * @param tokens how many tokens each of its pictures takes
   * @throws RangeError when its pictures are not numbered 1 to their number
   */
  instruction(prompt: string, tokens: readonly number[]): ReadInstruction {
    return readInstruction(prompt, tokens, {
      around: [
        '<|user|>\nGenerate an image according to the following instructions\n',
        '<|end|>\n<|assistant|>\n<|diffusion|>',
      ],
      encode: this.#encode,
    });
  }

  /** One pass of the network for prompts with the latents of their pictures. */
  private pass(prompts: readonly string[], pictures: readonly (readonly Tensor[])[], outputs: number) {
    const { patchSize } = this.transformer.config;
    const instructions = prompts.map((prompt, row) =>
      this.instruction(
        prompt,
        pictures[row]!.map(({ shape }) => (shape[2]! * shape[3]!) / patchSize ** 2),
      ),
    );
    const { ids, places, mask, positions } = batchInstructions(instructions, outputs);
    const images = instructions.flatMap(({ order }, row) => order.map((image) => pictures[row]![image]!));
    const network: Denoiser<Condition> = (sample, times, condition) =>
      this.transformer.forward({ sample, times, ...condition, positions });
    return { condition: { ids, places, mask, images }, network };
  }

  /**
   * Latents of pictures of the instructions: [N, Z, h, w], evaluated.
   * @throws ShapeError when a size does not consist of whole patches; RangeError when seeds or lists of pictures are not
   *   as many as prompts, a prompt does not name its pictures, or a strength leaves no step
   */
  async drawLatents(request: InstructionRequest): Promise<Tensor> {
    const { prompts, negativePrompt = '', seeds, steps, start, guidanceScale, imageGuidanceScale } = request;
    const images = request.images ?? prompts.map(() => []);
    const { patchSize, channels } = this.transformer.config;
    expectSeeds('omniGen', seeds, prompts.length);
    if (images.length !== prompts.length) {
      throw new RangeError(`omniGen: expected ${prompts.length} lists of images; got ${images.length}`);
    }
    const skip = skippedSteps('omniGen', steps, request.from);
    const [height, width] = latentSize('omniGen', this.vae, request, sampleSize, patchSize);
    const device = request.device ?? getDevice();
    using from = request.from && (await encodePictures(this.vae, request.from.pictures, device));
    const pictures: Tensor[][] = [];
    for (const list of images) {
      const latents = [];
      for (const image of list) latents.push(await encodePictures(this.vae, unsqueeze(image, 0), device));
      pictures.push(latents);
    }
    const outputs = (height * width) / patchSize ** 2;
    const none = pictures.map(() => []);
    const full = this.pass(prompts, pictures, outputs);
    const empty = this.pass(
      prompts.map(() => negativePrompt),
      none,
      outputs,
    );
    const pictured = pictures.some((list) => list.length > 0);
    const tags = (list: readonly Tensor[]) => list.map((_, i) => `<img><|image_${i + 1}|></img>`).join(' ');
    const imagesOnly = pictured
      ? this.pass(
          pictures.map((list) => (list.length > 0 ? tags(list) : negativePrompt)),
          pictures,
          outputs,
        )
      : empty;
    const context = { c: full.condition, u: empty.condition, ...(pictured && { i: imagesOnly.condition }) };
    const latents = await draw({
      network: guidedByPictures(
        { c: full.network, u: empty.network, i: imagesOnly.network },
        guidanceScale,
        imageGuidanceScale,
      ),
      denoising: this.#sampler(steps, skip, { imageTokens: outputs, even: true }),
      context,
      seeds,
      shape: [channels, height, width],
      ...(start && { start }),
      ...(from && { from }),
      device,
    });
    for (const spent of new Set([...treeLeaves(context), ...pictures.flat()])) spent.dispose();
    return latents;
  }

  /** Pictures of the instructions: [N, 3, H, W] in [0, 1], evaluated. @throws as `drawLatents` */
  async draw(request: InstructionRequest): Promise<Tensor> {
    const device = request.device ?? getDevice();
    using latents = await this.drawLatents({ ...request, device });
    return await this.decode(latents, device);
  }

  /** Pictures of latents: [N, 3, H, W] in [0, 1], evaluated. */
  decode(latents: Tensor, device: Device): Promise<Tensor> {
    return decodeLatents(this.vae, latents, device);
  }
}
