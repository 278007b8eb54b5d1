import {
  decode,
  dtypes,
  encode,
  floatsOf,
  fromHalfBits,
  halvesOf,
  hostArray,
  isFloat,
  roundTo,
  toHalfBits,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

const patterns = Array.from({ length: 65_536 }, (_, bits) => bits);
const isNaNPattern = (bits: number): boolean => (bits & 0x7c00) === 0x7c00 && (bits & 0x3ff) !== 0;

describe('half precision', () => {
  it('reads back every bit pattern; NaNs stay NaN', () => {
    const wrong = patterns.filter((bits) =>
      isNaNPattern(bits) ? !Number.isNaN(fromHalfBits(bits)) : toHalfBits(fromHalfBits(bits)) !== bits,
    );
    expect(wrong).toEqual([]);
    expect(isNaNPattern(toHalfBits(Number.NaN))).toBe(true);
  });

  it('is converted in arrays as one by one', () => {
    const all = Uint16Array.from(patterns);
    const values = floatsOf(all);
    expect(patterns.findIndex((bits) => !Object.is(values[bits], fromHalfBits(bits)))).toBe(-1);
    // Every half, the middle to the next one, the f32 numbers beside both, and noise in all bits.
    const words = patterns.flatMap((bits) => {
      const middle = ((bits & 0x7fff) << 13) + 0x38000000;
      const sign = (bits & 0x8000) << 16;
      return [0, 1, -1, 0x1000, 0x1001, 0xfff].map((step) => (middle + step) | sign);
    });
    const noise = patterns.map((i) => Math.imul(i + 1, 0x9e3779b1));
    const floats = new Float32Array(Int32Array.from([...words, ...noise]).buffer);
    const halves = halvesOf(floats);
    const small = halvesOf(floats.map((x) => x * 2 ** -120));
    expect(floats.findIndex((x, i) => !Number.isNaN(x) && halves[i] !== toHalfBits(x))).toBe(-1);
    expect(floats.findIndex((x, i) => Number.isNaN(x) !== isNaNPattern(halves[i]!))).toBe(-1);
    expect(
      floats.findIndex((x, i) => !Number.isNaN(x) && small[i] !== toHalfBits(Math.fround(x * 2 ** -120))),
    ).toBe(-1);
    const subnormal = patterns.map((i) => Math.fround((i / 16) * 2 ** -24));
    const packed = halvesOf(Float32Array.from(subnormal));
    expect(subnormal.findIndex((x, i) => packed[i] !== toHalfBits(x))).toBe(-1);
  });

  it('counts up with its bits, by steps that double at each power of two', () => {
    const finite = patterns.slice(0, 0x7c00).map(fromHalfBits);
    finite.slice(1).forEach((value, i) => {
      const exponent = Math.max(-14, Math.floor(Math.log2(finite[i]!)));
      if (value - finite[i]! !== 2 ** (exponent - 10))
        expect(value - finite[i]!, `after ${finite[i]}`).toBe(2 ** (exponent - 10));
    });
    expect([fromHalfBits(0x3c00), fromHalfBits(0x7bff), fromHalfBits(1)]).toEqual([1, 65504, 2 ** -24]);
  });

  it('rounds to the nearest, and half way to the even one', () => {
    for (let bits = 0; bits < 0x7bff; bits += 1) {
      const [low, high] = [fromHalfBits(bits), fromHalfBits(bits + 1)];
      const middle = (low + high) / 2;
      const even = bits % 2 === 0 ? bits : bits + 1;
      // A float64 next to the middle, which float32 cannot tell from it, still falls to its own side.
      const cases = [
        toHalfBits(middle),
        toHalfBits(middle * (1 - 2 ** -52)),
        toHalfBits(middle * (1 + 2 ** -52)),
        toHalfBits(-middle),
      ];
      const want = [even, bits, bits + 1, even | 0x8000];
      if (cases.some((got, i) => got !== want[i])) expect(cases, `between ${low} and ${high}`).toEqual(want);
    }
  });

  it('overflows to infinity half a step past the largest number', () => {
    expect([65519.999, 65520, 1e300, -65520, Number.POSITIVE_INFINITY].map(toHalfBits)).toEqual([
      0x7bff, 0x7c00, 0x7c00, 0xfc00, 0x7c00,
    ]);
  });

  it('keeps the sign of zero and of what is too small', () => {
    expect([0, -0, 2 ** -26, -(2 ** -26)].map(toHalfBits)).toEqual([0, 0x8000, 0, 0x8000]);
  });
});

describe('stored numbers', () => {
  const anything = fc.oneof(
    fc.double(),
    fc.integer(),
    fc.constantFrom(-0, 2 ** 31, -(2 ** 31) - 0.5, 2 ** 32, Number.NaN),
  );

  it.each(dtypes)('of %s come back as the type rounds them, and rounding again changes nothing', (dtype) => {
    fc.assert(
      fc.property(fc.array(anything), (values) => {
        const stored = encode(dtype, values);
        expect(stored.constructor).toBe(hostArray(dtype, 0).constructor);
        const got = [...decode(dtype, stored)];
        // Integer arrays have no signed zero.
        const want = values
          .map((value) => roundTo(dtype, value))
          .map((value) => (isFloat(dtype) ? value : value + 0));
        expect(got).toEqual(want);
        expect([...decode(dtype, encode(dtype, got))]).toEqual(got);
      }),
    );
  });

  it('of integers are truncated and held at the ends; NaN is 0; anything but 0 is true', () => {
    const values = [-1.9, 1.9, 1e10, -1e10, Number.NaN, Number.POSITIVE_INFINITY];
    expect(values.map((v) => roundTo('i32', v))).toEqual([-1, 1, 2 ** 31 - 1, -(2 ** 31), 0, 2 ** 31 - 1]);
    expect(values.map((v) => roundTo('u32', v))).toEqual([0, 1, 2 ** 32 - 1, 0, 0, 2 ** 32 - 1]);
    expect(values.concat(0, -0).map((v) => roundTo('bool', v))).toEqual([1, 1, 1, 1, 1, 1, 0, 0]);
  });
});
