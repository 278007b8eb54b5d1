/**
 * What a picture shows, from its pixels alone.
 *
 *   background   the per-channel median of a border two pixels wide, and the nearest named colour
 *   foreground   pixels farther than `contrast` from the background, without specks
 *   count        8-connected components of the foreground
 *   position     the middle of the foreground's bounding box;  size: the box's sqrt(width x height)
 *   colour       the named colour (or its shade) that most foreground pixels are nearest to
 *   shape        the silhouette of the world that overlaps the largest component best
 */

import { median } from '../metrics/estimate.ts';
import { type Colour, colours, type Rgb, rgbOf, shadeOf } from './palette.ts';
import type { Named } from './reading.ts';
import { blankPicture, hatLayers, type Layer, type Picture, paintLayers, sceneBrow } from './render.ts';
import type { Position, Size } from './scene.ts';
import { distanceOf, type Shape, shapes } from './shapes.ts';

/** The attributes found in a picture; null where there is no foreground to measure. */
export interface Measured {
  readonly background: Colour;
  readonly count: number;
  readonly colour: Colour | null;
  readonly shape: Shape | null;
  readonly size: Size | null;
  readonly position: Position | null;
  /** Whether two tones of the colour alternate: stripes, dots or checks. */
  readonly textured: boolean;
  /** The main colour of the upper third of the foreground. */
  readonly topColour: Colour | null;
}

/** RGB distance below which a pixel counts as background. */
const contrast = 0.17;
/** Components of fewer pixels, at 32 x 32, are specks. */
const speck = 8;

/** A rectangle of pixels, bounds included. */
export interface Box {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

/** The foreground of a picture: its components, largest first, and all their pixels. */
export interface Foreground {
  readonly background: Rgb;
  readonly mask: Uint8Array;
  /** Pixel indices of each component. */
  readonly components: readonly (readonly number[])[];
  /** The bounding box of all components; null where there is none. */
  readonly bounds: Box | null;
}

export function pixelAt(picture: Picture, pixel: number): Rgb {
  const { data } = picture;
  return [data[3 * pixel]!, data[3 * pixel + 1]!, data[3 * pixel + 2]!];
}

/** The distance of two colours in RGB. */
export function rgbDistance(a: Rgb, b: Rgb): number {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

/** The named colour nearest to an RGB value. */
export function nearestColour(rgb: Rgb): Colour {
  return colours.reduce((best, name) =>
    rgbDistance(rgb, rgbOf[name]) < rgbDistance(rgb, rgbOf[best]) ? name : best,
  );
}

/** The per-channel median of the border, two pixels wide at 32 x 32. */
function borderColour(picture: Picture): Rgb {
  const { width, height } = picture;
  const rim = Math.max(1, Math.round(width / 16));
  const border: Rgb[] = [];
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const inside = row >= rim && row < height - rim && column >= rim && column < width - rim;
      if (!inside) border.push(pixelAt(picture, row * width + column));
    }
  }
  return [0, 1, 2].map((c) => median(border.map((rgb) => rgb[c]!))) as unknown as Rgb;
}

function boundsOf(pixels: readonly number[], width: number): Box {
  let [left, right, top, bottom] = [width, -1, Number.POSITIVE_INFINITY, -1];
  for (const pixel of pixels) {
    const column = pixel % width;
    const row = (pixel - column) / width;
    left = Math.min(left, column);
    right = Math.max(right, column);
    top = Math.min(top, row);
    bottom = Math.max(bottom, row);
  }
  return { left, right, top, bottom };
}

/** Pixels of the 8-connected component of `start`, which are cleared from `mask`. */
function takeComponent(mask: Uint8Array, width: number, height: number, start: number): number[] {
  const component = [start];
  mask[start] = 0;
  for (let i = 0; i < component.length; i += 1) {
    const column = component[i]! % width;
    const row = (component[i]! - column) / width;
    for (let y = Math.max(0, row - 1); y <= Math.min(height - 1, row + 1); y += 1) {
      for (let x = Math.max(0, column - 1); x <= Math.min(width - 1, column + 1); x += 1) {
        if (mask[y * width + x] === 0) continue;
        mask[y * width + x] = 0;
        component.push(y * width + x);
      }
    }
  }
  return component;
}

