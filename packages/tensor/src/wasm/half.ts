/** Half precision: four f16 in the low 16 bits of 32-bit lanes to f32 and back (round to nearest, ties to even). */
import { FunctionBuilder, type Local } from './assembler.ts';
import { Lanes, type Origin, openContext } from './lanes.ts';

export function halfToFloat(m: Lanes, halves: Local): Local {
  return m.call('halfToFloat', writeHalfToFloat, halves);
}

export function floatToHalf(m: Lanes, floats: Local): Local {
  return m.call('floatToHalf', writeFloatToHalf, floats);
}

function writeHalfToFloat({ module, relaxed }: Origin): FunctionBuilder {
  const fn = new FunctionBuilder(['v128'], ['v128']);
  const m = new Lanes(openContext(module, fn, relaxed), fn.body);
  const magnitude = m.shift('i32x4.shl', m.op('v128.and', 0, m.i32(0x7fff)), 13);
  // Exponents are 112 apart; the product also normalizes subnormal halves.
  const finite = m.op('f32x4.mul', magnitude, m.f32(2 ** 112));
  const special = m.op('i32x4.ge_u', magnitude, m.i32(0x0f800000));
  const value = m.op('v128.or', finite, m.op('v128.and', special, m.i32(0x7f800000)));
  const sign = m.shift('i32x4.shl', m.op('v128.and', 0, m.i32(0x8000)), 16);
  fn.body.get(m.op('v128.or', value, sign));
  return fn;
}

function writeFloatToHalf({ module, relaxed }: Origin): FunctionBuilder {
  const fn = new FunctionBuilder(['v128'], ['v128']);
  const m = new Lanes(openContext(module, fn, relaxed), fn.body);
  const magnitude = m.op('v128.and', 0, m.i32(0x7fffffff));
  const odd = m.op('v128.and', m.shift('i32x4.shr_u', magnitude, 13), m.i32(1));
  const rounded = m.op('i32x4.add', m.op('i32x4.add', magnitude, m.i32(0xfff - (112 << 23))), odd);
  const normal = m.shift('i32x4.shr_u', rounded, 13);
  // Adding 1/2 puts a subnormal half's last bit at the last bit of the sum, which rounds it.
  const tiny = m.op('i32x4.sub', m.op('f32x4.add', magnitude, m.f32(0.5)), m.f32(0.5));
  const isTiny = m.op('i32x4.lt_s', magnitude, m.i32(113 << 23));
  const isLarge = m.op('i32x4.ge_s', magnitude, m.i32(0x477ff000));
  const isNan = m.op('i32x4.gt_s', magnitude, m.i32(0x7f800000));
  const large = m.select(isNan, m.i32(0x7e00), m.i32(0x7c00));
  const result = m.select(isLarge, large, m.select(isTiny, tiny, normal));
  const sign = m.op('v128.and', m.shift('i32x4.shr_u', 0, 16), m.i32(0x8000));
  fn.body.get(m.op('v128.or', result, sign));
  return fn;
}
