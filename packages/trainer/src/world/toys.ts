/**
 * Toys: as many novel subjects as are wanted, composed of a body, something on top and something on the belly, in three
 * colours, each with a name of three reserved words. Pretraining shows neither.
 */
import { type Colour, colours } from './palette.ts';
import { draws } from './random.ts';
import { eyeLayers, flat, type Layer } from './render.ts';
import { box, type Distance, disc, ellipse, polygon, union } from './shapes.ts';
import { subjectWords } from './vocabulary.ts';

/** How a subject is drawn. */
export interface Drawing {
  /** Lowest first, in a frame that the unit circle fills. */
  readonly layers: readonly Layer[];
  /** Backgrounds on which every part of it shows. */
  readonly grounds: readonly Colour[];
}

export const toyCount = 32;
export type Toy = `toy-${number}`;
export const toys: readonly Toy[] = Array.from({ length: toyCount }, (_, i): Toy => `toy-${i + 1}`);

const bodies: readonly Distance[] = [
  box(0, 0.16, 0.74, 0.7, 0.16),
  disc(0, 0.18, 0.76),
  ellipse(0, 0.16, 0.64, 0.8),
  polygon(-0.36, -0.46, 0.36, -0.46, 0.86, 0.86, -0.86, 0.86),
];

const tops: readonly Distance[] = [
  union(disc(-0.46, -0.6, 0.3), disc(0.46, -0.6, 0.3)),
  union(polygon(-0.62, -0.3, -0.66, -0.96, -0.16, -0.5), polygon(0.62, -0.3, 0.66, -0.96, 0.16, -0.5)),
  union(box(0, -0.64, 0.08, 0.26), disc(0, -0.84, 0.16)),
  polygon(-0.5, -0.34, -0.5, -0.92, -0.2, -0.62, 0, -0.96, 0.2, -0.62, 0.5, -0.92, 0.5, -0.34),
];

const bellies: readonly Distance[] = [
  disc(0, 0.46, 0.27),
  box(0, 0.46, 0.44, 0.13),
  union(disc(-0.22, 0.46, 0.16), disc(0.22, 0.46, 0.16)),
  polygon(0, 0.18, 0.3, 0.7, -0.3, 0.7),
];

/** Colours of parts: those that neither eyes nor pupils have. */
const paints = colours.filter((colour) => colour !== 'white' && colour !== 'black');

/** The drawing of toy i of `toys`: parts go round at different rates, so that no two toys share all three. */
export function toyDrawing(toy: Toy): Drawing {
  const i = toys.indexOf(toy);
  if (i < 0) throw new RangeError(`toyDrawing: expected toy-1 to toy-${toyCount}; got ${toy}`);
  const draw = draws(0x70b5, i);
  const own: Colour[] = [];
  while (own.length < 3) own.push(draw.pick(paints.filter((colour) => !own.includes(colour))));
  const [body, top, belly] = own as [Colour, Colour, Colour];
  const row = i >> 2;
  const rest = paints.filter((colour) => !own.includes(colour));
  return {
    layers: [
      { outline: tops[row % 4]!, paint: flat(top) },
      { outline: bodies[i % 4]!, paint: flat(body) },
      ...eyeLayers(-0.08, 0.24, 0.17),
      { outline: bellies[(i + row + (i >> 4)) % 4]!, paint: flat(belly) },
    ],
    // From another one on for each, or most toys would be pictured on the same.
    grounds: rest.map((_, k) => rest[(i + k) % rest.length]!),
  };
}

/** The toy's name: three of the words that pretraining never uses, spread so that neighbours differ in all of them. */
export function toyName(toy: Toy): string {
  const code = (toys.indexOf(toy) * 27 + 6) % 64; // 27 is odd: all codes differ
  return [code >> 4, (code >> 2) & 3, code & 3].map((word) => subjectWords[word]).join(' ');
}
