/** The functions of the kernel language on four lanes; bool lanes are masks of all ones or zeros. */
import type { BinaryFunction, Scalar, UnaryFunction } from '../kernel.ts';
import type { Local } from './assembler.ts';
import type { Lanes } from './lanes.ts';
import { erf, exp, log, pow, sine, tanh } from './math.ts';
import type { OpName } from './opcodes.ts';

export function unaryLanes(m: Lanes, op: UnaryFunction, type: Scalar, x: Local): Local {
  const integer = type !== 'f32';
  switch (op) {
    case 'neg':
      return m.op(integer ? 'i32x4.neg' : 'f32x4.neg', x);
    case 'abs':
      if (type === 'u32') return x;
      return m.op(integer ? 'i32x4.abs' : 'f32x4.abs', x);
    case 'sign': {
      if (type === 'u32') return m.op('i32x4.min_u', x, m.i32(1));
      if (integer) return m.op('i32x4.max_s', m.op('i32x4.min_s', x, m.i32(1)), m.i32(-1));
      const positive = m.select(m.op('f32x4.gt', x, m.f32(0)), m.f32(1), x);
      return m.select(m.op('f32x4.lt', x, m.f32(0)), m.f32(-1), positive);
    }
    case 'floor':
      return m.op('f32x4.floor', x);
    case 'ceil':
      return m.op('f32x4.ceil', x);
    case 'round':
      return m.op('f32x4.nearest', x);
    case 'exp':
      return exp(m, x);
    case 'log':
      return log(m, x);
    case 'sqrt':
      return m.op('f32x4.sqrt', x);
    case 'rsqrt':
      return m.op('f32x4.div', m.f32(1), m.op('f32x4.sqrt', x));
    case 'reciprocal':
      return m.op('f32x4.div', m.f32(1), x);
    case 'sin':
      return sine(m, x, 0);
    case 'cos':
      return sine(m, x, 1);
    case 'tanh':
      return tanh(m, x);
    case 'erf':
      return erf(m, x);
    case 'bits':
      return x;
    case 'not':
      return m.op('v128.not', x);
  }
}

const floatOps: Partial<Record<BinaryFunction, OpName>> = {
  add: 'f32x4.add',
  sub: 'f32x4.sub',
  mul: 'f32x4.mul',
  div: 'f32x4.div',
  max: 'f32x4.max',
  min: 'f32x4.min',
  less: 'f32x4.lt',
  lessEqual: 'f32x4.le',
  equal: 'f32x4.eq',
  notEqual: 'f32x4.ne',
};

const signedOps: Partial<Record<BinaryFunction, OpName>> = {
  add: 'i32x4.add',
  sub: 'i32x4.sub',
  mul: 'i32x4.mul',
  max: 'i32x4.max_s',
  min: 'i32x4.min_s',
  less: 'i32x4.lt_s',
  lessEqual: 'i32x4.le_s',
  equal: 'i32x4.eq',
  notEqual: 'i32x4.ne',
  and: 'v128.and',
  or: 'v128.or',
  xor: 'v128.xor',
};

const unsignedOps: Partial<Record<BinaryFunction, OpName>> = {
  ...signedOps,
  max: 'i32x4.max_u',
  min: 'i32x4.min_u',
  less: 'i32x4.lt_u',
  lessEqual: 'i32x4.le_u',
};

/** x op y, both of one type; comparisons give masks. */
export function arithmetic(m: Lanes, op: BinaryFunction, type: Scalar, x: Local, y: Local): Local {
  const table = type === 'f32' ? floatOps : type === 'u32' ? unsignedOps : signedOps;
  const direct = table[op];
  // The masks of false and true are 0 and -1: their order is the other way round.
  if (direct) return type === 'bool' && op.startsWith('less') ? m.op(direct, y, x) : m.op(direct, x, y);
  if (op === 'pow') return pow(m, x, y);
  if (op === 'mod' && type === 'f32') {
    const quotient = m.op('f32x4.trunc', m.op('f32x4.div', x, y));
    return m.op('f32x4.sub', x, m.op('f32x4.mul', quotient, y));
  }
  return m.eachLane((lane) => integerLane(m, op, type, x, y, lane));
}

// Quotient and remainder of a division by 0 are 0; shifts count modulo 32.
function integerLane(m: Lanes, op: BinaryFunction, type: Scalar, x: Local, y: Local, lane: number): void {
  const { code } = m;
  const [a, b] = [m.context.fn.local('i32'), m.context.fn.local('i32')];
  code.get(x).op('i32x4.extract_lane', lane).set(a).get(y).op('i32x4.extract_lane', lane).set(b);
  const isSigned = type === 'i32';
  switch (op) {
    case 'shiftLeft':
      code.get(a, b).op('i32.shl');
      return;
    case 'shiftRight':
      code.get(a, b).op(isSigned ? 'i32.shr_s' : 'i32.shr_u');
      return;
    case 'div':
    case 'mod': {
      // Dividing by 0 traps, and by -1 it can: those are divided by 1 instead, and the quotient is multiplied.
      const special = m.context.fn.local('i32');
      code.get(b).op('i32.eqz');
      if (isSigned) code.get(b).i32(-1).op('i32.eq').op('i32.or');
      code.set(special);
      code.get(a).i32(1).get(b, special).op('select');
      if (op === 'mod') code.op(isSigned ? 'i32.rem_s' : 'i32.rem_u');
      else {
        code.op(isSigned ? 'i32.div_s' : 'i32.div_u');
        code.get(b).i32(1).get(special).op('select').op('i32.mul');
      }
      return;
    }
    default:
      throw new Error(`internal: no ${op} of ${type}`);
  }
}

/** A value as another type: floats truncate and saturate, NaN to 0; anything to bool is x != 0. */
export function castLanes(m: Lanes, from: Scalar, to: Scalar, x: Local): Local {
  if (from === to) return x;
  if (to === 'bool') return from === 'f32' ? m.op('f32x4.ne', x, m.f32(0)) : m.op('i32x4.ne', x, m.i32(0));
  if (from === 'bool') return m.op('v128.and', x, to === 'f32' ? m.f32(1) : m.i32(1));
  if (to === 'f32') return m.op(from === 'u32' ? 'f32x4.convert_i32x4_u' : 'f32x4.convert_i32x4_s', x);
  if (from === 'f32') return m.op(to === 'u32' ? 'i32x4.trunc_sat_f32x4_u' : 'i32x4.trunc_sat_f32x4_s', x);
  return x;
}
