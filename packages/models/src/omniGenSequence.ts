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

/** What the transformer takes for a batch of instructions. */
export interface InstructionBatch {
  /** i32 [B, L], shorter instructions padded on the left. */
  readonly ids: Tensor;
  /** bool [B, N, N], N = L + 1 + outputs. */
  readonly mask: Tensor;
  /** Of all N tokens: 0 for padding, from 0 on for the rest. */
  readonly positions: readonly (readonly number[])[];
  /** How many tokens of padding precede each instruction. */
  readonly padding: readonly number[];
}

/** The batch of the instructions before a picture of `outputs` tokens. */
export function batchInstructions(instructions: readonly Instruction[], outputs: number): InstructionBatch {
  const words = Math.max(...instructions.map(({ ids }) => ids.length));
  const total = words + 1 + outputs;
  const ids = new Int32Array(instructions.length * words);
  const mask = new Int32Array(instructions.length * total * total);
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
    }
  }
  return {
    ids: tensor(ids, [instructions.length, words], 'i32'),
    mask: notEqual(tensor(mask, [instructions.length, total, total], 'i32'), 0),
    positions: padding.map((before) => Array.from({ length: total }, (_, i) => Math.max(0, i - before))),
    padding,
  };
}
