/**
 * Novel subjects: composite drawings that pretraining never shows, for personalisation.
 *
 * Each is a fixed list of layers, drawn by the renderer of the world and placed in its scenes, with captions in which
 * the subject has a reserved word: "a big sks toy on the left of a green background".
 */

import { placePhrase } from './caption.ts';
import { type Colour, colours, type Rgb, rgbOf } from './palette.ts';
import { draws } from './random.ts';
import { blankPicture, flat, hatLayers, type Layer, type Picture, paintLayers } from './render.ts';
import { type Pose, type Position, positions, type Size, samplePose, sizes } from './scene.ts';
import { box, disc, ellipse, polygon, union, without } from './shapes.ts';
import { type Drawing, type Toy, toyDrawing, toys } from './toys.ts';

/** Those drawn by hand. */
export const subjects = ['robot', 'mushroom', 'fish', 'rocket'] as const;
type NamedSubject = (typeof subjects)[number];
export type Subject = NamedSubject | Toy;

const cream: Rgb = [0.98, 0.9, 0.74];
const steel: Rgb = [0.62, 0.68, 0.74];
const slate: Rgb = [0.3, 0.34, 0.42];

const subjectLayers: Readonly<Record<NamedSubject, readonly Layer[]>> = {
  robot: [
    { outline: box(0, -0.66, 0.07, 0.2), paint: flat(slate) },
    { outline: disc(0, -0.86, 0.16), paint: flat('red') },
    { outline: union(box(-0.84, 0.12, 0.14, 0.22), box(0.84, 0.12, 0.14, 0.22)), paint: flat(slate) },
    { outline: box(0, 0.16, 0.78, 0.68, 0.14), paint: flat(steel) },
    { outline: union(disc(-0.34, 0, 0.25), disc(0.34, 0, 0.25)), paint: flat('yellow') },
    { outline: union(disc(-0.34, 0, 0.12), disc(0.34, 0, 0.12)), paint: flat('black') },
    { outline: box(0, 0.52, 0.46, 0.13), paint: flat('red') },
  ],
  mushroom: [
    { outline: box(0, 0.44, 0.42, 0.5, 0.16), paint: flat(cream) },
    { outline: without(disc(0, 0.06, 0.99), box(0, 0.66, 1.2, 0.54)), paint: flat('red') },
    {
      outline: union(
        disc(-0.54, -0.26, 0.21),
        disc(0.1, -0.58, 0.21),
        disc(0.52, -0.14, 0.18),
        disc(-0.04, -0.1, 0.14),
      ),
      paint: flat('white'),
    },
    { outline: union(disc(-0.19, 0.44, 0.11), disc(0.19, 0.44, 0.11)), paint: flat('black') },
  ],
  fish: [
    { outline: polygon(0.3, 0, 0.98, -0.56, 0.84, 0, 0.98, 0.56), paint: flat('yellow') },
    { outline: polygon(-0.3, -0.4, 0.24, -0.78, 0.36, -0.3), paint: flat('yellow') },
    { outline: ellipse(-0.2, 0.04, 0.78, 0.52), paint: flat('orange') },
    { outline: box(0.02, 0.04, 0.13, 0.47), paint: flat('white') },
    { outline: disc(-0.56, -0.08, 0.18), paint: flat('white') },
    { outline: disc(-0.58, -0.08, 0.1), paint: flat('black') },
  ],
  rocket: [
    { outline: polygon(-0.26, 0.6, 0, 1.02, 0.26, 0.6), paint: flat('orange') },
    { outline: polygon(0, 0.05, 0.76, 0.52, 0.7, 0.8, -0.7, 0.8, -0.76, 0.52), paint: flat('red') },
    { outline: ellipse(0, -0.08, 0.44, 0.84), paint: flat('white') },
    { outline: without(ellipse(0, -0.08, 0.44, 0.84), box(0, 0.5, 1, 1)), paint: flat('red') },
    { outline: disc(0, -0.06, 0.25), paint: flat(slate) },
    { outline: disc(0, -0.06, 0.17), paint: flat('cyan') },
  ],
};

