/**
 * Instructions as sequences for OmniGen (arXiv 2409.11340, figure 2 and section 2.1).
 *
 * A sequence is [padding, instruction, time, drawn picture]. Who attends to whom: each token of the instruction and the
 * time token to those before and itself; the tokens of one picture of the instruction to each other as well; the tokens
 * of the drawn picture to all. Nobody but padding attends to padding.
 */
import { notEqual, type Tensor, tensor } from '@deftjs/tensor';

/** An instruction: token ids, and where in them pictures stand (the ids there count for nothing). */
export interface Instruction {
  readonly ids: readonly number[];
  readonly images: readonly { readonly start: number; readonly tokens: number }[];
}

/** How a model words and reads instructions. */
export interface InstructionReader {
  /** What stands before and after the prompt. */
  readonly around: readonly [before: string, after: string];
  /** Token ids of a part of the text; `begins` says whether it is the first. */
  readonly encode: (text: string, begins: boolean) => readonly number[];
}

/** An instruction, and which of its pictures stands at each place of one. */
export type ReadInstruction = Instruction & { readonly order: readonly number[] };

/**
 * The instruction of a prompt in which `<|image_1|>` and on stand for pictures.
 * @param tokens how many tokens each of the pictures takes
 * @throws RangeError when the pictures are not numbered 1 to their number
 */
export function readInstruction(
  prompt: string,
  tokens: readonly number[],
  { around, encode }: InstructionReader,
): ReadInstruction {
  const order = Array.from(prompt.matchAll(/<\|image_(\d+)\|>/g), ([, number]) => Number(number) - 1);
  const wanted = new Set(order);
  if (wanted.size !== tokens.length || !tokens.every((_, i) => wanted.has(i))) {
    throw new RangeError(
      `omniGen: expected ${tokens.length} pictures, <|image_1|> and on, in the prompt; got "${prompt}"`,
    );
  }
  const ids: number[] = [];
  const images: { start: number; tokens: number }[] = [];
  const text = around[0] + prompt + around[1];
  for (const [i, words] of text.split(/<\|image_\d+\|>/).entries()) {
    ids.push(...encode(words, i === 0));
    const image = order[i];
    if (image === undefined) continue;
    images.push({ start: ids.length, tokens: tokens[image]! });
    ids.push(...new Array<number>(tokens[image]!).fill(0));
  }
  return { ids, images, order };
}

/** What the transformer takes for a batch of instructions. */
export interface InstructionBatch {
  /** i32 [B, L], shorter instructions padded on the left. */
  readonly ids: Tensor;
  /** i32 [B, L]: the word, or the patch of the instructions' pictures in their order, that stands there. */
  readonly places: Tensor;
  /** bool [B, N, N], N = L + 1 + outputs. */
  readonly mask: Tensor;
  /** Of all N tokens: 0 for padding, from 0 on for the rest. */
  readonly positions: readonly (readonly number[])[];
}

/**
 * The batch of the instructions before a picture of `outputs` tokens.
 * @param words L; default: the length of the longest
 */
export function batchInstructions(
  instructions: readonly Instruction[],
  outputs: number,
  words = Math.max(...instructions.map(({ ids }) => ids.length)),
): InstructionBatch {
  const total = words + 1 + outputs;
  const ids = new Int32Array(instructions.length * words);
  const mask = new Int32Array(instructions.length * total * total);
  const places = Int32Array.from(ids, (_, i) => i);
  let patches = ids.length;
  const padding = instructions.map((instruction) => words - instruction.ids.length);
  for (const [row, { ids: own, images }] of instructions.entries()) {
    const before = padding[row]!;
    ids.set(own, row * words + before);
    const allow = (query: number, firstKey: number, end: number) => {
      const at = (row * total + query) * total;
      mask.fill(1, at + firstKey, at + end);
    };
    for (let query = 0; query < total; query += 1) {
      if (query < before) allow(query, 0, total);
      else allow(query, before, query <= words ? query + 1 : total);
    }
    for (const { start, tokens } of images) {
      const first = before + start;
      for (let query = first; query < first + tokens; query += 1) allow(query, first, first + tokens);
      for (let i = 0; i < tokens; i += 1) places[row * words + first + i] = patches + i;
      patches += tokens;
    }
  }
  return {
    ids: tensor(ids, [instructions.length, words], 'i32'),
    places: tensor(places, [instructions.length, words], 'i32'),
    mask: notEqual(tensor(mask, [instructions.length, total, total], 'i32'), 0),
    positions: padding.map((before) => Array.from({ length: total }, (_, i) => Math.max(0, i - before))),
  };
}
