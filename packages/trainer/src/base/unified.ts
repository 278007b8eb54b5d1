/**
 * The unified model of the picture world: an OmniGen transformer (arXiv 2409.11340) over the pixels themselves, small enough
 * to be trained on a laptop. Instructions are words, and a picture where `<img><|image_1|></img>` stands.
 */
import {
  batchInstructions,
  type Denoiser,
  draw,
  flowMatchEuler,
  guided,
  guidedByPictures,
  type Instruction,
  type JsonConfig,
  OmniGenTransformer2DModel,
  repeated,
} from '@deftjs/models';
import { evaluate, type Tensor, tensor, treeLeaves } from '@deftjs/tensor';
import { denoisingErrors, type Objective, timeReversedFlow } from '../diffusion/objective.ts';
import { UserError } from '../userError.ts';
import {
  instructionTokenOf,
  instructionWords,
  maxInstructionWords,
  pictureTag,
  tokenizeInstruction,
  tokenOf,
} from '../world/index.ts';
import { type PartNames, type PlanesRequest, type StoredBatch, TextToImage } from './textToImage.ts';

/** The configurations of the parts, as diffusers writes them. */
export interface UnifiedConfig {
  readonly transformer: JsonConfig;
  readonly scheduler: JsonConfig;
}

/** What the transformer sees beside the noisy picture: tokens [B, L], a mask [B, N, N], the instructions' pictures. */
type Seen = {
  readonly ids: Tensor;
  readonly places: Tensor;
  readonly mask: Tensor;
  readonly positions: Tensor;
  readonly inputs?: Tensor;
};

/**
 * The rotary positions of all tokens, i32 [B, N]. They count only by their differences, so that rows of less padding need none
 * of their own; a patch of a given picture has that of the drawn patch in its place, as OminiControl found best where one
 * follows the other (arXiv 2411.15098, section 3.2): what looks near by sees both.
 */
function positionsOf(instructions: readonly Instruction[], length: number, patches: number): Tensor {
  const total = length + 1 + patches;
  const positions = new Int32Array(instructions.length * total).map((_, i) => i % total);
  for (const [row, { ids, images }] of instructions.entries()) {
    for (const { start, tokens } of images) {
      const first = row * total + (length - ids.length) + start;
      for (let i = 0; i < tokens; i += 1) positions[first + i] = length + 1 + i;
    }
  }
  return tensor(positions, [instructions.length, total], 'i32');
}

export class UnifiedModel extends TextToImage {
  readonly transformer: OmniGenTransformer2DModel;
  readonly objective: Objective;
  readonly vae = null;
  readonly #config: UnifiedConfig;

  constructor(config: UnifiedConfig) {
    super();
    this.transformer = new OmniGenTransformer2DModel(config.transformer);
    this.objective = timeReversedFlow(Number(config.scheduler.num_train_timesteps));
    this.#config = config;
  }

  get config(): UnifiedConfig {
    return this.#config;
  }

  get partNames(): PartNames {
    return { denoiser: 'transformer', textEncoders: [] };
  }

  get ownSize(): number {
    return this.transformer.config.positions * this.multiple;
  }

  get multiple(): number {
    return this.transformer.config.patchSize;
  }

  /** Its patches have places in squares. */
  override get takesRectangles(): boolean {
    return false;
  }

  /** Patches of a picture. */
  get #patches(): number {
    return (this.pictureSize / this.multiple) ** 2;
  }

  protected wordsProblem(caption: string, hasInput: boolean): string | null {
    const named = caption.match(/<\|image_\d+\|>/g) ?? [];
    if (hasInput && named.join() !== '<|image_1|>')
      return `expected ${pictureTag} once, for the picture given with it`;
    if (!hasInput && named.length > 0) return 'it names a picture, and none is given with it';
    const words = instructionWords(caption);
    if (words.length > maxInstructionWords) {
      return `${words.length} words, more than the base reads (${maxInstructionWords})`;
    }
    const unknown = words.find((word) => instructionTokenOf(word) === tokenOf('<unk>'));
    return unknown === undefined ? null : `the base does not know the word "${unknown}"`;
  }

  /**
   * Instructions as tokens, all of one length, so that one compiled program serves every batch.
   * @param inputs the picture of each [B, 3, H, W] in [-1, 1], named `<|image_1|>` in it; default: none
   */
  tokenize(instructions: readonly string[], inputs?: Tensor): Seen {
    const patches = inputs ? [this.#patches] : [];
    const read = instructions.map((text) => tokenizeInstruction(text, patches));
    const length = maxInstructionWords + 2 + (inputs ? this.#patches : 0); // <start> and <end>
    const { ids, places, mask } = batchInstructions(read, this.#patches, length);
    return {
      ids,
      places,
      mask,
      positions: positionsOf(read, length, this.#patches),
      ...(inputs && { inputs }),
    };
  }

  override get readsPictures(): boolean {
    return true;
  }

  /** Words are read by the transformer itself. */
  encodeText(seen: Seen): Seen {
    return seen;
  }

  readonly #velocity: Denoiser<Seen> = (sample, times, { inputs, ...seen }) => {
    const images = inputs ? [inputs] : [];
    return this.transformer.forward({ sample, times, ...seen, images });
  };

  errors({ stored: pictures, noise, levels, context }: StoredBatch<Seen>): Tensor {
    return denoisingErrors(this.#velocity, { pictures, noise, levels, context });
  }

  async draw(request: PlanesRequest): Promise<Tensor> {
    const { prompts, seeds, steps, guidanceScale, imageGuidanceScale = 1.5, inputs, size, device } = request;
    const denoising = flowMatchEuler(this.#config.scheduler)(steps, 0, { even: true });
    const common = { denoising, seeds, shape: [3, size, size], device };
    const without = repeated(this.tokenize(['']), prompts.length);
    const within = this.tokenize(prompts, inputs);
    if (!inputs) {
      const context = { with: within, without };
      await evaluate(treeLeaves(context), device);
      const pictures = await draw({ network: guided(this.#velocity, guidanceScale), context, ...common });
      for (const spent of treeLeaves(context)) spent.dispose();
      return pictures;
    }
    const alone = this.tokenize(
      prompts.map(() => pictureTag),
      inputs,
    );
    const context = { c: within, u: without, i: alone };
    const networks = { c: this.#velocity, u: this.#velocity, i: this.#velocity };
    const network = guidedByPictures<Seen>(networks, guidanceScale, imageGuidanceScale);
    await evaluate(treeLeaves(context), device);
    const pictures = await draw({ network, context, ...common });
    const kept = new Set([inputs]);
    for (const spent of treeLeaves(context)) if (!kept.has(spent)) spent.dispose();
    return pictures;
  }

  async teachWord(word: string): Promise<void> {
    throw new UserError(
      `word: a unified base learns no new words; use words it knows, such as sks, not "${word}"`,
      2,
    );
  }
}