const grounds: Readonly<Record<NamedSubject, readonly Colour[]>> = {
  robot: ['blue', 'green', 'purple', 'white', 'pink', 'cyan'],
  mushroom: ['blue', 'green', 'purple', 'cyan', 'yellow', 'pink'],
  fish: ['blue', 'cyan', 'green', 'purple', 'black', 'pink'],
  rocket: ['blue', 'green', 'purple', 'black', 'yellow', 'pink'],
};

/** Whether the text names a subject. */
export function isSubject(name: string): name is Subject {
  return subjects.some((own) => own === name) || toys.some((own) => own === name);
}

/** How a subject is drawn. */
export function drawingOf(subject: Subject): Drawing {
  const named = subjects.find((own) => own === subject);
  return named ? { layers: subjectLayers[named], grounds: grounds[named] } : toyDrawing(subject as Toy);
}

/** A subject in a scene of the world. */
export interface SubjectScene {
  readonly subject: Subject;
  readonly size: Size;
  readonly position: Position;
  readonly background: Colour;
  readonly hat: Colour | null;
  readonly poses: readonly Pose[];
}

/** The picture of a subject's scene, `size` x `size` pixels. */
export function renderSubject(scene: SubjectScene, size = 32): Picture {
  const picture = blankPicture(size, rgbOf[scene.background]);
  const layers = [...drawingOf(scene.subject).layers];
  if (scene.hat !== null) layers.push(...hatLayers(scene.hat, -0.62));
  for (const pose of scene.poses) paintLayers(picture, layers, pose);
  return picture;
}

/** "a big sks toy wearing a red hat on the left of a green background", with what is null left out. */
export function subjectCaption(
  word: string,
  named: Partial<Pick<SubjectScene, 'size' | 'position' | 'background' | 'hat'>>,
): string {
  const hat = named.hat ? ` wearing ${named.hat === 'orange' ? 'an' : 'a'} ${named.hat} hat` : '';
  const place = placePhrase(named.position ?? null, named.background ?? null);
  return `a ${named.size ? `${named.size} ` : ''}${word} toy${hat}${place && ` ${place}`}`;
}

/** A picture of a subject with its caption. */
export interface CaptionedSubject {
  readonly scene: SubjectScene;
  readonly caption: string;
}

/** Places and sizes of the training pictures: each place once, both sizes. */
const layout: readonly (readonly [Size, Position])[] = [
  ['big', 'middle'],
  ['big', 'left'],
  ['small', 'right'],
  ['big', 'bottom'],
  ['small', 'top'],
];

/**
 * The five training pictures of a subject: five backgrounds, five places, two sizes, every attribute in the caption.
 * A pure function of (subject, seed).
 */
export function trainingScenes(subject: Subject, word = 'sks', seed = 7): CaptionedSubject[] {
  const { grounds: shown } = drawingOf(subject);
  return layout.map(([size, position], index) => {
    const background = shown[index]!;
    const pose = samplePose(draws(seed, index), size, position);
    const scene: SubjectScene = { subject, size, position, background, hat: null, poses: [pose] };
    return { scene, caption: subjectCaption(word, { size, position, background }) };
  });
}

/** What a held-out prompt asks for. */
export interface SubjectPrompt {
  readonly prompt: string;
  readonly size: Size;
  readonly position: Position;
  readonly background: Colour;
  readonly hat: Colour | null;
}

/** Prompts whose (background, place) no training picture shows, every fourth with a hat; a pure function of the arguments. */
export function heldOutPrompts(subject: Subject, word = 'sks', number = 8, seed = 7): SubjectPrompt[] {
  const { grounds: shown } = drawingOf(subject);
  const seen = new Set(layout.map(([, position], i) => `${shown[i]} ${position}`));
  const prompts: SubjectPrompt[] = [];
  for (let index = 0; prompts.length < number; index += 1) {
    const draw = draws(seed ^ 0x0de1, index);
    const background = draw.pick(shown);
    const position = positions[(index + 1) % positions.length]!;
    const size = sizes[(index + 1) % 2]!;
    if (seen.has(`${background} ${position}`)) continue;
    const hat = prompts.length % 4 === 3 ? draw.pick(colours.filter((name) => name !== background)) : null;
    prompts.push({
      prompt: subjectCaption(word, { size, position, background, hat }),
      size,
      position,
      background,
      hat,
    });
  }
  return prompts;
}
