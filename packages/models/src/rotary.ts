/** Tables for `rope` from angles that are not simply position times frequency: scaled ones, and positions of several axes. */
import { type RotaryTable, type Shape, tensor } from '@deftjs/tensor';

/**
 * Cosines and sines of angles given in reading order, multiplied by `scale`. Angles are in float64: they reach thousands
 * of radians, of which float32 keeps few digits after the point.
 */
export function rotationBy(angles: Float64Array, shape: Shape, scale = 1): RotaryTable {
  const table = (wave: (angle: number) => number) =>
    tensor(
      Float32Array.from(angles, (angle) => scale * wave(angle)),
      shape,
    );
  return { cos: table(Math.cos), sin: table(Math.sin) };
}
