/**
 * Element types.
 *
 *   f32   the working type            f16   storage only: kernels compute in f32
 *   f64   reference backend only      i32, u32   indices, counters, random bits (wrapping arithmetic)
 *   bool  0 or 1, stored in 32 bits
 *
 * Nothing is promoted silently, with one exception: a JavaScript number beside a tensor takes the tensor's type.
 */
import { DTypeError } from './errors.ts';

export type DType = 'f32' | 'f16' | 'f64' | 'i32' | 'u32' | 'bool';

/** The arrays that carry values to and from the host. f16 travels as its bit pattern. */
export type HostArray = Float32Array | Float64Array | Int32Array | Uint32Array | Uint16Array;

export const dtypes: readonly DType[] = ['f32', 'f16', 'f64', 'i32', 'u32', 'bool'];

const sizes: Readonly<Record<DType, number>> = { f32: 4, f16: 2, f64: 8, i32: 4, u32: 4, bool: 4 };

/** Bytes of one stored element. */
export function bytesPerElement(dtype: DType): number {
  return sizes[dtype];
}

/** Whether the type is one that derivatives exist for. */
export function isFloat(dtype: DType): boolean {
  return dtype === 'f32' || dtype === 'f16' || dtype === 'f64';
}

/** A zeroed host array that stores `length` elements of the type. */
export function hostArray(dtype: DType, length: number): HostArray {
  switch (dtype) {
    case 'f32':
      return new Float32Array(length);
    case 'f64':
      return new Float64Array(length);
    case 'f16':
      return new Uint16Array(length);
    case 'i32':
      return new Int32Array(length);
    case 'u32':
    case 'bool':
      return new Uint32Array(length);
  }
}

/** The type a host array is taken for when none is given. */
export function dtypeOfArray(array: HostArray): DType {
  if (array instanceof Float32Array) return 'f32';
  if (array instanceof Float64Array) return 'f64';
  if (array instanceof Int32Array) return 'i32';
  if (array instanceof Uint32Array) return 'u32';
  return 'f16';
}

/**
 * The one type of all operands.
 * @throws DTypeError when they differ
 */
export function sameDType(op: string, types: readonly DType[]): DType {
  const first = types[0]!;
  if (types.some((type) => type !== first)) {
    throw new DTypeError(`${op}: operands must have one dtype (use cast); got ${types.join(' and ')}`);
  }
  return first;
}

const scratch = new DataView(new ArrayBuffer(8));

/** A number rounded to the nearest half-precision number (ties to even), as its 16 bits. */
export function toHalfBits(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = Math.abs(value);
  if (Number.isNaN(value)) return sign | 0x7e00;
  if (magnitude >= 65520) return sign | 0x7c00; // rounds to infinity
  if (magnitude < 2 ** -14) return sign | roundHalfEven(magnitude * 2 ** 24); // subnormal: units of 2^-24
  const exponent = ((bits >>> 23) & 0xff) - 127;
  const mantissa = roundHalfEven((magnitude / 2 ** exponent - 1) * 1024);
  return sign | (((exponent + 15) << 10) + mantissa); // a mantissa of 1024 carries into the exponent
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** The number that 16 bits of half precision stand for. */
export function fromHalfBits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** `toHalfBits` of every value, by integer arithmetic: files hold hundreds of millions. */
export function halvesOf(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i += 1) {
    const word = words[i]!;
    const sign = (word >>> 16) & 0x8000;
    const magnitude = word & 0x7fffffff;
    if (magnitude > 0x7f800000) halves[i] = sign | 0x7e00;
    else if (magnitude >= 0x47800000) halves[i] = sign | 0x7c00;
    else if (magnitude >= 0x38800000) {
      // Exponents are 112 apart; half of what 13 bits hold, less where that is a tie and the result even, rounds. A
      // mantissa that overflows carries into the exponent, and from 65,504 on into infinity.
      const rebased = magnitude - 0x38000000;
      halves[i] = sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
    } else halves[i] = sign | roundHalfEven(Math.abs(values[i]!) * 2 ** 24); // subnormal: units of 2^-24
  }
  return halves;
}

let numberOfBits: Float32Array | undefined;

/** `fromHalfBits` of every element. */
export function floatsOf(halves: Uint16Array): Float32Array {
  numberOfBits ??= Float32Array.from({ length: 2 ** 16 }, (_, bits) => fromHalfBits(bits));
  const values = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i += 1) values[i] = numberOfBits[halves[i]!]!;
  return values;
}

/** @throws DTypeError for bool */
export function expectNumbers(op: string, dtype: DType): void {
  if (dtype === 'bool') throw new DTypeError(`${op}: expected numbers; got bool`);
}

/** The result of integer arithmetic: its low 32 bits; numbers of other types stay as they are. */
export function wrap(dtype: DType, value: number): number {
  return dtype === 'i32' ? value | 0 : dtype === 'u32' ? value >>> 0 : value;
}

/** A number as the type stores it: rounded to f32 or f16, truncated and saturated to an integer, or 0 and 1. */
export function roundTo(dtype: DType, value: number): number {
  switch (dtype) {
    case 'f32':
      return Math.fround(value);
    case 'f16':
      return fromHalfBits(toHalfBits(value));
    case 'f64':
      return value;
    case 'i32':
      return saturate(value, -(2 ** 31), 2 ** 31 - 1);
    case 'u32':
      return saturate(value, 0, 2 ** 32 - 1);
    case 'bool':
      return value === 0 ? 0 : 1;
  }
}

// Float to integer truncates and saturates; NaN gives 0: what wasm's trunc_sat does, and WGSL within the range.
function saturate(value: number, low: number, high: number): number {
  return Number.isNaN(value) ? 0 : Math.min(high, Math.max(low, Math.trunc(value)));
}

/** Stored elements as numbers. */
export function decode(dtype: DType, stored: HostArray): Float64Array {
  return dtype === 'f16' ? Float64Array.from(stored, fromHalfBits) : Float64Array.from(stored);
}

/** Numbers as stored elements. */
export function encode(dtype: DType, values: ArrayLike<number>): HostArray {
  const stored = hostArray(dtype, values.length);
  for (let i = 0; i < values.length; i += 1) {
    const value = roundTo(dtype, values[i]!);
    stored[i] = dtype === 'f16' ? toHalfBits(value) : value;
  }
  return stored;
}
