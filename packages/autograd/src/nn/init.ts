/**
 * Initial values, by PyTorch's formulas. All are drawn on the host from the key: the same on every device.
 *
 * For weights [out, in, ...kernel]: fan in = in * kernel, fan out = out * kernel. A gain is what a layer's nonlinearity
 * takes from the standard deviation; a rectifier of slope a below zero has sqrt(2 / (1 + a^2)).
 */
import {
  foldIn,
  formatShape,
  full,
  type Key,
  normalNumbers,
  type Shape,
  ShapeError,
  type Tensor,
  tensor,
  threefryNumbers,
} from '@deftjs/tensor';
import type { Initializer } from './parameter.ts';

/** The same value everywhere. */
export function constant(value: number): Initializer {
  return (shape) => full(shape, value);
}

/** Normal numbers of the given standard deviation. */
export function normal(std: number, mean = 0): Initializer {
  return (shape, key) => fromNumbers(normalNumbers(key, sizeOf(shape)), shape, (z) => mean + std * z);
}

/** Normal numbers, those further than `limit` standard deviations from the mean drawn again. */
export function truncatedNormal(std: number, mean = 0, limit = 2): Initializer {
  return (shape, key) => {
    const numbers = normalNumbers(key, sizeOf(shape));
    numbers.forEach((z, i) => {
      if (Math.abs(z) > limit) numbers[i] = normalWithin(limit, foldIn(key, i));
    });
    return fromNumbers(numbers, shape, (z) => mean + std * z);
  };
}

function normalWithin(limit: number, key: Key): number {
  const found = normalNumbers(key, 16).find((z) => Math.abs(z) <= limit);
  return found ?? normalWithin(limit, foldIn(key, 0));
}

/** Numbers uniform in [-bound, bound). */
export function uniform(bound: number): Initializer {
  return (shape, key) => fromNumbers(threefryNumbers(key, sizeOf(shape)), shape, (u) => bound * (2 * u - 1));
}

export interface KaimingOptions {
  /** Which sums keep their variance: those of the forward pass or of the backward pass. Default 'in'. */
  readonly fan?: 'in' | 'out';
  /** Slope of the rectifier below zero; default 0. PyTorch's layers start from kaimingUniform with slope sqrt(5). */
  readonly slope?: number;
}

/** Normal with standard deviation gain / sqrt(fan) (He et al. 2015). */
export function kaimingNormal(options: KaimingOptions = {}): Initializer {
  return (shape, key) => normal(kaimingDeviation('kaimingNormal', shape, options))(shape, key);
}

/** Uniform with the standard deviation of `kaimingNormal` (He et al. 2015). */
export function kaimingUniform(options: KaimingOptions = {}): Initializer {
  return (shape, key) =>
    uniform(Math.sqrt(3) * kaimingDeviation('kaimingUniform', shape, options))(shape, key);
}

function kaimingDeviation(op: string, shape: Shape, { fan = 'in', slope = 0 }: KaimingOptions): number {
  return Math.sqrt(2 / (1 + slope ** 2) / fansOf(op, shape)[fan]);
}

/** Normal with standard deviation gain sqrt(2 / (fan in + fan out)) (Glorot and Bengio 2010). */
export function xavierNormal(gain = 1): Initializer {
  return (shape, key) => normal(xavierDeviation('xavierNormal', shape, gain))(shape, key);
}

/** Uniform with the standard deviation of `xavierNormal` (Glorot and Bengio 2010). */
export function xavierUniform(gain = 1): Initializer {
  return (shape, key) => uniform(Math.sqrt(3) * xavierDeviation('xavierUniform', shape, gain))(shape, key);
}

function xavierDeviation(op: string, shape: Shape, gain: number): number {
  const fans = fansOf(op, shape);
  return gain * Math.sqrt(2 / (fans.in + fans.out));
}

/** @throws ShapeError when the shape has fewer than two axes */
function fansOf(op: string, shape: Shape): { readonly in: number; readonly out: number } {
  if (shape.length < 2) throw new ShapeError(`${op}: expected at least two axes; got ${formatShape(shape)}`);
  const [out, inside, ...kernel] = shape as [number, number, ...number[]];
  return { in: inside * sizeOf(kernel), out: out * sizeOf(kernel) };
}

function sizeOf(shape: Shape): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

function fromNumbers(numbers: Float64Array, shape: Shape, change: (x: number) => number): Tensor {
  return tensor(Float32Array.from(numbers, change), shape);
}
