/**
 * What a picture of the world shows, and how pictures are distributed.
 *
 * A scene names a thing (shape, colour, texture, what it wears), its size, place and number, and the colour of the
 * background. The pose holds what no caption says: small random shifts, scale and rotation, so that the data are
 * continuous. All scenes are a pure function of (seed, index).
 */

import { type Colour, colours } from './palette.ts';
import { type Draws, draws } from './random.ts';
import { type Shape, shapes } from './shapes.ts';

export const textures = ['plain', 'striped', 'dotted', 'checkered'] as const;
export const sizes = ['small', 'big'] as const;
export const positions = ['left', 'right', 'top', 'bottom', 'middle'] as const;
export const counts = [1, 2, 3] as const;

export type Texture = (typeof textures)[number];
export type Size = (typeof sizes)[number];
export type Position = (typeof positions)[number];
export type Count = (typeof counts)[number];

/** A small emblem painted on the middle of a thing. */
export interface Badge {
  readonly shape: Shape;
  readonly colour: Colour;
}

/** Where one copy of the thing stands, in picture units: the picture is [-1, 1] x [-1, 1], y downwards. */
export interface Pose {
  readonly x: number;
  readonly y: number;
  readonly radius: number;
  readonly rotation: number;
}

/** One picture of the world. */
export interface Scene {
  readonly shape: Shape;
  readonly colour: Colour;
  readonly texture: Texture;
  readonly eyes: boolean;
  readonly hat: Colour | null;
  readonly badge: Badge | null;
  readonly size: Size;
  readonly position: Position;
  readonly count: Count;
  readonly background: Colour;
  /** One pose per copy. */
  readonly poses: readonly Pose[];
}

/** The same words on every picture: how far from the middle a thing of each size stands. */
const reach: Readonly<Record<Size, number>> = { small: 0.52, big: 0.34 };

const direction: Readonly<Record<Position, readonly [number, number]>> = {
  left: [-1, 0],
  right: [1, 0],
  top: [0, -1],
  bottom: [0, 1],
  middle: [0, 0],
};

/** A pose for a thing of this size at this place, with the jitter of the world. */
export function samplePose(draw: Draws, size: Size, position: Position): Pose {
  const [dx, dy] = direction[position];
  return {
    x: dx * reach[size] + draw.between(-0.06, 0.06),
    y: dy * reach[size] + draw.between(-0.06, 0.06),
    radius: size === 'small' ? draw.between(0.34, 0.4) : draw.between(0.56, 0.64),
    rotation: draw.between(-0.1, 0.1),
  };
}

/** Centres of the copies when there are two or three. */
const stations: Readonly<Record<2 | 3, readonly (readonly [number, number])[]>> = {
  2: [
    [-0.48, 0],
    [0.48, 0],
  ],
  3: [
    [-0.48, 0.44],
    [0.48, 0.44],
    [0, -0.46],
  ],
};

function sampleGroup(draw: Draws, count: 2 | 3): Pose[] {
  const radius = count === 2 ? draw.between(0.33, 0.38) : draw.between(0.31, 0.35);
  return stations[count].map(([x, y]) => ({
    x: x + draw.between(-0.03, 0.03),
    y: y + draw.between(-0.04, 0.04),
    radius,
    rotation: draw.between(-0.1, 0.1),
  }));
}

function others(...taken: readonly (Colour | null)[]): Colour[] {
  return colours.filter((colour) => !taken.includes(colour));
}

/**
 * Scene `index` of the pretraining world under `seed`: 60 % one plain or textured shape, 15 % two or three copies,
 * 25 % a shape with eyes, a hat or a badge.
 */
export function sampleScene(seed: number, index: number): Scene {
  const draw = draws(seed, index);
  const shape = draw.pick(shapes);
  const background = draw.pick(colours);
  const colour = draw.pick(others(background));
  const single = { shape, colour, background, eyes: false, hat: null, badge: null, count: 1 } as const;
  const kind = draw.uniform();

  if (kind < 0.15) {
    const count = draw.pick([2, 3] as const);
    const poses = sampleGroup(draw, count);
    return { ...single, texture: 'plain', size: 'small', position: 'middle', count, poses };
  }

  const size = draw.pick(sizes);
  const position = draw.pick(positions);
  const poses = [samplePose(draw, size, position)];
  if (kind < 0.75) {
    const texture = draw.chance(0.55) ? 'plain' : draw.pick(textures.slice(1));
    return { ...single, texture, size, position, poses };
  }

  // Eyes and badges need a filled middle; the others would be drawn on nothing.
  const solid = draw.pick(shapes.filter((name) => name !== 'ring' && name !== 'moon'));
  const dress = draw.uniform();
  const eyes = dress < 0.45;
  const hat = dress < 0.7 && (!eyes || draw.chance(0.4)) ? draw.pick(others(background, colour)) : null;
  const badge =
    dress >= 0.7 ? { shape: draw.pick(badgeShapes), colour: draw.pick(others(colour, background)) } : null;
  const under = hat === null ? poses : poses.map(belowHat);
  return { ...single, shape: solid, texture: 'plain', size, position, poses: under, eyes, hat, badge };
}

/** A scene of the same thing elsewhere: another background, and a size and place drawn anew. */
export function elsewhere(scene: Scene, draw: Draws): Scene {
  const { background: before, colour, hat, badge } = scene;
  const background = draw.pick(others(before, colour, hat, badge?.colour ?? null));
  const [size, position] = [draw.pick(sizes), draw.pick(positions)];
  const pose = samplePose(draw, size, position);
  return { ...scene, background, size, position, poses: [hat === null ? pose : belowHat(pose)] };
}

function belowHat(pose: Pose): Pose {
  return { ...pose, y: pose.y + hatRoom * pose.radius };
}

/** How far a thing steps down, in radii, so that it and its hat are together in place. */
export const hatRoom = 0.15;

/** Shapes that stay readable at a third of the size. */
const badgeShapes: readonly Shape[] = ['circle', 'square', 'triangle', 'star', 'heart', 'diamond', 'cross'];
