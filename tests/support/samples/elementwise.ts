/** Samples of the elementwise ops: one row per op. */
import { type DType, isFloat } from '@deftjs/tensor';
import fc from 'fast-check';
import {
  type InvalidSample,
  numbers,
  type OpSamples,
  type Range,
  type Sample,
  type SampleTensor,
  type Special,
  shapes,
  tensorOf,
  typesBut,
  valuesOf,
} from './sample.ts';

const wide: Range = { low: -4, high: 4 };
const inf = Number.POSITIVE_INFINITY;
const nan = Number.NaN;

/** Shifts that keep kinks and jumps (multiples of 1/16), and ties between operands, 1/64 away. */
const shifted = (range: Range, operand: number): Range => ({ ...range, shift: (2 * operand + 1) / 64 });

function wrapped(dtype: DType, value: number): number {
  return dtype === 'i32' ? value | 0 : dtype === 'u32' ? value >>> 0 : value;
}

interface Row {
  /** Types that the op refuses. */
  readonly refuses: readonly DType[];
  readonly message: string;
  /** One range for each operand. */
  readonly ranges: readonly Range[];
  readonly f: (...operands: number[]) => number;
  readonly special: readonly Special[];
  /** Extra care for the types that are not float. */
  readonly integer?: (...operands: number[]) => number;
}

function elementwise(row: Row): OpSamples<null> {
  const { ranges, refuses } = row;
  const sample = (smooth: boolean): fc.Arbitrary<Sample<null>> =>
    fc
      .tuple(
        shapes(smooth ? { most: 12, maxRank: 3 } : {}),
        smooth ? fc.constant<DType>('f32') : typesBut(...refuses),
      )
      .chain(([shape, dtype]) =>
        fc.tuple(...ranges.map((range, i) => valuesOf(shape, dtype, smooth ? shifted(range, i) : range))),
      )
      .map((inputs) => ({ inputs, attrs: null }));
  const expected = (inputs: readonly SampleTensor[]): number[] => {
    const { dtype, values } = inputs[0]!;
    const f = isFloat(dtype) ? row.f : (row.integer ?? row.f);
    return values.map((_, i) => wrapped(dtype, f(...inputs.map((x) => x.values[i]!))));
  };
  const arity = ranges.length;
  const invalid: InvalidSample[] = refuses.map((dtype) => ({
    inputs: Array.from({ length: arity }, () => ({ shape: [2], dtype })),
    attrs: null,
    error: 'DTypeError',
    message: `${row.message}; got ${dtype}`,
  }));
  if (arity === 2) {
    const dtype: DType = refuses.includes('f32') ? 'u32' : 'f32';
    invalid.push(
      {
        inputs: [
          { shape: [2], dtype },
          { shape: [3], dtype },
        ],
        attrs: null,
        error: 'ShapeError',
        message: 'internal: operands were not broadcast',
      },
      {
        inputs: [
          { shape: [2], dtype },
          { shape: [2], dtype: 'i32' },
        ],
        attrs: null,
        error: 'DTypeError',
        message: `operands must have one dtype (use cast); got ${dtype} and i32`,
      },
    );
  }
  const valid = sample(false);
  return {
    valid,
    smooth: refuses.includes('f32') ? valid : sample(true),
    expected,
    special: row.special,
    invalid,
  };
}

const notFloat: readonly DType[] = ['i32', 'u32', 'bool'];
const floatOnly = { refuses: notFloat, message: 'expected float' };
const numeric = { refuses: ['bool'] as const, message: 'expected numbers' };
const anyType = { refuses: [] as const, message: '' };
const bits = { refuses: ['f32', 'i32'] as const, message: 'expected u32 or bool' };
const shifts = { refuses: ['f32', 'i32', 'bool'] as const, message: 'expected u32' };
const of = (inputs: number[], output: number, dtype: Special['dtype'] = 'f32'): Special => ({
  dtype,
  inputs,
  output,
});

/** erf by Simpson's rule on its integral: 4000 steps, error below 1e-14 on [-4, 4]. */
function erfByQuadrature(x: number): number {
  const steps = 4000;
  const h = x / steps;
  let sum = 1 + Math.exp(-x * x);
  for (let i = 1; i < steps; i += 1) sum += (i % 2 === 0 ? 2 : 4) * Math.exp(-((i * h) ** 2));
  return ((2 / Math.sqrt(Math.PI)) * h * sum) / 3;
}

