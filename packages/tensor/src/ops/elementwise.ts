/**
 * Elementwise ops: y_i = f(a_i, b_i, ...). One row per op: name, meaning, derivatives.
 *
 * With diagonal Jacobians, vjp and jvp are the same products: dx_i = f'(x_i) dy_i. A rule that gives no factor is
 * constant almost everywhere (floor, comparisons): no cotangent flows.
 *
 * Operands broadcast (NumPy); a JavaScript number takes the dtype of the tensor beside it.
 */
import { type DType, isFloat, roundTo, sameDType, wrap } from '../dtype.ts';
import { DTypeError, ShapeError } from '../errors.ts';
import type { BinaryFunction, Scalar, UnaryFunction } from '../kernel.ts';
import type { Op } from '../op.ts';
import { broadcastShapes, type Shape, sameShape } from '../shape.ts';
import { apply, Tensor } from '../tensor.ts';
import { expand } from './expand.ts';
import { expectHolds, full } from './source.ts';

/** A tensor, or a number that stands for a tensor full of it. */
export type Operand = Tensor | number;

/** The operand over a shape that it broadcasts to; a number takes the dtype. */
function spread(op: string, operand: Operand, shape: Shape, dtype: DType): Tensor {
  if (operand instanceof Tensor) return expand(operand, shape);
  expectHolds(op, dtype, operand);
  return full(shape, operand, dtype);
}

/** The operands as tensors of one shape. @throws ShapeError, DTypeError */
function together(op: string, operands: readonly Operand[]): Tensor[] {
  const like = operands.find((operand) => operand instanceof Tensor);
  if (like === undefined) throw new DTypeError(`${op}: at least one operand must be a tensor`);
  const shape = broadcastShapes(
    op,
    operands.map((operand) => (operand instanceof Tensor ? operand.shape : [])),
  );
  return operands.map((operand) => spread(op, operand, shape, (like as Tensor).dtype));
}

function expectEqualShapes(op: string, inputs: readonly { shape: readonly number[] }[]): void {
  if (inputs.some(({ shape }) => !sameShape(shape, inputs[0]!.shape))) {
    throw new ShapeError(`${op}: internal: operands were not broadcast`);
  }
}

/** Sum of the given tangents; null when there is none. */
function total(terms: readonly (Tensor | null)[]): Tensor | null {
  return terms.reduce((sum, term) => (sum === null ? term : term === null ? sum : add(sum, term)), null);
}

type Kinds = 'float' | 'number' | 'bool' | 'any';

function expectKind(op: string, dtype: DType, kinds: Kinds): void {
  const fits =
    kinds === 'any' ||
    (kinds === 'float' ? isFloat(dtype) : kinds === 'bool' ? dtype === 'bool' : dtype !== 'bool');
  if (!fits) throw new DTypeError(`${op}: expected ${kinds === 'number' ? 'numbers' : kinds}; got ${dtype}`);
}

function unary(
  name: UnaryFunction,
  kinds: Kinds,
  f: (x: number) => number,
  factor: ((x: Tensor, y: Tensor) => Tensor) | null,
): Op<null> {
  const through = (d: Tensor, x: Tensor, y: Tensor): Tensor | null => factor && mul(d, factor(x, y));
  return {
    name,
    infer: ([x]) => {
      expectKind(name, x!.dtype, kinds);
      return { shape: x!.shape, dtype: x!.dtype };
    },
    reference: ([x]) => x!.data.map((value) => wrap(x!.dtype, f(value))),
    lower: { kind: 'elementwise', expr: ([x], _attrs, type) => ({ kind: 'unary', type, op: name, x: x! }) },
    vjp: (dy, { inputs, output }) => [through(dy, inputs[0]!, output)],
    jvp: ([dx], { inputs, output }) => through(dx!, inputs[0]!, output),
  };
}

/** Half to even, as WGSL, wasm and IEEE 754 round. */
function roundHalfEven(x: number): number {
  const nearest = Math.round(x);
  return nearest - x === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
}

/**
 * erf by 2/sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (1 3 5 ... (2n+1)), whose terms do not cancel (|x| < 3), else 1 - erfc
 * by its continued fraction: a few units in the last place of float64.
 */
