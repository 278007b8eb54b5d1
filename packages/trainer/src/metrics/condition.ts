/** How well pictures keep to the picture that they were drawn from: its edges, or its depths. */
import { foreground } from '../world/measure.ts';
import type { Picture } from '../world/render.ts';
import { reliefAt } from '../world/render.ts';
import { canny, edgeF1 } from './canny.ts';
import { luma, type Plane, rmse } from './image.ts';

/** What instructions of a task are scored by. */
export const conditions = {
  /** F1 of the edges that are found in the drawing again, with those given: higher is better. */
  canny: {
    name: 'canny F1',
    score: (drawn: Picture, given: Picture) => edgeF1(canny(luma(drawn)), edges(given), given.width),
  },
  /** RMSE of the depths that are told from the drawing, with those given: lower is better. */
  depth: {
    name: 'depth RMSE',
    score: (drawn: Picture, given: Picture) => rmse(depthsOf(drawn), luma(given)),
  },
} as const;
export type Condition = keyof typeof conditions;

/** The task of an instruction that is scored so; null for any other. */
export function conditionOf(instruction: string): Condition | null {
  const word = /^(\w+) <img>/.exec(instruction)?.[1] ?? '';
  return Object.hasOwn(conditions, word) ? (word as Condition) : null;
}

function edges(given: Picture): Uint8Array {
  return Uint8Array.from(luma(given).data, (value) => (value > 0.5 ? 1 : 0));
}

/**
 * Depths as the world draws them, told from a picture of it: 0 where the background is, and inside of each thing by the
 * distance from its outline in units of the radius of a disc of its area. A proxy: outlines are told from pixels, and what a
 * thing wears is taken for a part of it.
 */
export function depthsOf(picture: Picture): Plane {
  const { width, height } = picture;
  const { mask, components } = foreground(picture);
  const data = new Float64Array(width * height);
  const outside = [...mask.keys()].filter((i) => mask[i] === 0);
  for (const component of components) {
    const radius = Math.sqrt(component.length / Math.PI);
    for (const i of component) {
      const [x, y] = [i % width, Math.floor(i / width)];
      const nearest = outside.reduce((least, j) => {
        return Math.min(least, (x - (j % width)) ** 2 + (y - Math.floor(j / width)) ** 2);
      }, Number.POSITIVE_INFINITY);
      data[i] = reliefAt((Math.sqrt(nearest) - 0.5) / radius);
    }
  }
  return { width, height, data };
}
