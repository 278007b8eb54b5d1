/**
 * The ten named colours, far apart in RGB, each with the shade that its stripes, dots and checks are painted in.
 */

/** Red, green and blue in [0, 1]. */
export type Rgb = readonly [number, number, number];

export const colours = [
  'red',
  'orange',
  'yellow',
  'green',
  'cyan',
  'blue',
  'purple',
  'pink',
  'white',
  'black',
] as const;

export type Colour = (typeof colours)[number];

function bytes(r: number, g: number, b: number): Rgb {
  return [r / 255, g / 255, b / 255];
}

/** The colour that a name stands for. */
export const rgbOf: Readonly<Record<Colour, Rgb>> = {
  red: bytes(218, 36, 42),
  orange: bytes(248, 140, 24),
  yellow: bytes(252, 224, 60),
  green: bytes(44, 156, 66),
  cyan: bytes(92, 214, 228),
  blue: bytes(40, 76, 208),
  purple: bytes(124, 48, 172),
  pink: bytes(246, 126, 186),
  white: bytes(246, 246, 244),
  black: bytes(22, 22, 28),
};

/** The second colour of a textured surface: darker where the colour is light, lighter where it is dark. */
export const shadeOf: Readonly<Record<Colour, Rgb>> = {
  red: bytes(124, 8, 16),
  orange: bytes(164, 78, 0),
  yellow: bytes(186, 150, 4),
  green: bytes(10, 84, 30),
  cyan: bytes(18, 124, 146),
  blue: bytes(136, 162, 250),
  purple: bytes(190, 136, 228),
  pink: bytes(184, 48, 118),
  white: bytes(164, 164, 168),
  black: bytes(104, 104, 110),
};
