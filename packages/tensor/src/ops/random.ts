/**
 * Random tensors as pure functions of a key: the same key, the same numbers, on every device. A key is two u32 words.
 *
 * Bits come from Threefry on the device. Normal numbers are made on the host in float64 (Box-Muller), because log and
 * cos differ in the last bits between devices.
 */
import { type DType, encode, isFloat } from '../dtype.ts';
import { DTypeError, formatShape } from '../errors.ts';
import { checkShape, numel, type Shape, sameShape } from '../shape.ts';
import { type Tensor, tensor } from '../tensor.ts';
import {
  add,
  cast,
  erfReference,
  less,
  mod,
  mul,
  shiftRight,
  threefry,
  threefryReference,
  where,
} from './elementwise.ts';
import { gather } from './gather.ts';
import { reshape } from './movement.ts';
import { arange } from './source.ts';

export type Key = readonly [number, number];

/** A key from a whole number in [0, 2^53). @throws RangeError for other numbers */
export function keyOf(seed: number): Key {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new RangeError(`keyOf: the seed must be a whole number in [0, 2^53); got ${seed}`);
  }
  return [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
}

/** The key of stream `index` under a key: different indices give unrelated streams. */
export function foldIn(key: Key, index: number): Key {
  const first = threefryReference(key[0], key[1], index >>> 0);
  return [first, threefryReference(key[1] ^ 0x9e3779b9, first, Math.floor(index / 2 ** 32) >>> 0)];
}

/** 32 random bits for each element; `key` may be a u32 tensor [2], so that a compiled function takes a new one each call. */
export function randomBits(key: Key | Tensor, shape: Shape): Tensor {
  checkShape('randomBits', shape);
  if ('shape' in key && (key.dtype !== 'u32' || !sameShape(key.shape, [2]))) {
    throw new DTypeError(
      `randomBits: a key tensor must be u32 [2]; got ${key.dtype} ${formatShape(key.shape)}`,
    );
  }
  const words = 'shape' in key ? key : tensor(Uint32Array.from(key));
  const word = (i: number): Tensor => reshape(gather(words, tensor(Int32Array.of(i))), [1]);
  return reshape(threefry(word(0), word(1), arange(numel(shape), 'u32')), shape);
}

/** Numbers in [0, 1), multiples of 2^-24. */
export function randomUniform(key: Key | Tensor, shape: Shape): Tensor {
  return mul(cast(shiftRight(randomBits(key, shape), 8), 'f32'), 2 ** -24);
}

/** True with the given probability. @throws RangeError unless it is in [0, 1] */
export function randomBernoulli(key: Key | Tensor, shape: Shape, probability: number): Tensor {
  if (!(probability >= 0 && probability <= 1)) {
    throw new RangeError(`randomBernoulli: the probability must be in [0, 1]; got ${probability}`);
  }
  return less(randomUniform(key, shape), probability);
}

/** Standard normal numbers, drawn on the host. @throws DTypeError when the type is not float, ShapeError */
export function randomNormal(key: Key, shape: Shape, dtype: DType = 'f32'): Tensor {
  checkShape('randomNormal', shape);
  if (!isFloat(dtype)) throw new DTypeError(`randomNormal: expected float; got ${dtype}`);
  return tensor(encode(dtype, normalNumbers(key, numel(shape))), shape, dtype);
}

/**
 * Whole numbers in [low, high) as i32: bits modulo the width, whose bias is below (high - low) / 2^32.
 * @throws RangeError unless low and high are whole numbers of i32 with low < high
 */
export function randomInteger(key: Key | Tensor, shape: Shape, low: number, high: number): Tensor {
  const fits = [low, high - 1].every((end) => Number.isInteger(end) && end === (end | 0));
  if (!fits || low >= high || high - low >= 2 ** 32) {
    throw new RangeError(`randomInteger: expected whole numbers low < high of i32; got ${low} and ${high}`);
  }
  return add(cast(mod(randomBits(key, shape), high - low), 'i32'), low);
}

/**
 * 0, 1, ..., count - 1 in random order, as i32: sorted by random words on the host, where the order of two that draw
 * the same word is kept.
 * @throws ShapeError unless the count is a whole number >= 0
 */
export function randomPermutation(key: Key, count: number): Tensor {
  checkShape('randomPermutation', [count]);
  const words = Uint32Array.from({ length: count }, (_, i) => threefryReference(key[0], key[1], i));
  return tensor(Int32Array.from(words.keys()).sort((a, b) => words[a]! - words[b]! || a - b));
}

/** The share of the normal distribution that an interval must hold for `randomTruncatedNormal` to draw from it. */
const leastShare = 0.01;

/**
 * Standard normal numbers given that they lie in [low, high] (torch trunc_normal_ before its mean and deviation), drawn
 * on the host: numbers outside are drawn again from the key's next stream.
 * @throws RangeError unless the interval holds at least 1 % of the distribution, ShapeError, DTypeError
 */
export function randomTruncatedNormal(
  key: Key,
  shape: Shape,
  { low = -2, high = 2 }: { readonly low?: number; readonly high?: number } = {},
  dtype: DType = 'f32',
): Tensor {
  checkShape('randomTruncatedNormal', shape);
  if (!isFloat(dtype)) throw new DTypeError(`randomTruncatedNormal: expected float; got ${dtype}`);
  const share = (erfReference(high * Math.SQRT1_2) - erfReference(low * Math.SQRT1_2)) / 2;
  if (!(share >= leastShare)) {
    throw new RangeError(
      `randomTruncatedNormal: [${low}, ${high}] must hold at least ${leastShare} of the normal distribution; it holds ${share}`,
    );
  }
  const out = new Float64Array(numel(shape));
  let missing = [...out.keys()];
  for (let stream = 0; missing.length > 0; stream += 1) {
    const drawn = normalNumbers(foldIn(key, stream), missing.length);
    missing = missing.filter((place, i) => {
      out[place] = drawn[i]!;
      return drawn[i]! < low || drawn[i]! > high;
    });
  }
  return tensor(encode(dtype, out), shape, dtype);
}

/** `count` numbers in [0, 1), multiples of 2^-32. */
export function threefryNumbers(key: Key, count: number): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => threefryReference(key[0], key[1], i) / 2 ** 32);
}

/** `count` standard normal numbers: sqrt(-2 log u) (cos, sin)(2 pi v), u in (0, 1], v in [0, 1). */
export function normalNumbers(key: Key, count: number): Float64Array {
  const out = new Float64Array(count);
  for (let i = 0; i < count; i += 2) {
    const u = (threefryReference(key[0], key[1], i) + 1) / 2 ** 32;
    const v = threefryReference(key[0], key[1], i + 1) / 2 ** 32;
    const radius = Math.sqrt(-2 * Math.log(u));
    out[i] = radius * Math.cos(2 * Math.PI * v);
    if (i + 1 < count) out[i + 1] = radius * Math.sin(2 * Math.PI * v);
  }
  return out;
}

/**
 * `x` with each element dropped with the given probability and the rest scaled by 1 / (1 - probability).
 * @throws RangeError unless the probability is in [0, 1)
 */
export function dropout(x: Tensor, probability: number, key: Key | Tensor): Tensor {
  if (!(probability >= 0 && probability < 1)) {
    throw new RangeError(`dropout: the probability must be in [0, 1); got ${probability}`);
  }
  if (probability === 0) return x;
  const kept = randomBernoulli(key, x.shape, 1 - probability);
  return where(kept, mul(x, 1 / (1 - probability)), 0);
}