function halfToEven(x: number): number {
  const low = Math.floor(x);
  return x - low < 0.5 || (x - low === 0.5 && low % 2 === 0) ? low : low + 1;
}

const positive: Range = { low: 0.25, high: 4 };

const unary = {
  neg: elementwise({
    ...numeric,
    ranges: [wide],
    f: (x) => 0 - x,
    special: [of([inf], -inf), of([nan], nan)],
  }),
  abs: elementwise({
    ...numeric,
    ranges: [wide],
    f: (x) => (x < 0 ? -x : x),
    special: [of([-inf], inf), of([-(2 ** 31)], -(2 ** 31), 'i32')],
  }),
  sign: elementwise({
    ...numeric,
    ranges: [wide],
    f: (x) => Number(x > 0) - Number(x < 0),
    special: [of([inf], 1), of([-inf], -1), of([2 ** 32 - 1], 1, 'u32')],
  }),
  floor: elementwise({
    ...floatOnly,
    ranges: [wide],
    f: (x) => x - (((x % 1) + 1) % 1),
    special: [of([-0.5], -1)],
  }),
  ceil: elementwise({
    ...floatOnly,
    ranges: [wide],
    f: (x) => x + (((-x % 1) + 1) % 1),
    special: [of([0.5], 1)],
  }),
  round: elementwise({
    ...floatOnly,
    ranges: [wide],
    f: halfToEven,
    special: [of([0.5], 0), of([1.5], 2), of([2.5], 2), of([-1.5], -2), of([-2.5], -2)],
  }),
  exp: elementwise({
    ...floatOnly,
    ranges: [{ low: -3, high: 3 }],
    f: (x) => Math.E ** x,
    special: [of([0], 1), of([-inf], 0), of([inf], inf), of([nan], nan)],
  }),
  log: elementwise({
    ...floatOnly,
    ranges: [positive],
    f: (x) => Math.log2(x) * Math.LN2,
    special: [of([1], 0), of([0], -inf), of([-1], nan), of([inf], inf)],
  }),
  sqrt: elementwise({
    ...floatOnly,
    ranges: [positive],
    f: (x) => x ** 0.5,
    special: [of([0], 0), of([4], 2), of([-1], nan), of([inf], inf)],
  }),
  rsqrt: elementwise({
    ...floatOnly,
    ranges: [positive],
    f: (x) => x ** -0.5,
    special: [of([4], 0.5), of([0], inf), of([inf], 0)],
  }),
  reciprocal: elementwise({
    ...floatOnly,
    ranges: [positive],
    f: (x) => x ** -1,
    special: [of([-2], -0.5), of([0], inf), of([inf], 0)],
  }),
  sin: elementwise({
    ...floatOnly,
    ranges: [wide],
    f: (x) => Math.cos(x - Math.PI / 2),
    special: [of([0], 0)],
  }),
  cos: elementwise({
    ...floatOnly,
    ranges: [wide],
    f: (x) => Math.sin(x + Math.PI / 2),
    special: [of([0], 1)],
  }),
  tanh: elementwise({
    ...floatOnly,
    ranges: [wide],
    f: (x) => 1 - 2 / (Math.exp(2 * x) + 1),
    special: [of([0], 0), of([1000], 1), of([-1000], -1), of([inf], 1)],
  }),
  erf: elementwise({
    ...floatOnly,
    ranges: [wide],
    f: erfByQuadrature,
    special: [of([0], 0), of([inf], 1), of([-inf], -1), of([nan], nan)],
  }),
  not: elementwise({
    refuses: ['f32', 'i32', 'u32'],
    message: 'expected bool',
    ranges: [wide],
    f: (x) => (x === 0 ? 1 : 0),
    special: [],
  }),
} satisfies Record<string, OpSamples<null>>;

/** Low 32 bits of a product, without rounding. */
const product32 = (a: number, b: number): number => Number(BigInt.asIntN(32, BigInt(a) * BigInt(b)));