export function erfReference(x: number): number {
  const a = Math.abs(x);
  if (Number.isNaN(x)) return x;
  if (a < 3) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n += 1) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  if (a > 6) return Math.sign(x);
  let fraction = 0; // erfc(a) = exp(-a^2) / sqrt(pi) * 1/(a + (1/2)/(a + 1/(a + (3/2)/(a + ...))))
  for (let n = 60; n >= 1; n -= 1) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + fraction));
}

export const negOp = unary(
  'neg',
  'number',
  (x) => -x,
  (x) => full(x.shape, -1, x.dtype),
);
export const absOp = unary('abs', 'number', Math.abs, (x) => sign(x));
export const signOp = unary('sign', 'number', Math.sign, null);
export const floorOp = unary('floor', 'float', Math.floor, null);
export const ceilOp = unary('ceil', 'float', Math.ceil, null);
export const roundOp = unary('round', 'float', roundHalfEven, null);
export const expOp = unary('exp', 'float', Math.exp, (_x, y) => y);
export const logOp = unary('log', 'float', Math.log, (x) => reciprocal(x));
export const sqrtOp = unary('sqrt', 'float', Math.sqrt, (_x, y) => div(0.5, y));
export const rsqrtOp = unary(
  'rsqrt',
  'float',
  (x) => 1 / Math.sqrt(x),
  (x, y) => mul(-0.5, div(y, x)),
);
export const reciprocalOp = unary(
  'reciprocal',
  'float',
  (x) => 1 / x,
  (_x, y) => neg(mul(y, y)),
);
export const sinOp = unary('sin', 'float', Math.sin, (x) => cos(x));
export const cosOp = unary('cos', 'float', Math.cos, (x) => neg(sin(x)));
export const tanhOp = unary('tanh', 'float', Math.tanh, (_x, y) => sub(1, mul(y, y)));
export const erfOp = unary('erf', 'float', erfReference, (x) =>
  mul(2 / Math.sqrt(Math.PI), exp(neg(mul(x, x)))),
);
export const notOp = unary('not', 'bool', (x) => 1 - x, null);

/** Partial derivatives of f(a, b); null where f is piecewise constant. */
type Partials = ((a: Tensor, b: Tensor, y: Tensor) => readonly [a: () => Tensor, b: () => Tensor]) | null;

function binary(
  name: string,
  kinds: Kinds,
  f: (a: number, b: number, dtype: DType) => number,
  partials: Partials,
  result: DType | 'same' = 'same',
  kernel: BinaryFunction = name as BinaryFunction,
): Op<null> {
  return {
    name,
    infer: (inputs) => {
      expectEqualShapes(name, inputs);
      const dtype = sameDType(name, [inputs[0]!.dtype, inputs[1]!.dtype]);
      expectKind(name, dtype, kinds);
      return { shape: inputs[0]!.shape, dtype: result === 'same' ? dtype : result };
    },
    reference: ([a, b]) => a!.data.map((value, i) => wrap(a!.dtype, Number(f(value, b!.data[i]!, a!.dtype)))),
    lower: {
      kind: 'elementwise',
      expr: ([x, y], _attrs, type) => ({ kind: 'binary', type, op: kernel, x: x!, y: y! }),
    },
    vjp: (dy, { inputs: [a, b], output }) => {
      const by = partials?.(a!, b!, output);
      return by === undefined ? [null, null] : [mul(dy, by[0]()), mul(dy, by[1]())];
    },
    jvp: ([da, db], { inputs: [a, b], output }) => {
      const by = partials?.(a!, b!, output);
      return by === undefined ? null : total([da ? mul(da, by[0]()) : null, db ? mul(db, by[1]()) : null]);
    },
  };
}

const ones = (like: Tensor): Tensor => full(like.shape, 1, like.dtype);

/** 1 where a wins, 1/2 at ties, 0 elsewhere: the derivative of max(a, b) in a, and of min with a and b swapped. */
function winner(a: Tensor, b: Tensor): Tensor {
  return add(cast(less(b, a), a.dtype), mul(0.5, cast(equal(a, b), a.dtype)));
}

