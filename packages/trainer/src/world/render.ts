/**
 * Pictures of scenes: layers of flat paint, anti-aliased, at any resolution.
 *
 * A layer is an outline (signed distance d) and a paint. At a pixel of width w its coverage is
 *     c = clamp(1/2 - d / w, 0, 1)                                                                       (1)
 * and it is laid over what is there:  picture <- (1 - c) picture + c paint.                              (2)
 * Textures are square waves smoothed over one pixel in the same way.
 */

import { type Colour, type Rgb, rgbOf, shadeOf } from './palette.ts';
import type { Pose, Scene, Texture } from './scene.ts';
import { box, type Distance, disc, distanceOf, polygon, type Shape, union } from './shapes.ts';

/** An RGB picture: rows of pixels, three numbers in [0, 1] each (height x width x 3). */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly data: Float32Array;
}

/** Colour of a surface at a point of the thing's own frame; `blur` is the width of a pixel there. */
export type Paint = (x: number, y: number, blur: number) => Rgb;

/** One flat part of a thing, in the thing's own frame (about the unit circle, y downwards). */
export interface Layer {
  readonly outline: Distance;
  readonly paint: Paint;
}

/** A grey picture of one number in [0, 1] for each pixel. */
export function fromPlane(width: number, height: number, plane: ArrayLike<number>): Picture {
  const data = Float32Array.from({ length: 3 * width * height }, (_, i) => plane[Math.floor(i / 3)]!);
  return { width, height, data };
}

/** A picture of one colour. */
export function blankPicture(size: number, colour: Rgb): Picture {
  const data = new Float32Array(size * size * 3);
  for (let i = 0; i < data.length; i += 1) data[i] = colour[i % 3]!;
  return { width: size, height: size, data };
}

function clamp01(value: number): number {
  return Math.min(1, Math.max(0, value));
}

/** No layer reaches farther than this from the origin of its frame. */
const drawnReach = 1.4;

/** Paints the layers over the picture, first layer lowest, at the given pose. */
export function paintLayers(picture: Picture, layers: readonly Layer[], pose: Pose): void {
  const { width, height, data } = picture;
  const cos = Math.cos(pose.rotation);
  const sin = Math.sin(pose.rotation);
  const pixel = 2 / width / pose.radius; // width of a pixel in the thing's frame
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const px = (((column + 0.5) * 2) / width - 1 - pose.x) / pose.radius;
      const py = (((row + 0.5) * 2) / height - 1 - pose.y) / pose.radius;
      const x = cos * px + sin * py;
      const y = cos * py - sin * px;
      if (x * x + y * y > drawnReach ** 2) continue;
      const at = (row * width + column) * 3;
      for (const layer of layers) {
        const coverage = clamp01(0.5 - layer.outline(x, y) / pixel); // (1)
        if (coverage === 0) continue;
        const paint = layer.paint(x, y, pixel);
        for (let c = 0; c < 3; c += 1) data[at + c] = (1 - coverage) * data[at + c]! + coverage * paint[c]!; // (2)
      }
    }
  }
}

/** A paint of one colour. */
export function flat(colour: Colour | Rgb): Paint {
  const rgb = typeof colour === 'string' ? rgbOf[colour] : colour;
  return () => rgb;
}

/** A wave of the given period that is 1 on its first half and 0 on its second, smoothed over `blur`. */
function squareWave(t: number, period: number, blur: number): number {
  const phase = t / period - Math.floor(t / period); // [0, 1)
  const edge = (Math.abs(phase - 0.5) - 0.25) * period; // signed distance to the nearest change
  return clamp01(0.5 + edge / blur);
}

/** How much of the shade shows at a point. */
const shading: Readonly<Record<Texture, (x: number, y: number, blur: number) => number>> = {
  plain: () => 0,
  striped: (_x, y, blur) => squareWave(y, 0.58, blur),
  checkered: (x, y, blur) => {
    const a = squareWave(x, 0.9, blur);
    const b = squareWave(y, 0.9, blur);
    return a * (1 - b) + b * (1 - a);
  },
  dotted: (x, y, blur) => {
    const period = 0.62;
    const u = x - period * Math.round(x / period);
    const v = y - period * Math.round(y / period);
    return clamp01(0.5 - (Math.hypot(u, v) - 0.19) / blur);
  },
};

/** A paint of a named colour and texture. */
export function textured(colour: Colour, texture: Texture): Paint {
  const main = rgbOf[colour];
  const shade = shadeOf[colour];
  const amount = shading[texture];
  return (x, y, blur) => {
    const s = amount(x, y, blur);
    return [0, 1, 2].map((c) => (1 - s) * main[c]! + s * shade[c]!) as unknown as Rgb;
  };
}

/** Two round eyes with pupils, at height y and half-distance a from the middle. */
export function eyeLayers(y: number, a: number, radius: number): Layer[] {
  return [
    { outline: union(disc(-a, y, radius), disc(a, y, radius)), paint: flat('white') },
    { outline: union(disc(-a, y, radius * 0.55), disc(a, y, radius * 0.55)), paint: flat('black') },
  ];
}

