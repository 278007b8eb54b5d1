/**
 * A text-to-image model as training and drawing see it, whatever its architecture: text encoders, a network that
 * denoises, and a way between pictures and the numbers that the network works on. Each architecture is a subclass
 * (world.ts, pipelines.ts), whose parameter paths are those of its diffusers folder: "unet.<key>", "text_encoder.<key>".
 */
import { Module, namedModules } from '@deftjs/autograd/nn';
import { addWords } from '@deftjs/deft';
import type { AutoencoderKL } from '@deftjs/models';
import { type Device, read, type Tensor, type Tree, tensor } from '@deftjs/tensor';
import type { PictureSize } from '../data/index.ts';
import type { Objective } from '../diffusion/objective.ts';
import { UserError } from '../userError.ts';

/** One seed for each prompt, and how to draw. */
export interface PlanesRequest {
  readonly prompts: readonly string[];
  readonly seeds: readonly number[];
  readonly steps: number;
  readonly guidanceScale: number;
  /** How close to keep to the pictures of instructions (g_i of models/pipelines/omniGen.ts); default 1.5. */
  readonly imageGuidanceScale?: number;
  /** The picture that each prompt names [N, 3, H, W], in [-1, 1]; default: prompts name none. */
  readonly inputs?: Tensor;
  /** Pixels across. */
  readonly size: number;
  readonly device: Device;
}

/** A batch as training has it. */
export interface StoredBatch<Context extends Tree = Tree> {
  /** Pixels [B, 3, H, W] in [-1, 1], or latents where the model has a VAE. */
  readonly stored: Tensor;
  /** Of its shape. */
  readonly noise: Tensor;
  readonly levels: Tensor;
  /** What `encodeText` gave of the captions. */
  readonly context: Context;
}

/** The fields that hold the model's parts. */
export interface PartNames {
  readonly denoiser: 'unet' | 'transformer';
  /** Text encoders that can be trained, the first of them the one that learns new words. */
  readonly textEncoders: readonly string[];
}

export abstract class TextToImage extends Module {
  abstract readonly objective: Objective;
  /** Pixels across the pictures that it was trained on. */
  abstract readonly ownSize: number;
  /** Width and height of pictures are multiples of so many pixels. */
  abstract readonly multiple: number;

  abstract get partNames(): PartNames;
  /** What makes latents of pictures; null where training keeps pixels, and {@link errors} goes on from them. */
  abstract readonly vae: AutoencoderKL | null;
  /** Channels, height and width of what training keeps of a picture of a size: its pixels, or latents. */
  storedShapeOf({ width, height }: PictureSize): readonly [number, number, number] {
    return [3, height, width];
  }

  /** The same of the squares that it draws. */
  get storedShape(): readonly [number, number, number] {
    return this.storedShapeOf({ width: this.pictureSize, height: this.pictureSize });
  }

  /** Whether it can be trained on pictures that are no squares. */
  get takesRectangles(): boolean {
    return true;
  }

  #size: number | null = null;

  /** Pixels across the pictures that it is trained on and draws now. */
  get pictureSize(): number {
    return this.#size ?? this.ownSize;
  }

  /** Lets it be trained on, and draw, pictures of another size; null: its own. @throws {UserError} */
  resize(pixels: number | null): void {
    if (pixels !== null && pixels % this.multiple !== 0) {
      throw new UserError(
        `data.resolution: expected a multiple of ${this.multiple} pixels, as the base draws; got ${pixels}`,
        2,
      );
    }
    this.#size = pixels;
  }

  /** The network that adapters hang on. */
  get denoiser(): Module {
    return this.part(this.partNames.denoiser);
  }

  /** Text encoders that can be trained, by name. */
  get textEncoders(): readonly (readonly [name: string, module: Module])[] {
    return this.partNames.textEncoders.map((name) => [name, this.part(name)]);
  }

  /** Those and the ones that are never trained. */
  get allTextEncoders(): Module[] {
    return [...namedModules(this)]
      .filter(([name]) => /^text_encoder(_\d)?$/.test(name))
      .map(([, encoder]) => encoder);
  }

  protected part(name: string): Module {
    return namedModules(this).get(name)!;
  }

  /**
   * Why the model cannot take a caption; null when it can.
   * @param hasInput whether a picture is given with it
   */
  captionProblem(caption: string, hasInput = false): string | null {
    if (hasInput && !this.readsPictures) return 'a picture is given with it, and the base reads none';
    return this.wordsProblem(caption, hasInput);
  }

  /** Why the text encoder cannot take the words of a caption; null when it can. */
  protected abstract wordsProblem(caption: string, hasInput: boolean): string | null;

  /**
   * Token ids of captions: i32, rows of the batch first.
   * @param inputs the picture that each names [B, 3, H, W], where {@link readsPictures}
   */
  abstract tokenize(captions: readonly string[], inputs?: Tensor): Tree;

  /** Whether captions may name a picture that is given with them. */
  get readsPictures(): boolean {
    return false;
  }

  /** What the network sees of captions, rows of the batch first. */
  abstract encodeText(tokens: Tree): Tree;

  /** The training error of each stored picture, equation (1) of diffusion/objective.ts: [B]. */
  abstract errors(batch: StoredBatch): Tensor;

  /** Pictures of the prompts: [N, 3, H, W], about in [-1, 1], evaluated. */
  abstract draw(request: PlanesRequest): Promise<Tensor>;

  /**
   * Teaches the text encoder a word that stands for `vectors` vectors of its own, which begin as that of a word it knows.
   * The word may be known already: captions mean the new one from now on.
   * @throws {UserError} when the new word is no word, the initial one unknown, or the model cannot learn words
   */
  abstract teachWord(word: string, initial: string, vectors: number): Promise<void>;
}

/** Puts `vectors` copies of the vector of a token after those of the encoder's table; returns their ids. */
export async function appendWord(encoder: Module, token: number, vectors: number): Promise<number[]> {
  const { weight } = namedModules(encoder).get(tablePath) as unknown as { weight: { value: Tensor } };
  const [count, width] = weight.value.shape as [number, number];
  const row = (await read(weight.value)).slice(width * token, width * (token + 1));
  const rows = Float32Array.from({ length: vectors * width }, (_, i) => row[i % width]!);
  addWords(encoder, tablePath, tensor(rows, [vectors, width]));
  return Array.from({ length: vectors }, (_, i) => count + i);
}

const tablePath = 'embeddings.token_embedding';