export const addOp = binary(
  'add',
  'number',
  (a, b) => a + b,
  (a) => [() => ones(a), () => ones(a)],
);
export const subOp = binary(
  'sub',
  'number',
  (a, b) => a - b,
  (a) => [() => ones(a), () => neg(ones(a))],
);
export const mulOp = binary(
  'mul',
  'number',
  (a, b, dtype) => (isFloat(dtype) ? a * b : Math.imul(a, b)),
  (a, b) => [() => b, () => a],
);
export const divOp = binary(
  'div',
  'number',
  (a, b, dtype) => (isFloat(dtype) ? a / b : b === 0 ? 0 : Math.trunc(a / b)),
  (_a, b, y) => [() => reciprocal(b), () => neg(div(y, b))],
);
export const modOp = binary(
  'mod',
  'number',
  (a, b, dtype) => (isFloat(dtype) || b !== 0 ? a % b : 0),
  (a, b) => [() => ones(a), () => neg(truncate(div(a, b)))],
);
export const maximumOp = binary(
  'maximum',
  'number',
  (a, b) => Math.max(a, b),
  (a, b) => [() => winner(a, b), () => winner(b, a)],
  'same',
  'max',
);
export const minimumOp = binary(
  'minimum',
  'number',
  (a, b) => Math.min(a, b),
  (a, b) => [() => winner(b, a), () => winner(a, b)],
  'same',
  'min',
);
// The derivative in the exponent is 0 where the base is not positive, as in PyTorch and JAX at base 0. The one in the
// base is 0 at 0^0: an exponent of 1 there keeps 0 * 0^-1 = NaN away, in higher derivatives too.
export const powOp = binary(
  'pow',
  'float',
  (a, b) => a ** b,
  (a, b, y) => [
    () => mul(b, pow(a, where(and(equal(a, 0), equal(b, 0)), 1, sub(b, 1)))),
    () => where(less(0, a), mul(y, log(where(less(0, a), a, ones(a)))), full(a.shape, 0, a.dtype)),
  ],
);
export const lessOp = binary('less', 'number', (a, b) => Number(a < b), null, 'bool');
export const lessEqualOp = binary('lessEqual', 'number', (a, b) => Number(a <= b), null, 'bool');
export const equalOp = binary('equal', 'any', (a, b) => Number(a === b), null, 'bool');
export const notEqualOp = binary('notEqual', 'any', (a, b) => Number(a !== b), null, 'bool');

function bitwise(
  name: 'and' | 'or' | 'xor' | 'shiftLeft' | 'shiftRight',
  f: (a: number, b: number) => number,
): Op<null> {
  const op = binary(name, 'any', f, null);
  const shifts = name === 'shiftLeft' || name === 'shiftRight';
  return {
    ...op,
    infer: (inputs, attrs) => {
      const dtype = inputs[0]!.dtype;
      if (dtype !== 'u32' && (shifts || dtype !== 'bool')) {
        throw new DTypeError(`${name}: expected u32${shifts ? '' : ' or bool'}; got ${dtype}`);
      }
      return op.infer(inputs, attrs);
    },
  };
}

export const andOp = bitwise('and', (a, b) => (a & b) >>> 0);
export const orOp = bitwise('or', (a, b) => (a | b) >>> 0);
export const xorOp = bitwise('xor', (a, b) => (a ^ b) >>> 0);
export const shiftLeftOp = bitwise('shiftLeft', (a, b) => (a << b) >>> 0);
export const shiftRightOp = bitwise('shiftRight', (a, b) => a >>> b);

/** where(condition, yes, no): the cotangent goes to the side that was taken. */
export const whereOp: Op<null> = {
  name: 'where',
  infer: ([condition, yes, no]) => {
    if (condition!.dtype !== 'bool')
      throw new DTypeError(`where: the condition must be bool; got ${condition!.dtype}`);
    expectEqualShapes('where', [condition!, yes!, no!]);
    return { shape: yes!.shape, dtype: sameDType('where', [yes!.dtype, no!.dtype]) };
  },
  reference: ([condition, yes, no]) => condition!.data.map((c, i) => (c === 0 ? no : yes)!.data[i]!),
  lower: {
    kind: 'elementwise',
    expr: ([condition, yes, no], _attrs, type) => ({
      kind: 'select',
      type,
      condition: condition!,
      yes: yes!,
      no: no!,
    }),
  },
  vjp: (dy, { inputs: [condition] }) => {
    const zero = full(dy.shape, 0, dy.dtype);
    return [null, where(condition!, dy, zero), where(condition!, zero, dy)];
  },
  jvp: ([, dyes, dno], { inputs: [condition], output }) => {
    if (!dyes && !dno) return null;
    const zero = full(output.shape, 0, output.dtype);
    return where(condition!, dyes ?? zero, dno ?? zero);
  },
};

