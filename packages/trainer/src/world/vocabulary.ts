/**
 * The closed vocabulary of the world's captions, and captions as token ids.
 *
 * A caption is lower-case words separated by spaces. Its ids are <start>, the words, <end>, then <pad> to
 * `maxTokens`. The order of the list is the order of the embedding rows of the shipped text encoder: append only.
 */

import { UserError } from '../userError.ts';
import { colours } from './palette.ts';
import { type Shape, shapes } from './shapes.ts';

/** Several of a shape. */
export const pluralOf: Readonly<Record<Shape, string>> = {
  circle: 'circles',
  square: 'squares',
  triangle: 'triangles',
  star: 'stars',
  heart: 'hearts',
  ring: 'rings',
  cross: 'crosses',
  diamond: 'diamonds',
  moon: 'moons',
  arrow: 'arrows',
};

/** Words that pretraining never uses: names for a novel subject. */
export const subjectWords = ['sks', 'zwx', 'ohv', 'qip'] as const;

// biome-ignore format: one line per kind of word
/** Every word, in the order of its token id. */
export const vocabulary: readonly string[] = [
  '<pad>', '<start>', '<end>', '<unk>',
  'a', 'an', 'one', 'two', 'three', 'the', 'of', 'on', 'at', 'in', 'with', 'and', 'it', 'wearing',
  'left', 'right', 'top', 'bottom', 'middle', 'background',
  'small', 'big', 'plain', 'striped', 'dotted', 'checkered',
  ...colours,
  ...shapes, ...shapes.map((shape) => pluralOf[shape]),
  'thing', 'things', 'toy', 'toys', 'eyes', 'hat',
  ...subjectWords,
];

/** Length of every row of token ids. */
export const maxTokens = 20;

/** The token id of each word, as a model's vocab.json has them. */
export function idsOf(words: readonly string[]): Record<string, number> {
  return Object.fromEntries(words.map((word, id) => [word, id]));
}

/**
 * Checks that the words of a model's vocab.json have the ids that they had when it was trained: others may be appended
 * later, but these keep theirs.
 * @throws {UserError} naming the folder and a word that has another id among `words`
 */
export function checkWords(
  folder: string,
  saved: Readonly<Record<string, unknown>>,
  words: readonly string[],
): void {
  const moved = Object.entries(saved).find(([word, id]) => words[Number(id)] !== word);
  if (moved) {
    throw new UserError(`${folder}: its word "${moved[0]}" has another id in this version's vocabulary`, 2);
  }
}

const idOf: ReadonlyMap<string, number> = new Map(vocabulary.map((word, id) => [word, id]));

/** The token id of a word; that of <unk> where the vocabulary lacks it. */
export function tokenOf(word: string): number {
  return idOf.get(word) ?? 3;
}

/** The words of a caption: case and punctuation are ignored. */
export function wordsOf(caption: string): string[] {
  return caption.toLowerCase().match(/[a-z]+/g) ?? [];
}

/** Words that a model was taught, each with the ids that stand for it. */
export type TaughtWords = ReadonlyMap<string, readonly number[]>;

/** The ids of a caption's words alone. */
export function wordIds(caption: string, taught: TaughtWords = new Map()): number[] {
  return wordsOf(caption).flatMap((word) => taught.get(word) ?? [tokenOf(word)]);
}

/**
 * Token ids of a caption: <start>, words, <end>, padded to `maxTokens`. A caption that is too long
 * throws. The empty caption is the unconditional prompt.
 */
export function tokenize(caption: string, taught?: TaughtWords): Int32Array {
  const words = wordIds(caption, taught);
  if (words.length > maxTokens - 2) {
    throw new RangeError(
      `tokenize: a caption has at most ${maxTokens - 2} words; got ${words.length}: "${caption}"`,
    );
  }
  const ids = new Int32Array(maxTokens);
  ids.set([tokenOf('<start>'), ...words, tokenOf('<end>')]);
  return ids;
}
