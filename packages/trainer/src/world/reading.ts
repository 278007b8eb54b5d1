/** Captions read back: which attributes a prompt names, so that any prompt of the vocabulary can be checked. */

import { type Colour, colours } from './palette.ts';
import { type Count, type Position, positions, type Size, sizes, type Texture, textures } from './scene.ts';
import { type Shape, shapes } from './shapes.ts';
import { pluralOf, wordsOf } from './vocabulary.ts';

/** The attributes that a prompt names; what it leaves open is absent. */
export interface Named {
  readonly background?: Colour;
  readonly colour?: Colour;
  readonly shape?: Shape;
  readonly size?: Size;
  readonly position?: Position;
  readonly count?: Count;
  readonly texture?: Texture;
  readonly hat?: Colour;
}

const countWords: Readonly<Record<string, Count>> = { a: 1, an: 1, one: 1, two: 2, three: 3 };

/**
 * The attributes named by a prompt in the phrasing of `caption`. Words before the noun describe the thing; a colour
 * before "background" or "hat" is that one's; the emblem of "with a red star on it" is not read.
 */
export function readCaption(prompt: string): Named {
  const words = wordsOf(prompt);
  const named: { -readonly [K in keyof Named]: Named[K] } = {};
  const first = countWords[words[0] ?? ''];
  if (first !== undefined) named.count = first;
  let pending: Colour | undefined;
  let nounSeen = false;
  for (const word of words) {
    const shape = shapes.find((name) => name === word || pluralOf[name] === word);
    if (colours.some((name) => name === word)) pending = word as Colour;
    else if (sizes.some((name) => name === word)) named.size = word as Size;
    else if (textures.some((name) => name === word)) named.texture = word as Texture;
    else if (positions.some((name) => name === word)) named.position = word as Position;
    else if (word === 'background' && pending !== undefined) named.background = pending;
    else if (word === 'hat' && pending !== undefined) named.hat = pending;
    else if (!nounSeen && (shape !== undefined || /^(thing|toy)s?$/.test(word))) {
      if (shape !== undefined) named.shape = shape;
      if (pending !== undefined) named.colour = pending;
      nounSeen = true;
    } else continue;
    if (!colours.some((name) => name === word)) pending = undefined;
  }
  return named;
}
