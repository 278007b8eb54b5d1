/** What an op sample is, and the arbitraries that samples are drawn from. */
import type { DType, HostArray, Op, Shape } from '@deftjs/tensor';
import { decode, encode, isFloat, numel, type Tensor, tensor } from '@deftjs/tensor';
import fc from 'fast-check';

/** A tensor's values as plain numbers, row-major: prints as a literal. */
export interface SampleTensor {
  readonly shape: Shape;
  readonly dtype: DType;
  readonly values: readonly number[];
}

/** Inputs and attributes that an op takes. */
export interface Sample<Attrs = unknown> {
  readonly inputs: readonly SampleTensor[];
  readonly attrs: Attrs;
}

/** Inputs and attributes that an op must refuse, and what it must say (after its name and ": "). */
export interface InvalidSample {
  readonly inputs: readonly { readonly shape: Shape; readonly dtype: DType }[];
  readonly attrs: unknown;
  readonly error: 'ShapeError' | 'DTypeError';
  readonly message: string;
}

/** Everything that tests know about one op. */
export interface OpSamples<Attrs = unknown> {
  /**
   * All kinds of inputs that the op takes: ties, zeros, extents 0 and 1, every dtype. Floats are f32 with values that
   * f16 holds exactly (`withFloats` changes the type).
   */
  readonly valid: fc.Arbitrary<Sample<Attrs>>;
  /** Floats at least 1/64 away from every place where the op has no derivative, kinks and jumps, few elements. */
  readonly smooth: fc.Arbitrary<Sample<Attrs>>;
  /** What comes out, in other words than the op's own reference. */
  expected(inputs: readonly SampleTensor[], attrs: Attrs): readonly number[];
  /** Input values and the exact value that comes out: signed zeros, infinities, NaN, wrapping. Elementwise ops only. */
  readonly special: readonly Special[];
  readonly invalid: readonly InvalidSample[];
}

export interface Special {
  readonly dtype: DType | readonly DType[];
  readonly inputs: readonly number[];
  readonly output: number;
}

/** The same sample with its floats in another type. */
export function withFloats(sample: Sample, dtype: DType): Sample {
  return {
    ...sample,
    inputs: sample.inputs.map((x) => (isFloat(x.dtype) ? { ...x, dtype } : x)),
  };
}

/** The sample as a leaf. */
export function leaf({ shape, dtype, values }: SampleTensor): Tensor {
  return tensor(encode(dtype, values), shape, dtype);
}

/** A sample as the code that makes and runs it, ready to paste. */
export function reproduction(op: Op<never>, { inputs, attrs }: Sample): string {
  const leaves = inputs.map(
    ({ shape, dtype, values }) =>
      `leaf({ shape: ${JSON.stringify(shape)}, dtype: '${dtype}', values: [${values.map(printed).join(', ')}] })`,
  );
  return `apply(ops.find(({ name }) => name === '${op.name}')!, [${leaves.join(', ')}], ${JSON.stringify(attrs)})`;
}

function printed(value: number): string {
  return Object.is(value, -0) ? '-0' : String(value);
}

/** Numbers as a device stores them. */
export function stored(dtype: DType, values: readonly number[]): number[] {
  return [...decode(dtype, encode(dtype, values) as HostArray)];
}

/** Shapes of rank 0 ... maxRank with extents 0, 1, 2, 3, 5 and at most `most` elements. */
export function shapes(options: { minRank?: number; maxRank?: number; most?: number; empty?: boolean } = {}) {
  const { minRank = 0, maxRank = 4, most = 60, empty = true } = options;
  const extents = empty ? fc.constantFrom(1, 2, 3, 5, 2, 3, 2, 3, 0) : fc.constantFrom(1, 2, 3, 5);
  return fc.array(extents, { minLength: minRank, maxLength: maxRank }).map((drawn) => {
    let count = 1;
    return drawn.map((extent) => {
      const kept = count * extent > most ? 1 : extent;
      count *= kept;
      return kept;
    });
  });
}

/** Multiples of `unit` in [low, high] shifted by `shift`: exact in f16 for the ranges used here. */
export interface Range {
  readonly low: number;
  readonly high: number;
  readonly unit?: number;
  readonly shift?: number;
}

/** One number of a range. */
export function numbers({ low, high, unit = 1 / 16, shift = 0 }: Range): fc.Arbitrary<number> {
  return fc
    .integer({ min: Math.ceil(low / unit), max: Math.floor(high / unit) })
    .map((count) => count * unit + shift + 0);
}

/** Floats of a shape. */
export function floats(shape: Shape, range: Range = { low: -2, high: 2 }): fc.Arbitrary<SampleTensor> {
  return tensorOf(shape, 'f32', numbers(range));
}

/** A tensor whose values are drawn one by one. */
export function tensorOf(
  shape: Shape,
  dtype: DType,
  value: fc.Arbitrary<number>,
): fc.Arbitrary<SampleTensor> {
  const count = numel(shape);
  return fc.array(value, { minLength: count, maxLength: count }).map((values) => ({ shape, dtype, values }));
}

/** Floats of a shape, no two of which are closer than 1/8. */
export function distinct(shape: Shape): fc.Arbitrary<SampleTensor> {
  const count = numel(shape);
  const all = Array.from({ length: count }, (_, i) => (i - Math.floor(count / 2)) / 8);
  return fc
    .shuffledSubarray(all, { minLength: count, maxLength: count })
    .map((values) => ({ shape, dtype: 'f32' as const, values }));
}

const integers: Readonly<Record<'i32' | 'u32' | 'bool', fc.Arbitrary<number>>> = {
  i32: fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: -8, max: 8 }) },
    { weight: 1, arbitrary: fc.constantFrom(-(2 ** 31), 2 ** 31 - 1, 65537) },
  ),
  u32: fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 0, max: 16 }) },
    { weight: 1, arbitrary: fc.constantFrom(2 ** 32 - 1, 2 ** 31, 65537) },
  ),
  bool: fc.integer({ min: 0, max: 1 }),
};

/** Values of any type from a shape: integers include the ends of their range. */
export function valuesOf(shape: Shape, dtype: DType, range?: Range): fc.Arbitrary<SampleTensor> {
  return dtype === 'i32' || dtype === 'u32' || dtype === 'bool'
    ? tensorOf(shape, dtype, integers[dtype])
    : tensorOf(shape, dtype, numbers(range ?? { low: -2, high: 2 }));
}

/** One of the types that is not left out; half of the draws are f32 where it may be. */
export function typesBut(...without: readonly DType[]): fc.Arbitrary<DType> {
  const types = (['f32', 'f32', 'f32', 'i32', 'u32', 'bool'] as const).filter(
    (dtype) => !without.includes(dtype),
  );
  return fc.constantFrom<DType[]>(...types);
}

/** Every index of a shape, row-major. */
export function indices(shape: Shape): number[][] {
  return shape.reduce<number[][]>(
    (prefixes, extent) =>
      prefixes.flatMap((prefix) => Array.from({ length: extent }, (_, i) => [...prefix, i])),
    [[]],
  );
}

/** The values of a tensor given by a function of the index. */
export function tabulate(shape: Shape, value: (index: readonly number[]) => number): number[] {
  return indices(shape).map(value);
}

/** The element at an index. */
export function at({ shape, values }: SampleTensor, index: readonly number[]): number {
  return values[index.reduce((place, i, axis) => place * shape[axis]! + i, 0)]!;
}