/** Cotangents pass between float types; integers and booleans have none. */
export const castOp: Op<{ readonly dtype: DType }> = {
  name: 'cast',
  infer: ([x], { dtype }) => ({ shape: x!.shape, dtype }),
  reference: ([x], { dtype }) => {
    const reinterprets = !isFloat(x!.dtype) && dtype !== 'bool';
    return x!.data.map((value) =>
      isFloat(dtype) ? value : reinterprets ? wrap(dtype, value) : roundTo(dtype, value),
    );
  },
  lower: { kind: 'elementwise', expr: ([x], _attrs, type) => ({ kind: 'cast', type, x: x! }) },
  vjp: (dy, { inputs: [x], attrs: { dtype } }) => [
    isFloat(x!.dtype) && isFloat(dtype) ? cast(dy, x!.dtype) : null,
  ],
  jvp: ([dx], { attrs: { dtype } }) => (dx && isFloat(dtype) ? cast(dx, dtype) : null),
};

const rotations = [13, 15, 26, 6, 17, 29, 16, 24] as const;

/**
 * First word of Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
 * of the counter (x, 0) under the key (key0, key1).
 */
export function threefryReference(key0: number, key1: number, x: number): number {
  const key = [key0, key1, (key0 ^ key1 ^ 0x1bd11bda) >>> 0];
  let a = (x + key[0]!) >>> 0;
  let b = key[1]! >>> 0;
  for (let round = 0; round < 20; round += 1) {
    a = (a + b) >>> 0;
    const r = rotations[round % 8]!;
    b = (((b << r) | (b >>> (32 - r))) ^ a) >>> 0;
    if (round % 4 === 3) {
      const injection = (round + 1) / 4;
      a = (a + key[injection % 3]!) >>> 0;
      b = (b + key[(injection + 1) % 3]! + injection) >>> 0;
    }
  }
  return a;
}

export const threefryOp: Op<null> = {
  name: 'threefry',
  infer: (inputs) => {
    expectEqualShapes('threefry', inputs);
    if (inputs.some(({ dtype }) => dtype !== 'u32'))
      throw new DTypeError('threefry: keys and counter must be u32');
    return { shape: inputs[0]!.shape, dtype: 'u32' };
  },
  reference: ([key0, key1, counter]) =>
    counter!.data.map((x, i) => threefryReference(key0!.data[i]!, key1!.data[i]!, x)),
  lower: {
    kind: 'elementwise',
    expr: ([key0, key1, counter]) => ({
      kind: 'threefry',
      type: 'u32',
      key0: key0!,
      key1: key1!,
      counter: counter!,
    }),
  },
  vjp: () => [null, null, null],
  jvp: () => null,
};

const one = (op: Op<null>) => (x: Tensor) => apply(op, [x], null);
const two = (op: Op<null>) => (a: Operand, b: Operand) => apply(op, together(op.name, [a, b]), null);
type Unary = (x: Tensor) => Tensor;
type Binary = (a: Operand, b: Operand) => Tensor;