/** The foreground of a picture. */
export function foreground(picture: Picture): Foreground {
  const { width, height } = picture;
  const background = borderColour(picture);
  const left = new Uint8Array(width * height);
  for (let i = 0; i < left.length; i += 1)
    left[i] = rgbDistance(pixelAt(picture, i), background) > contrast ? 1 : 0;
  const smallest = (speck * width * height) / 1024;
  const components: number[][] = [];
  for (let i = 0; i < left.length; i += 1) {
    if (left[i] === 0) continue;
    const component = takeComponent(left, width, height, i);
    if (component.length >= smallest) components.push(component);
  }
  components.sort((a, b) => b.length - a.length);
  const mask = new Uint8Array(width * height);
  for (const pixel of components.flat()) mask[pixel] = 1;
  const bounds = components.length === 0 ? null : boundsOf(components.flat(), width);
  return { background, mask, components, bounds };
}

/** The middle of a box and its sqrt(width x height), in picture units ([-1, 1] across). */
export function placeOf(box: Box, width: number): { x: number; y: number; extent: number } {
  const unit = 2 / width;
  return {
    x: ((box.left + box.right + 1) / 2) * unit - 1,
    y: ((box.top + box.bottom + 1) / 2) * unit - 1,
    extent: Math.sqrt((box.right - box.left + 1) * (box.bottom - box.top + 1)) * unit,
  };
}

function positionWord(x: number, y: number): Position {
  if (Math.max(Math.abs(x), Math.abs(y)) < 0.18) return 'middle';
  if (Math.abs(x) > Math.abs(y)) return x < 0 ? 'left' : 'right';
  return y < 0 ? 'top' : 'bottom';
}

/** How many pixels are nearest to each named colour, and how many of these to its shade. */
function countColours(
  picture: Picture,
  pixels: readonly number[],
): { names: Map<Colour, number>; shades: Map<Colour, number> } {
  const names = new Map<Colour, number>();
  const shades = new Map<Colour, number>();
  for (const pixel of pixels) {
    const rgb = pixelAt(picture, pixel);
    let best: Colour = 'red';
    let shaded = false;
    let nearest = Number.POSITIVE_INFINITY;
    for (const name of colours) {
      const plain = rgbDistance(rgb, rgbOf[name]);
      const shade = rgbDistance(rgb, shadeOf[name]);
      if (Math.min(plain, shade) >= nearest) continue;
      nearest = Math.min(plain, shade);
      best = name;
      shaded = shade < plain;
    }
    names.set(best, (names.get(best) ?? 0) + 1);
    if (shaded) shades.set(best, (shades.get(best) ?? 0) + 1);
  }
  return { names, shades };
}

function mostFrequent(tally: ReadonlyMap<Colour, number>): Colour | null {
  let best: Colour | null = null;
  for (const [name, number] of tally) if (best === null || number > tally.get(best)!) best = name;
  return best;
}

/** The pixels whose four neighbours are among them too: those that no edge has blended. */
function interior(pixels: readonly number[], width: number): number[] {
  const inside = new Set(pixels);
  return pixels.filter((pixel) => [-width, -1, 1, width].every((step) => inside.has(pixel + step)));
}

/** Where a drawing lies in its own frame: the box of its pixels, as middle and extent. */
export function frameOf(layers: readonly Layer[], rotation = 0): { x: number; y: number; extent: number } {
  const drawn = stamp(layers, rotation);
  const pixels = [...drawn.keys()].filter((pixel) => drawn[pixel] === 1);
  const { x, y, extent } = placeOf(boundsOf(pixels, stampSize), stampSize);
  return { x: x * stampReach, y: y * stampReach, extent: extent * stampReach };
}

/** Pixels across a stamp, and how far it reaches from the origin of the drawing's frame. */
const stampSize = 96;
const stampReach = 1.4;

/** A drawing's silhouette in its own frame: 1 where a pixel is mostly covered. */
function stamp(layers: readonly Layer[], rotation: number): Uint8Array {
  const picture = blankPicture(stampSize, [0, 0, 0]);
  const solid = layers.map(({ outline }): Layer => ({ outline, paint: () => [1, 1, 1] }));
  paintLayers(picture, solid, { x: 0, y: 0, radius: 1 / stampReach, rotation });
  return Uint8Array.from({ length: stampSize ** 2 }, (_, pixel) => (picture.data[3 * pixel]! > 0.5 ? 1 : 0));
}

