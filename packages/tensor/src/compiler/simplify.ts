/**
 * Algebra on expressions that is exact in floats for every operand: signed zeros, infinities and NaN included.
 *
 * So x + 0 stays (it turns -0 into 0), and so does 0 * x (it is NaN at infinity), while x - 0, 1 * x and x / 1 go. Integers wrap at 32 bits.
 */
import { roundTo } from '../dtype.ts';
import type { BinaryFunction, Expr, Scalar, UnaryFunction } from '../kernel.ts';
import type { Shape } from '../shape.ts';
import { type Guard, rangeOf } from '../view.ts';

type ExprOf<Kind extends Expr['kind']> = Extract<Expr, { kind: Kind }>;

function constant(type: Scalar, value: number): Expr {
  return { kind: 'constant', type, value };
}

function isConstant(expr: Expr, value: number): boolean {
  return expr.kind === 'constant' && Object.is(expr.value, value);
}

/** Whether no index of the shape passes the guard. */
export function neverInside(guard: Guard, shape: Shape): boolean {
  const { low, high } = rangeOf(guard, shape);
  return high < 0 || low >= guard.limit;
}

/** An equal expression that is no larger; the operands are taken as simple already. */
export function simplify(expr: Expr): Expr {
  switch (expr.kind) {
    case 'load':
      return expr.view.guards.some((guard) => neverInside(guard, expr.view.shape))
        ? constant(expr.type, 0)
        : expr;
    case 'coordinate':
      return expr.strides.every((stride) => stride === 0) ? constant(expr.type, expr.offset) : expr;
    case 'inside':
      return expr.guards.length === 0 ? constant('bool', 1) : expr;
    case 'unary':
      return simplifyUnary(expr);
    case 'binary':
      return simplifyBinary(expr);
    case 'cast':
      return simplifyCast(expr);
    case 'select':
      if (expr.condition.kind === 'constant') return expr.condition.value === 0 ? expr.no : expr.yes;
      return expr.yes === expr.no ? expr.yes : expr;
    default:
      return expr;
  }
}

function simplifyUnary(expr: ExprOf<'unary'>): Expr {
  const { op, type, x } = expr;
  const f = unaryFunctions[op];
  if (x.kind === 'constant' && f) return constant(type, register(type, f(x.value)));
  const inverse = op === 'neg' || op === 'not';
  return inverse && x.kind === 'unary' && x.op === op ? x.x : expr;
}

function simplifyBinary(expr: ExprOf<'binary'>): Expr {
  const { op, type, x, y } = expr;
  if (x.kind === 'constant' && y.kind === 'constant') {
    return constant(type, register(type, binaryFunctions[op](x.value, y.value, type)));
  }
  const negative = (of: Expr): Expr => ({ kind: 'unary', type, op: 'neg', x: of });
  switch (op) {
    case 'add':
      // The zero that changes no float is -0; an integer has one zero.
      if (isConstant(y, type === 'f32' ? -0 : 0)) return x;
      if (isConstant(x, type === 'f32' ? -0 : 0)) return y;
      if (y.kind === 'unary' && y.op === 'neg') return { ...expr, op: 'sub', y: y.x };
      return expr;
    case 'sub':
      if (isConstant(y, 0)) return x;
      if (y.kind === 'unary' && y.op === 'neg') return { ...expr, op: 'add', y: y.x };
      return expr;
    case 'mul':
      if (isConstant(y, 1)) return x;
      if (isConstant(x, 1)) return y;
      if (isConstant(y, -1) && type !== 'u32') return negative(x);
      if (isConstant(x, -1) && type !== 'u32') return negative(y);
      return expr;
    case 'div':
      return isConstant(y, 1) ? x : expr;
    case 'pow':
      if (isConstant(y, 1)) return x;
      return isConstant(y, 2) ? { kind: 'binary', type, op: 'mul', x, y: x } : expr;
    default:
      return expr;
  }
}

function simplifyCast(expr: ExprOf<'cast'>): Expr {
  const { type, x } = expr;
  if (x.type === type) return x;
  return x.kind === 'constant' ? constant(type, roundTo(type, x.value)) : expr;
}

/** A result as the register holds it: rounded to f32, or wrapped to 32 bits. */
function register(type: Scalar, value: number): number {
  if (type === 'f32') return Math.fround(value);
  if (type === 'bool') return Number(value !== 0);
  return type === 'i32' ? value | 0 : value >>> 0;
}

// Not here: round and erf, which JavaScript lacks; constants under them are computed on the device.
const unaryFunctions: { readonly [op in UnaryFunction]?: (x: number) => number } = {
  neg: (x) => -x,
  abs: Math.abs,
  sign: Math.sign,
  floor: Math.floor,
  ceil: Math.ceil,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  reciprocal: (x) => 1 / x,
  sin: Math.sin,
  cos: Math.cos,
  tanh: Math.tanh,
  not: (x) => 1 - x,
};

const binaryFunctions: { readonly [op in BinaryFunction]: (x: number, y: number, type: Scalar) => number } = {
  add: (x, y) => x + y,
  sub: (x, y) => x - y,
  mul: (x, y, type) => (type === 'f32' ? x * y : Math.imul(x, y)),
  div: (x, y, type) => (type === 'f32' ? x / y : y === 0 ? 0 : Math.trunc(x / y)),
  mod: (x, y, type) => (type === 'f32' || y !== 0 ? x % y : 0),
  max: (x, y) => Math.max(x, y),
  min: (x, y) => Math.min(x, y),
  pow: (x, y) => x ** y,
  less: (x, y) => Number(x < y),
  lessEqual: (x, y) => Number(x <= y),
  equal: (x, y) => Number(x === y),
  notEqual: (x, y) => Number(x !== y),
  and: (x, y) => x & y,
  or: (x, y) => x | y,
  xor: (x, y) => x ^ y,
  shiftLeft: (x, y) => x << y,
  shiftRight: (x, y) => x >>> y,
};