/** -x. */
export const neg: Unary = one(negOp);
/** |x|; its derivative at 0 is 0. */
export const abs: Unary = one(absOp);
/** -1, 0 or 1. */
export const sign: Unary = one(signOp);
/** The largest whole number <= x. */
export const floor: Unary = one(floorOp);
/** The smallest whole number >= x. */
export const ceil: Unary = one(ceilOp);
/** The nearest whole number, half to even. */
export const round: Unary = one(roundOp);
/** e^x. */
export const exp: Unary = one(expOp);
/** The natural logarithm; -Infinity at 0, NaN below. */
export const log: Unary = one(logOp);
/** The square root; NaN below 0. */
export const sqrt: Unary = one(sqrtOp);
/** 1 / sqrt(x). */
export const rsqrt: Unary = one(rsqrtOp);
/** 1 / x. */
export const reciprocal: Unary = one(reciprocalOp);
/** The sine of x radians. */
export const sin: Unary = one(sinOp);
/** The cosine of x radians. */
export const cos: Unary = one(cosOp);
/** The hyperbolic tangent; exact limits for large |x|, never NaN from a finite x. */
export const tanh: Unary = one(tanhOp);
/** The error function 2/sqrt(pi) * integral from 0 to x of exp(-t^2). */
export const erf: Unary = one(erfOp);
/** Not x, for booleans. */
export const logicalNot: Unary = one(notOp);
/** a + b. Integers wrap at 32 bits in add, sub and mul. */
export const add: Binary = two(addOp);
/** a - b. */
export const sub: Binary = two(subOp);
/** a * b. */
export const mul: Binary = two(mulOp);
/** a / b; integers truncate toward zero, and x / 0 is 0 for them. */
export const div: Binary = two(divOp);
/** The remainder with the sign of a, as in JavaScript and WGSL; 0 for integers when b is 0. */
export const mod: Binary = two(modOp);
/** The larger of a and b; at ties each takes half the derivative. */
export const maximum: Binary = two(maximumOp);
/** The smaller of a and b; at ties each takes half the derivative. */
export const minimum: Binary = two(minimumOp);
/** a^b for floats; NaN for a negative base and a broken exponent. */
export const pow: Binary = two(powOp);
/** a < b. */
export const less: Binary = two(lessOp);
/** a <= b. */
export const lessEqual: Binary = two(lessEqualOp);
/** a > b. */
export const greater: Binary = (a, b) => less(b, a);
/** a >= b. */
export const greaterEqual: Binary = (a, b) => lessEqual(b, a);
/** a = b. */
export const equal: Binary = two(equalOp);
/** a != b. */
export const notEqual: Binary = two(notEqualOp);
/** a and b: of booleans, or bit by bit of u32. */
export const and: Binary = two(andOp);
/** a or b: of booleans, or bit by bit of u32. */
export const or: Binary = two(orOp);
/** Either a or b: of booleans, or bit by bit of u32. */
export const xor: Binary = two(xorOp);
/** The bits of a moved up by b places (b < 32), u32. */
export const shiftLeft: Binary = two(shiftLeftOp);
/** The bits of a moved down by b places (b < 32), u32. */
export const shiftRight: Binary = two(shiftRightOp);

/**
 * `yes` where the condition holds, `no` elsewhere; all three broadcast. Both sides are computed. A number takes the
 * dtype of the other side; two numbers are f32.
 * @throws ShapeError, DTypeError
 */
export function where(condition: Tensor, yes: Operand, no: Operand): Tensor {
  const dtype = yes instanceof Tensor ? yes.dtype : no instanceof Tensor ? no.dtype : 'f32';
  const shape = broadcastShapes(
    'where',
    [condition, yes, no].map((x) => (x instanceof Tensor ? x.shape : [])),
  );
  const sides = [yes, no].map((x) => spread('where', x, shape, dtype));
  return apply(whereOp, [expand(condition, shape), ...sides], null);
}

/**
 * `x` in another dtype. Floats truncate to integers and saturate, NaN becomes 0; i32 and u32 keep their bits;
 * anything but 0 is true, NaN too.
 */
export function cast(x: Tensor, dtype: DType): Tensor {
  return x.dtype === dtype ? x : apply(castOp, [x], { dtype });
}

/** The whole part: rounded toward zero. */
export function truncate(x: Tensor): Tensor {
  return mul(sign(x), floor(abs(x)));
}

/** x * x. */
export function square(x: Tensor): Tensor {
  return mul(x, x);
}

/**
 * `x` held within [low, high]; the derivative is 1 inside and 0 outside, 1/2 on the bounds.
 * @throws RangeError when low > high
 */
export function clamp(x: Tensor, low: number, high: number): Tensor {
  if (!(low <= high)) throw new RangeError(`clamp: expected low <= high; got ${low} and ${high}`);
  return minimum(maximum(x, low), high);
}

/** 32 random bits for each counter under a key of two u32 words: the same on every device. */
export function threefry(key0: Operand, key1: Operand, counter: Tensor): Tensor {
  return apply(threefryOp, together('threefry', [key0, key1, counter]), null);
}

/** The register type that kernels compute a dtype in. */
export function scalarOf(dtype: DType): Scalar {
  if (dtype === 'f64') throw new DTypeError('kernels: f64 exists on the reference device only');
  return dtype === 'f16' ? 'f32' : dtype;
}
