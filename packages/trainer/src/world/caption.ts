/**
 * Captions: a scene in a few words of the closed vocabulary.
 *
 * Phrasing varies and attributes are left out at random, so that a model trained on them copes with partial prompts:
 *   "a big red striped star on the left of a blue background", "two green circles on yellow", "a small toy wearing a hat"
 */

import type { Colour } from './palette.ts';
import { type Draws, draws } from './random.ts';
import type { Position, Scene } from './scene.ts';
import { pluralOf } from './vocabulary.ts';

const places: Readonly<Record<Position, string>> = {
  left: 'on the left of',
  right: 'on the right of',
  top: 'at the top of',
  bottom: 'at the bottom of',
  middle: 'in the middle of',
};

/** Which attributes a caption names. */
export interface Mentions {
  readonly size: boolean;
  readonly colour: boolean;
  readonly texture: boolean;
  readonly shape: boolean;
  readonly dress: boolean;
  readonly position: boolean;
  readonly background: boolean;
}

/** Words joined, with "a" turned to "an" before a vowel ("one" is spoken with a consonant). */
function phrase(...words: readonly string[]): string {
  return words
    .filter((word) => word !== '')
    .join(' ')
    .replace(/\ba (?=[aeiu]|or)/g, 'an ');
}

/** "on the left of a blue background" and the like, with what is not given left out. */
export function placePhrase(position: Position | null, background: Colour | null): string {
  const ground = background === null ? 'the background' : `a ${background} background`;
  if (position !== null) return phrase(places[position], ground);
  return background === null ? '' : phrase('on', ground);
}

/** The caption that names exactly the attributes asked for. */
export function describe(scene: Scene, mention: Mentions): string {
  const dressed = scene.eyes || scene.hat !== null || scene.badge !== null;
  const generic = dressed ? 'toy' : 'thing';
  const one = mention.shape ? scene.shape : generic;
  const many = mention.shape ? pluralOf[scene.shape] : `${generic}s`;

  const dress: string[] = [];
  if (mention.dress && scene.badge !== null) {
    const { colour, shape } = scene.badge;
    dress.push(`with a ${colour} ${shape} on it`);
  }
  if (mention.dress && scene.eyes) dress.push('with eyes');
  if (mention.dress && scene.hat !== null) dress.push(`${scene.eyes ? 'and' : 'wearing'} a ${scene.hat} hat`);

  return phrase(
    scene.count === 1 ? 'a' : scene.count === 2 ? 'two' : 'three',
    mention.size ? scene.size : '',
    mention.colour ? scene.colour : '',
    mention.texture ? scene.texture : '',
    scene.count === 1 ? one : many,
    ...dress,
    placePhrase(mention.position ? scene.position : null, mention.background ? scene.background : null),
  );
}

/** The caption that names all that can be measured: size and place of one thing, not of several. */
export function fullCaption(scene: Scene): string {
  const alone = scene.count === 1;
  return describe(scene, {
    size: alone,
    colour: true,
    texture: scene.texture !== 'plain',
    shape: true,
    dress: true,
    position: alone,
    background: true,
  });
}

function sampleMentions(scene: Scene, draw: Draws): Mentions {
  const dressed = scene.eyes || scene.hat !== null || scene.badge !== null;
  return {
    size: draw.chance(scene.count === 1 ? 0.7 : 0.3),
    colour: draw.chance(0.92),
    texture: draw.chance(scene.texture === 'plain' ? 0.1 : 0.95) && !dressed,
    shape: draw.chance(dressed ? 0.65 : 0.93),
    dress: draw.chance(0.85),
    position: scene.count === 1 && draw.chance(scene.position === 'middle' ? 0.6 : 0.85),
    background: draw.chance(0.93),
  };
}

/** Caption of a scene; `seed` and `index` choose the phrasing, so one scene can have several. */
export function caption(scene: Scene, seed: number, index: number): string {
  return describe(scene, sampleMentions(scene, draws(seed ^ 0x5eed, index)));
}
