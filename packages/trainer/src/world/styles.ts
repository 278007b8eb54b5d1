/**
 * Styles: ways to paint any picture of the world that pretraining never shows, each with a measure of how much of it a
 * picture has, whatever the picture shows.
 *
 *     mosaic     tiles of one colour each, 16 across:        1 - |x - T x| / |y - T y|                             (1)
 *     outlined   a black line around what is shown:          mean over the edge of exp(-d^2 / (2 sigma^2))          (2)
 *
 * T paints the tiles, |.| is a root mean square, and y are plain pictures of the world: a picture as far from its mosaic as
 * those are has 0. d is how far from black the darkest pixel is that touches one of the edge: lines that are drawn are
 * softer than lines that are painted, and their outermost pixels half background.
 */
import { fullCaption } from './caption.ts';
import { foreground, pixelAt, rgbDistance } from './measure.ts';
import { rgbOf } from './palette.ts';
import { type Picture, renderScene } from './render.ts';
import { type Scene, sampleScene } from './scene.ts';

export const styles = ['mosaic', 'outlined'] as const;
export type Style = (typeof styles)[number];

/** Tiles across a mosaic. */
const tiles = 16;
/** RGB distance from black at which a pixel of the edge has lost 40 % of its line. */
const sigma = 0.25;

function mosaic(picture: Picture): Picture {
  const { width, height, data } = picture;
  const side = Math.max(1, Math.round(width / tiles));
  const painted = new Float32Array(data.length);
  for (let top = 0; top < height; top += side) {
    for (let left = 0; left < width; left += side) {
      const [bottom, right] = [Math.min(top + side, height), Math.min(left + side, width)];
      const mean = [0, 0, 0];
      const count = (bottom - top) * (right - left);
      eachOf(top, bottom, left, right, (row, column) => {
        for (let c = 0; c < 3; c += 1) mean[c]! += data[3 * (row * width + column) + c]! / count;
      });
      eachOf(top, bottom, left, right, (row, column) => {
        painted.set(mean, 3 * (row * width + column));
      });
    }
  }
  return { ...picture, data: painted };
}

function eachOf(
  top: number,
  bottom: number,
  left: number,
  right: number,
  visit: (row: number, column: number) => void,
): void {
  for (let row = top; row < bottom; row += 1) {
    for (let column = left; column < right; column += 1) visit(row, column);
  }
}

/** Pixels of what is shown, and beside it, that lie on its edge; `inside` alone leaves out those beside it. */
function edgeOf(picture: Picture, inside: boolean): number[] {
  const { mask } = foreground(picture);
  const { width, height } = picture;
  const edge: number[] = [];
  eachOf(0, height, 0, width, (row, column) => {
    const at = row * width + column;
    const around = [
      row > 0 ? at - width : at,
      row < height - 1 ? at + width : at,
      column > 0 ? at - 1 : at,
      column < width - 1 ? at + 1 : at,
    ];
    const differs = around.some((other) => mask[other] !== mask[at]);
    if (differs && (mask[at] === 1 || !inside)) edge.push(at);
  });
  return edge;
}

function outlined(picture: Picture): Picture {
  const data = picture.data.slice();
  for (const at of edgeOf(picture, false)) data.set(rgbOf.black, 3 * at);
  return { ...picture, data };
}

/** The picture in the style. */
export function stylize(picture: Picture, style: Style): Picture {
  return style === 'mosaic' ? mosaic(picture) : outlined(picture);
}

function rootMeanSquare(a: Picture, b: Picture): number {
  const sum = a.data.reduce((total, value, i) => total + (value - b.data[i]!) ** 2, 0);
  return Math.sqrt(sum / a.data.length);
}

/** Pictures that the mean of |y - T y| is over. */
const plainPictures = 64;
const plainDistances = new Map<number, number>();

function plainDistance(size: number): number {
  let mean = plainDistances.get(size);
  if (mean === undefined) {
    const pictures = Array.from({ length: plainPictures }, (_, i) =>
      renderScene(sampleScene(0x57e1, i), size),
    );
    mean = pictures.reduce((sum, y) => sum + rootMeanSquare(y, mosaic(y)), 0) / plainPictures;
    plainDistances.set(size, mean);
  }
  return mean;
}

/** How much of the style a square picture has, in [0, 1]: equations (1) and (2). */
export function styleSimilarity(picture: Picture, style: Style): number {
  if (style === 'mosaic') {
    return Math.max(0, 1 - rootMeanSquare(picture, mosaic(picture)) / plainDistance(picture.width));
  }
  const edge = edgeOf(picture, true);
  if (edge.length === 0) return 0;
  const blackness = edge.map((at) => Math.exp(-(distanceFromBlack(picture, at) ** 2) / (2 * sigma ** 2)));
  return blackness.reduce((sum, line) => sum + line, 0) / edge.length;
}

/** The least distance from black of a pixel and those around it. */
function distanceFromBlack(picture: Picture, at: number): number {
  const { width, height } = picture;
  const [row, column] = [Math.floor(at / width), at % width];
  let least = Number.POSITIVE_INFINITY;
  const [bottom, right] = [Math.min(row + 2, height), Math.min(column + 2, width)];
  eachOf(Math.max(row - 1, 0), bottom, Math.max(column - 1, 0), right, (r, c) => {
    least = Math.min(least, rgbDistance(pixelAt(picture, r * width + c), rgbOf.black));
  });
  return least;
}

/** A scene and the caption that names the style by a reserved word: "two big red stars on a blue background in sks". */
export interface StyledScene {
  readonly scene: Scene;
  readonly caption: string;
}

/** Which scenes of the world show a style: training pictures and held-out prompts have none in common. */
export const styleWorlds = { training: 0x57a1, heldOut: 0x57b2 } as const;

/** Plain things on grounds that a black line shows on, described in full: a pure function of the arguments. */
export function styledScenes(count: number, world: number, word = 'sks'): StyledScene[] {
  const found: StyledScene[] = [];
  for (let index = 0; found.length < count; index += 1) {
    const scene = sampleScene(world, index);
    const dressed = scene.eyes || scene.hat !== null || scene.badge !== null;
    if (dressed || scene.background === 'black' || scene.colour === 'black') continue;
    found.push({ scene, caption: `${fullCaption(scene)} in ${word}` });
  }
  return found;
}