const truncated = (a: number, b: number): number => (b === 0 ? 0 : Number(BigInt(a) / BigInt(b)));

const powers = fc.constantFrom(-2, -1, -0.5, 0.5, 1, 2, 4);

const arithmetic = {
  add: elementwise({
    ...numeric,
    ranges: [wide, wide],
    f: (a, b) => a - -b,
    special: [of([inf, -inf], nan), of([2 ** 31 - 1, 1], -(2 ** 31), 'i32'), of([2 ** 32 - 1, 1], 0, 'u32')],
  }),
  sub: elementwise({
    ...numeric,
    ranges: [wide, wide],
    f: (a, b) => a + -b,
    special: [of([inf, inf], nan), of([-(2 ** 31), 1], 2 ** 31 - 1, 'i32'), of([0, 1], 2 ** 32 - 1, 'u32')],
  }),
  mul: elementwise({
    ...numeric,
    ranges: [wide, wide],
    f: (a, b) => a * b,
    integer: product32,
    special: [of([0, inf], nan), of([65537, 65537], 131073, 'i32'), of([65537, 65537], 131073, 'u32')],
  }),
  div: elementwise({
    ...numeric,
    ranges: [wide, positive],
    f: (a, b) => a * b ** -1,
    integer: truncated,
    special: [
      of([1, 0], inf),
      of([0, 0], nan),
      of([-7, 2], -3, 'i32'),
      of([7, 0], 0, ['i32', 'u32']),
      of([2 ** 32 - 1, 2], 2 ** 31 - 1, 'u32'),
      of([-(2 ** 31), -1], -(2 ** 31), 'i32'),
    ],
  }),
  // Divisors are powers of two and dividends odd multiples of 1/64: never a whole quotient, where mod jumps.
  mod: ((): OpSamples<null> => {
    const base = elementwise({
      ...numeric,
      ranges: [wide, positive],
      f: (a, b) => a - b * Math.trunc(a / b),
      integer: (a, b) => (b === 0 ? 0 : a - b * truncated(a, b)),
      special: [
        of([5, 3], 2),
        of([-5, 3], -2),
        of([5, -3], 2),
        of([-7, 3], -1, 'i32'),
        of([7, 0], 0, ['i32', 'u32']),
      ],
    });
    const smooth = shapes({ most: 12, maxRank: 3 }).chain((shape) =>
      fc.tuple(tensorOf(shape, 'f32', numbers(shifted(wide, 0))), tensorOf(shape, 'f32', powers)),
    );
    return { ...base, smooth: smooth.map((inputs) => ({ inputs, attrs: null })) };
  })(),
  maximum: elementwise({
    ...numeric,
    ranges: [wide, wide],
    f: (a, b) => (a + b + Math.abs(a - b)) / 2,
    special: [of([inf, 1], inf), of([-inf, 1], 1), of([-1, 2 ** 31 - 1], 2 ** 31 - 1, 'i32')],
  }),
  minimum: elementwise({
    ...numeric,
    ranges: [wide, wide],
    f: (a, b) => (a + b - Math.abs(a - b)) / 2,
    special: [of([inf, 1], 1), of([-inf, 1], -inf), of([0, 2 ** 32 - 1], 0, 'u32')],
  }),
  pow: elementwise({
    ...floatOnly,
    ranges: [positive, { low: -2, high: 2 }],
    f: (a, b) => Math.exp(b * Math.log(a)),
    special: [of([0, 0], 1), of([0, 2], 0), of([-2, 3], -8), of([-2, 0.5], nan), of([2, -1], 0.5)],
  }),
};

const comparisons = {
  less: elementwise({
    ...numeric,
    ranges: [wide, wide],
    f: (a, b) => (a >= b ? 0 : 1),
    special: [of([nan, 1], 0), of([-0, 0], 0), of([-1, 0], 1, 'i32'), of([2 ** 31, 1], 0, 'u32')],
  }),
  lessEqual: elementwise({
    ...numeric,
    ranges: [wide, wide],
    f: (a, b) => (a > b ? 0 : 1),
    special: [of([nan, nan], 0), of([-0, 0], 1), of([2 ** 31, 1], 0, 'u32')],
  }),
  equal: elementwise({
    ...anyType,
    ranges: [wide, wide],
    f: (a, b) => Number(!(a < b) && !(b < a)),
    special: [of([nan, nan], 0), of([-0, 0], 1), of([inf, inf], 1)],
  }),
  notEqual: elementwise({
    ...anyType,
    ranges: [wide, wide],
    f: (a, b) => Number(a < b || b < a),
    special: [of([nan, nan], 1), of([-0, 0], 0)],
  }),
};