/** Silhouettes to compare with: every shape, bare and with a hat, a little rotated either way. */
const silhouettes = shapes.flatMap((shape) => {
  const bare: Layer[] = [{ outline: distanceOf[shape], paint: () => [1, 1, 1] }];
  const hatted = [...bare, ...hatLayers('white', sceneBrow(shape))];
  return [-0.07, 0, 0.07].flatMap((rotation) =>
    [bare, hatted].map((layers) => ({
      shape,
      drawn: stamp(layers, rotation),
      frame: frameOf(layers, rotation),
    })),
  );
});

/** The shape whose silhouette, fitted to the component's box, overlaps it best (intersection over union). */
function shapeOf(component: readonly number[], width: number): Shape {
  const target = placeOf(boundsOf(component, width), width);
  const inside = new Uint8Array(width * width);
  for (const pixel of component) inside[pixel] = 1;
  let best: Shape = 'circle';
  let bestOverlap = -1;
  for (const { shape, drawn, frame } of silhouettes) {
    const radius = target.extent / frame.extent;
    let shared = 0;
    let either = 0;
    for (let pixel = 0; pixel < inside.length; pixel += 1) {
      const column = pixel % width;
      // The pixel's centre in the silhouette's frame, then in its stamp.
      const x = ((2 * column + 1) / width - 1 - target.x) / radius + frame.x;
      const y = ((2 * ((pixel - column) / width) + 1) / width - 1 - target.y) / radius + frame.y;
      const u = Math.floor((x / stampReach + 1) * (stampSize / 2));
      const v = Math.floor((y / stampReach + 1) * (stampSize / 2));
      const covered = u >= 0 && v >= 0 && u < stampSize && v < stampSize && drawn[v * stampSize + u] === 1;
      const seen = inside[pixel] === 1;
      if (covered && seen) shared += 1;
      if (covered || seen) either += 1;
    }
    if (shared / either > bestOverlap) [best, bestOverlap] = [shape, shared / either];
  }
  return best;
}

/** The attributes of a square picture. */
export function measure(picture: Picture): Measured {
  const { width } = picture;
  const { background, components, bounds } = foreground(picture);
  const found = { background: nearestColour(background), count: components.length };
  if (bounds === null) {
    return {
      ...found,
      colour: null,
      shape: null,
      size: null,
      position: null,
      textured: false,
      topColour: null,
    };
  }
  const pixels = components.flat();
  const colour = mostFrequent(countColours(picture, pixels).names)!;
  const { names, shades } = countColours(picture, interior(pixels, width));
  const textured = (shades.get(colour) ?? 0) > 0.1 * (names.get(colour) ?? 0);
  const { x, y } = placeOf(bounds, width);
  const { extent } = placeOf(boundsOf(components[0]!, width), width);
  const third = bounds.top + (bounds.bottom - bounds.top + 1) / 3;
  const topColour = mostFrequent(
    countColours(
      picture,
      pixels.filter((pixel) => pixel / width < third),
    ).names,
  );
  return {
    ...found,
    colour,
    shape: shapeOf(components[0]!, width),
    size: extent < 0.87 ? 'small' : 'big',
    position: positionWord(x, y),
    textured,
    topColour,
  };
}

/** Which of the named attributes a picture shows; what is not named is left out. */
export function agreement(measured: Measured, named: Named): Record<string, boolean> {
  const shown: Record<string, boolean> = {};
  if (named.background !== undefined) shown.background = measured.background === named.background;
  if (named.colour !== undefined) shown.colour = measured.colour === named.colour;
  if (named.shape !== undefined) shown.shape = measured.shape === named.shape;
  if (named.size !== undefined) shown.size = measured.size === named.size;
  if (named.position !== undefined) shown.position = measured.position === named.position;
  if (named.count !== undefined) shown.count = measured.count === named.count;
  if (named.texture !== undefined) shown.texture = measured.textured === (named.texture !== 'plain');
  if (named.hat !== undefined) shown.hat = measured.topColour === named.hat;
  return shown;
}

/** The fraction of the named attributes that the picture shows; 1 where none is named. */
export function promptFollowing(picture: Picture, named: Named): number {
  const shown = Object.values(agreement(measure(picture), named));
  return shown.length === 0 ? 1 : shown.filter(Boolean).length / shown.length;
}
