/** Initial values, by PyTorch's formulas. All are drawn on the host from the key: the same on every device. */
import { full, normalNumbers, type Shape, type Tensor, tensor, threefryNumbers } from '@deftjs/tensor';
import type { Initializer } from './parameter.ts';

/** The same value everywhere. */
export function constant(value: number): Initializer {
  return (shape) => full(shape, value);
}

/** Normal numbers of the given standard deviation. */
export function normal(std: number, mean = 0): Initializer {
  return (shape, key) => fromNumbers(normalNumbers(key, sizeOf(shape)), shape, (z) => mean + std * z);
}

/** Numbers uniform in [-bound, bound). */
export function uniform(bound: number): Initializer {
  return (shape, key) => fromNumbers(threefryNumbers(key, sizeOf(shape)), shape, (u) => bound * (2 * u - 1));
}

/**
 * PyTorch's default for weights [out, in, ...]: kaiming_uniform with a = sqrt(5), which is uniform in
 * +-1/sqrt(fan in), fan in being the product of all axes but the first.
 */
export const kaimingUniform: Initializer = (shape, key) =>
  uniform(1 / Math.sqrt(Math.max(1, sizeOf(shape.slice(1)))))(shape, key);

function sizeOf(shape: Shape): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

function fromNumbers(numbers: Float64Array, shape: Shape, change: (x: number) => number): Tensor {
  return tensor(Float32Array.from(numbers, change), shape);
}