/** A function of two words from one of two bits. */
const bitByBit =
  (f: (a: number, b: number) => number) =>
  (a: number, b: number): number =>
    Array.from(
      { length: 32 },
      (_, i) => f(Math.floor(a / 2 ** i) % 2, Math.floor(b / 2 ** i) % 2) * 2 ** i,
    ).reduce((sum, bit) => sum + bit, 0);

function shifting(f: (a: number, places: number) => number, special: readonly Special[]): OpSamples<null> {
  const base = elementwise({ ...shifts, ranges: [wide, wide], f, special });
  const places = fc.integer({ min: 0, max: 31 });
  const drawn = shapes().chain((shape) => fc.tuple(valuesOf(shape, 'u32'), tensorOf(shape, 'u32', places)));
  const valid = drawn.map((inputs) => ({ inputs, attrs: null }));
  return { ...base, valid, smooth: valid };
}

function bitwise(f: (a: number, b: number) => number): OpSamples<null> {
  return elementwise({ ...bits, ranges: [wide, wide], f: bitByBit(f), special: [] });
}

const bitOps = {
  and: bitwise((a, b) => a * b),
  or: bitwise((a, b) => a + b - a * b),
  xor: bitwise((a, b) => (a + b) % 2),
  shiftLeft: shifting((a, places) => (a * 2 ** places) % 2 ** 32, [of([3, 31], 2 ** 31, 'u32')]),
  shiftRight: shifting((a, places) => Math.floor(a / 2 ** places), [of([2 ** 32 - 1, 31], 1, 'u32')]),
};

const conditional: OpSamples<null> = (() => {
  const drawn = (smooth: boolean): fc.Arbitrary<Sample<null>> =>
    fc
      .tuple(shapes(smooth ? { most: 12, maxRank: 3 } : {}), smooth ? fc.constant<DType>('f32') : typesBut())
      .chain(([shape, dtype]) =>
        fc.tuple(valuesOf(shape, 'bool'), valuesOf(shape, dtype), valuesOf(shape, dtype)),
      )
      .map((inputs) => ({ inputs, attrs: null }));
  return {
    valid: drawn(false),
    smooth: drawn(true),
    expected: ([condition, yes, no]) => condition!.values.map((c, i) => (c ? yes : no)!.values[i]!),
    special: [],
    invalid: [
      {
        inputs: [
          { shape: [2], dtype: 'f32' },
          { shape: [2], dtype: 'f32' },
          { shape: [2], dtype: 'f32' },
        ],
        attrs: null,
        error: 'DTypeError',
        message: 'the condition must be bool; got f32',
      },
      {
        inputs: [
          { shape: [2], dtype: 'bool' },
          { shape: [2], dtype: 'f32' },
          { shape: [2], dtype: 'i32' },
        ],
        attrs: null,
        error: 'DTypeError',
        message: 'operands must have one dtype (use cast); got f32 and i32',
      },
      {
        inputs: [
          { shape: [2], dtype: 'bool' },
          { shape: [3], dtype: 'f32' },
          { shape: [3], dtype: 'f32' },
        ],
        attrs: null,
        error: 'ShapeError',
        message: 'internal: operands were not broadcast',
      },
    ],
  };
})();

const castTypes = fc.constantFrom<DType[]>('f32', 'i32', 'u32', 'bool');
const far = fc.constantFrom(-3e9, 3e9, -2.75, 2.75, -0.5, 6e9, 65504);

/** Rounds toward zero and stops at the ends of the type; integers keep their low 32 bits. */
function converted(from: DType, to: DType, value: number): number {
  if (isFloat(to)) return value;
  if (to === 'bool') return value === 0 ? 0 : 1;
  const whole = value < 0 ? Math.ceil(value) : Math.floor(value);
  const [low, high] = to === 'i32' ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
  if (isFloat(from)) return Math.max(low, Math.min(high, whole)) + 0;
  return wrapped(to, whole);
}