/** A brimmed hat whose brim lies at height y. */
export function hatLayers(colour: Colour, y: number): Layer[] {
  const crown = polygon(-0.4, y, -0.3, y - 0.46, 0.3, y - 0.46, 0.4, y);
  return [{ outline: union(crown, box(0, y, 0.68, 0.1)), paint: flat(colour) }];
}

/** Where the brim of a hat lies on each shape. */
const brows: Partial<Record<Shape, number>> = {
  square: -0.78,
  heart: -0.62,
  cross: -0.84,
  triangle: -0.5,
  star: -0.55,
};

/** The height at which a shape wears its hat. */
export function sceneBrow(shape: Shape): number {
  return brows[shape] ?? -0.72;
}

/** A part of the layers moved and scaled: point p of the result is point (p - offset) / scale of the original. */
function placed(outline: Distance, x0: number, y0: number, scale: number): Distance {
  return (x, y) => scale * outline((x - x0) / scale, (y - y0) / scale);
}

/** The layers of the thing that a scene names. */
export function sceneLayers(scene: Scene): Layer[] {
  const layers: Layer[] = [
    { outline: distanceOf[scene.shape], paint: textured(scene.colour, scene.texture) },
  ];
  if (scene.badge !== null) {
    const y = scene.shape === 'triangle' ? 0.25 : 0;
    layers.push({
      outline: placed(distanceOf[scene.badge.shape], 0, y, 0.45),
      paint: flat(scene.badge.colour),
    });
  }
  if (scene.eyes) layers.push(...eyeLayers(scene.shape === 'triangle' ? 0.15 : -0.08, 0.3, 0.24));
  if (scene.hat !== null) layers.push(...hatLayers(scene.hat, sceneBrow(scene.shape)));
  return layers;
}

/** The picture of a scene, `size` x `size` pixels. */
export function renderScene(scene: Scene, size = 32): Picture {
  const picture = blankPicture(size, rgbOf[scene.background]);
  const layers = sceneLayers(scene);
  for (const pose of scene.poses) paintLayers(picture, layers, pose);
  return picture;
}

/** The nearness of what lies deep in a thing, of its outline, and what eyes, hats and emblems add. */
const relief = { rim: 0.35, swell: 0.45, raised: 0.2 } as const;

/** How near a thing is `inside` radii within its outline. */
export function reliefAt(inside: number): number {
  return relief.rim + relief.swell * clamp01(2 * inside);
}

/**
 * The depth map of a scene as a grey picture, `size` x `size` pixels: 0 the background, 1 nearest. A thing swells from its
 * outline inwards over half of its radius, and what it wears is raised above it.
 */
export function renderDepth(scene: Scene, size = 32): Picture {
  const picture = blankPicture(size, [0, 0, 0]);
  const drawn = sceneLayers(scene);
  const body = drawn[0]!.outline;
  const layers = drawn.map(({ outline }, i): Layer => {
    const paint = (x: number, y: number): Rgb => {
      const near = reliefAt(-body(x, y)) + (i > 0 ? relief.raised : 0);
      return [near, near, near];
    };
    return { outline, paint };
  });
  for (const pose of scene.poses) paintLayers(picture, layers, pose);
  return picture;
}

/** The picture as a model sees it: 3 x height x width, in [-1, 1]. */
export function toPlanes(picture: Picture): Float32Array {
  const pixels = picture.width * picture.height;
  const planes = new Float32Array(3 * pixels);
  for (let i = 0; i < pixels; i += 1) {
    for (let c = 0; c < 3; c += 1) planes[c * pixels + i] = 2 * picture.data[3 * i + c]! - 1;
  }
  return planes;
}

/** The picture of 3 x height x width numbers in [-1, 1]; numbers outside are clipped. */
export function fromPlanes(planes: Float32Array, width: number, height: number): Picture {
  const pixels = width * height;
  if (planes.length !== 3 * pixels) {
    throw new RangeError(
      `fromPlanes: expected ${3 * pixels} numbers for 3 x ${height} x ${width}; got ${planes.length}`,
    );
  }
  const data = new Float32Array(3 * pixels);
  for (let i = 0; i < pixels; i += 1) {
    for (let c = 0; c < 3; c += 1) data[3 * i + c] = clamp01((planes[c * pixels + i]! + 1) / 2);
  }
  return { width, height, data };
}

/** The picture as bytes: height x width x 3, 0 to 255. */
export function toBytes(picture: Picture): Uint8Array {
  return Uint8Array.from(picture.data, (value) => Math.round(255 * clamp01(value)));
}

/** The picture of height x width x 3 bytes. */
export function fromBytes(bytes: Uint8Array, width: number, height: number): Picture {
  if (bytes.length !== 3 * width * height) {
    throw new RangeError(
      `fromBytes: expected ${3 * width * height} bytes for ${height} x ${width} x 3; got ${bytes.length}`,
    );
  }
  return { width, height, data: Float32Array.from(bytes, (value) => value / 255) };
}
