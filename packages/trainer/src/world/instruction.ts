/**
 * Instructions of words and pictures, for models that take both: captions in which `<img><|image_1|></img>` stands for a
 * picture. Each task has words of its own:
 *
 *   text       a big red star on a blue background
 *   canny      canny <img><|image_1|></img> a big red star on a blue background          (edges to picture)
 *   depth      depth <img><|image_1|></img> a big red star on a blue background          (depth map to picture)
 *   copy       <img><|image_1|></img> a big red star on a blue background                (the very picture again)
 *   reference  the thing in <img><|image_1|></img> on the left of a green background     (the same thing elsewhere)
 */
import { type ReadInstruction, readInstruction } from '@deftjs/models';
import { maxTokens, tokenOf, vocabulary } from './vocabulary.ts';

/** Tasks whose instructions have a picture. */
export const pictureTasks = ['copy', 'canny', 'depth', 'reference'] as const;
export type PictureTask = (typeof pictureTasks)[number];

/** A picture among the words. */
export const pictureTag = '<img><|image_1|></img>';

const marks = ['<img>', '</img>', 'canny', 'depth'] as const;

/** Every word of an instruction, in the order of its token id: append only. */
export const instructionVocabulary: readonly string[] = [...vocabulary, ...marks];

/** Words of an instruction beside its pictures: a caption's, and those of the task. */
export const maxInstructionWords = maxTokens + 4;

const idOfMark: ReadonlyMap<string, number> = new Map(
  marks.map((mark, i) => [mark, vocabulary.length + i] as const),
);

/** The instruction of a task in words; no caption leaves the picture alone to say what to draw. */
export function instructionOf(task: PictureTask, caption: string): string {
  if (caption === '') return pictureTag;
  if (task === 'copy') return `${pictureTag} ${caption}`;
  return task === 'reference' ? `the thing in ${pictureTag} ${caption}` : `${task} ${pictureTag} ${caption}`;
}

/** What is left of an instruction without words: its pictures. '' for a caption that names none. */
export function picturesOnly(instruction: string): string {
  return instruction.match(/<img><\|image_\d+\|><\/img>/g)?.join(' ') ?? '';
}

/** The words and marks of an instruction, without its pictures. */
export function instructionWords(instruction: string): string[] {
  const parts = instruction.toLowerCase().match(/<\|image_\d+\|>|<\/?[a-z]+>|[a-z]+/g) ?? [];
  return parts.filter((part) => !part.startsWith('<|'));
}

/** The token id of a word or mark; that of <unk> for any other. */
export function instructionTokenOf(word: string): number {
  return idOfMark.get(word) ?? tokenOf(word);
}

/**
 * An instruction as tokens: <start>, words and pictures, <end>.
 * @param tokens how many tokens each of its pictures takes
 * @throws RangeError when its pictures are not numbered 1 to their number
 */
export function tokenizeInstruction(instruction: string, tokens: readonly number[]): ReadInstruction {
  return readInstruction(instruction, tokens, {
    around: ['<start>', '<end>'],
    encode: (part) => instructionWords(part).map(instructionTokenOf),
  });
}