const casting: OpSamples<{ readonly dtype: DType }> = {
  valid: fc
    .tuple(shapes(), castTypes, castTypes)
    .chain(([shape, from, dtype]) =>
      fc
        .oneof(valuesOf(shape, from), from === 'f32' ? tensorOf(shape, 'f32', far) : valuesOf(shape, from))
        .map((x) => ({ inputs: [x], attrs: { dtype } })),
    ),
  smooth: fc
    .tuple(shapes({ most: 12 }), fc.constantFrom<DType[]>('f32', 'f16', 'f64'))
    .chain(([shape, dtype]) => valuesOf(shape, 'f32').map((x) => ({ inputs: [x], attrs: { dtype } }))),
  expected: ([x], { dtype }) => x!.values.map((value) => converted(x!.dtype, dtype, value)),
  special: [],
  invalid: [],
};

/** Threefry-2x32-20 of (x, 0) in big integers, from the paper's figure: rotate, mix, add the key schedule. */
export function threefry2x32(
  key: readonly [number, number],
  counter: readonly [number, number],
): [number, number] {
  const word = (value: bigint): bigint => BigInt.asUintN(32, value);
  const schedule = [...key.map(BigInt), BigInt(key[0]) ^ BigInt(key[1]) ^ 0x1bd11bdan];
  const rotate = (value: bigint, by: bigint): bigint => word((value << by) | (value >> (32n - by)));
  let [x0, x1] = counter.map((c, i) => word(BigInt(c) + schedule[i]!)) as [bigint, bigint];
  const amounts = [13n, 15n, 26n, 6n, 17n, 29n, 16n, 24n];
  for (let group = 0; group < 5; group += 1) {
    for (let round = 0; round < 4; round += 1) {
      x0 = word(x0 + x1);
      x1 = rotate(x1, amounts[(group % 2) * 4 + round]!) ^ x0;
    }
    x0 = word(x0 + schedule[(group + 1) % 3]!);
    x1 = word(x1 + schedule[(group + 2) % 3]! + BigInt(group + 1));
  }
  return [Number(x0), Number(x1)];
}

const random: OpSamples<null> = (() => {
  const drawn = shapes()
    .chain((shape) => fc.tuple(valuesOf(shape, 'u32'), valuesOf(shape, 'u32'), valuesOf(shape, 'u32')))
    .map((inputs) => ({ inputs, attrs: null }));
  return {
    valid: drawn,
    smooth: drawn,
    expected: ([key0, key1, counter]) =>
      counter!.values.map((x, i) => threefry2x32([key0!.values[i]!, key1!.values[i]!], [x, 0])[0]),
    special: [of([0, 0, 0], 0x6b200159, 'u32')],
    invalid: [
      {
        inputs: [
          { shape: [2], dtype: 'u32' },
          { shape: [2], dtype: 'u32' },
          { shape: [2], dtype: 'i32' },
        ],
        attrs: null,
        error: 'DTypeError',
        message: 'keys and counter must be u32',
      },
    ],
  };
})();

/** The bits of an f32 from its fraction and exponent, by arithmetic. */
function bitPattern(x: number): number {
  if (x === 0) return Object.is(x, -0) ? 2 ** 31 : 0;
  const exponent = Math.floor(Math.log2(Math.abs(x)));
  return (x < 0 ? 2 ** 31 : 0) + (exponent + 127) * 2 ** 23 + (Math.abs(x) / 2 ** exponent - 1) * 2 ** 23;
}

const bitsOfFloats: OpSamples<null> = {
  ...elementwise({
    ...floatOnly,
    ranges: [wide],
    f: bitPattern,
    special: [of([-0], 0x80000000), of([inf], 0x7f800000), of([-inf], 0xff800000), of([nan], 0x7fc00000)],
  }),
  expected: ([x]) => x!.values.map(bitPattern),
};

export const elementwiseSamples = {
  ...unary,
  ...arithmetic,
  ...comparisons,
  ...bitOps,
  where: conditional,
  cast: casting,
  bits: bitsOfFloats,
  threefry: random,
} satisfies Record<string, unknown>;
