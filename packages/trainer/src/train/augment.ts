/** Changes of a picture and its caption that keep what they say; each a pure function of the draws it is given. */
import type { Planes } from '../data/index.ts';
import type { Draws } from '../world/index.ts';
import type { Captioned } from './dataset.ts';

export interface Augmentation {
  /** How often a picture is mirrored, left for right. */
  readonly flip: number;
  /** Whether pictures that are no squares are cut at a place drawn anew each time, in place of their middle. */
  readonly randomCrop: boolean;
  /** Whether the parts of a caption that commas separate are put in another order. */
  readonly shuffleCaptions: boolean;
  /** How many parts stay in front when they are. */
  readonly keepParts: number;
}

/** Planes whose rows have `width` numbers mirrored, left for right. */
export function mirrored(planes: Float32Array, width: number): Float32Array {
  return planes.map((_, i) => planes[i - (i % width) + (width - 1 - (i % width))]!);
}

/** A square of a picture whose shorter side is `size`, every place as likely. */
export function croppedAt({ pixels, width, height }: Planes, size: number, draw: Draws): Float32Array {
  const place = Math.floor(draw.uniform() * (Math.max(width, height) - size + 1));
  const [left, top] = width > height ? [place, 0] : [0, place];
  const cut = new Float32Array(3 * size * size);
  for (let row = 0; row < 3 * size; row += 1) {
    const [plane, y] = [Math.floor(row / size), row % size];
    const from = (plane * height + top + y) * width + left;
    cut.set(pixels.subarray(from, from + size), row * size);
  }
  return cut;
}

/** The caption with its parts after the first `keep` in an order of the draws (Fisher and Yates). */
export function shuffledCaption(caption: string, keep: number, draw: Draws): string {
  const parts = caption.split(',').map((part) => part.trim());
  for (let i = parts.length - 1; i > keep; i -= 1) {
    const j = keep + Math.floor(draw.uniform() * (i - keep + 1));
    [parts[i], parts[j]] = [parts[j]!, parts[i]!];
  }
  return parts.join(', ');
}

/** A picture and its caption, changed. @param size numbers in a row of its planes, which are square where it has a whole */
export function augmented(
  { pixels: middle, caption, whole, input, mirrored: other }: Captioned,
  size: number,
  { flip, randomCrop, shuffleCaptions, keepParts }: Augmentation,
  draw: Draws,
): Captioned {
  const flips = draw.chance(flip);
  const pixels = randomCrop && whole ? croppedAt(whole, size, draw) : middle;
  return {
    pixels: flips ? (other ?? mirrored(pixels, size)) : pixels,
    ...(input && { input: flips ? mirrored(input, size) : input }),
    caption: shuffleCaptions ? shuffledCaption(caption, keepParts, draw) : caption,
  };
}
