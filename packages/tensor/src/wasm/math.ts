/**
 * Elementary functions on four f32 lanes, within about 2 units in the last place.
 *
 *   exp x   = 2^n e^r,  n = round(x / ln 2), |r| <= ln(2)/2: Taylor's series to r^7                          (1)
 *   log x   = e ln 2 + log(1 + f), x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); with s = f / (2 + f),
 *             log(1 + f) = 2 atanh s = f - (f^2/2 - s (f^2/2 + R)),  R = sum_k 2 s^(2k) / (2k + 1)           (2)
 *   tanh x  = x (945 + 105 x^2 + x^4) / (945 + 420 x^2 + 15 x^4) up to |x| = 0.8 (a convergent of Lambert's
 *             continued fraction, relative error 1e-8), then 1 - 2 / (e^2|x| + 1)                            (3)
 *   erf x   = x p(x^2) up to |x| = 1, then 1 - e^q(|x|), q a fit of log erfc on [0.9, 4]                     (4)
 *   sin, cos: x = q pi/2 + r reduced in f64, then Taylor's series on |r| <= pi/4                            (5)
 */
import type { Local } from './assembler.ts';
import { FunctionBuilder } from './assembler.ts';
import { Lanes, type Origin, openContext } from './lanes.ts';

/** 1/k! for k = n ... 0. */
function inverseFactorials(n: number): number[] {
  const terms = [1];
  for (let k = 1; k <= n; k += 1) terms.push(terms.at(-1)! / k);
  return terms.reverse();
}

/** e^x; overflows to infinity, underflows through the subnormal numbers to 0, keeps NaN. */
export function exp(m: Lanes, x: Local): Local {
  // pmin and pmax are one instruction each, and keep a NaN that is their first operand.
  const clamped = m.op('f32x4.pmin', m.op('f32x4.pmax', x, m.f32(-104)), m.f32(89));
  // Numbers of this size have no fraction: the sum is rounded to an integer, which its lowest bits hold.
  const magic = m.f32(1.5 * 2 ** 23);
  const rounded = m.madd(clamped, m.f32(Math.LOG2E), magic);
  const n = m.op('f32x4.sub', rounded, magic);
  const power = naturalPower(m, clamped, n);
  // 2^n in two factors, since n can lie outside the range of an exponent.
  const exponent = m.op('i32x4.sub', rounded, magic);
  const half = m.shift('i32x4.shr_s', exponent, 1);
  const scale = (k: Local) => m.shift('i32x4.shl', m.op('i32x4.add', k, m.i32(127)), 23);
  const rest = scale(m.op('i32x4.sub', exponent, half));
  return m.op('f32x4.mul', m.op('f32x4.mul', power, scale(half)), rest);
}

/** e^r of (1), with r = x - n ln 2. */
export function naturalPower(m: Lanes, x: Local, n: Local): Local {
  // ln 2 in two parts: n times the first is exact, as it has few bits.
  const high = 0.693359375;
  const r = m.madd(n, m.f32(high - Math.LN2), m.madd(n, m.f32(-high), x));
  return m.polynomial(r, inverseFactorials(7));
}

/** log x: -infinity at 0, NaN below. */
export function log(m: Lanes, x: Local): Local {
  const subnormal = m.op('f32x4.lt', x, m.f32(2 ** -126));
  const scaled = m.select(subnormal, m.op('f32x4.mul', x, m.f32(2 ** 23)), x);
  // Counting the exponent from sqrt(1/2) puts the mantissa into [sqrt(1/2), sqrt(2)).
  const lifted = m.op('i32x4.sub', scaled, m.i32(0x3f3504f3));
  const steps = m.shift('i32x4.shr_s', lifted, 23);
  const mantissa = m.op('i32x4.add', m.op('v128.and', lifted, m.i32(0x7fffff)), m.i32(0x3f3504f3));
  const e = m.op('f32x4.convert_i32x4_s', m.op('i32x4.sub', steps, m.op('v128.and', subnormal, m.i32(23))));
  const f = m.op('f32x4.sub', mantissa, m.f32(1));
  const s = m.op('f32x4.div', f, m.op('f32x4.add', f, m.f32(2)));
  const z = m.op('f32x4.mul', s, s);
  const r = m.op('f32x4.mul', z, m.polynomial(z, [2 / 11, 2 / 9, 2 / 7, 2 / 5, 2 / 3]));
  const halfSquare = m.op('f32x4.mul', m.op('f32x4.mul', f, f), m.f32(0.5));
  const high = 0.693359375;
  const tail = m.madd(e, m.f32(Math.LN2 - high), m.op('f32x4.mul', s, m.op('f32x4.add', halfSquare, r)));
  const body = m.op('f32x4.sub', f, m.op('f32x4.sub', halfSquare, tail)); // (2)
  const finite = m.madd(e, m.f32(high), body);
  const atEdge = m.op('v128.not', m.op('f32x4.lt', m.op('f32x4.abs', x), m.f32(Number.POSITIVE_INFINITY)));
  const positive = m.select(atEdge, x, finite);
  const negative = m.op('f32x4.lt', x, m.f32(0));
  const nonZero = m.select(negative, m.f32(Number.NaN), positive);
  return m.select(m.op('f32x4.eq', x, m.f32(0)), m.f32(Number.NEGATIVE_INFINITY), nonZero);
}

/** The magnitude of one vector with the sign of another. */
function copySign(m: Lanes, magnitude: Local, sign: Local): Local {
  return m.select(m.i32(0x7fffffff), magnitude, sign);
}

export function tanh(m: Lanes, x: Local): Local {
  const magnitude = m.op('f32x4.abs', x);
  const z = m.op('f32x4.mul', x, x);
  const small = m.op('f32x4.lt', magnitude, m.f32(0.8));
  const near = m.op(
    'f32x4.div',
    m.op('f32x4.mul', magnitude, m.polynomial(z, [1, 105, 945])),
    m.polynomial(z, [15, 420, 945]),
  );
  const grown = m.op('f32x4.add', exp(m, m.op('f32x4.add', magnitude, magnitude)), m.f32(1));
  const far = m.op('f32x4.sub', m.f32(1), m.op('f32x4.div', m.f32(2), grown));
  return copySign(m, m.select(small, near, far), x); // (3)
}

export function erf(m: Lanes, x: Local): Local {
  const magnitude = m.op('f32x4.abs', x);
  const z = m.op('f32x4.mul', x, x);
  const small = m.op('f32x4.lt', magnitude, m.f32(1));
  // Least-squares fits weighted towards equal errors: 1.2e-9 of erf(x)/x, and 1.7e-9 of erfc.
  const p = m.polynomial(
    z,
    [
      0.00007889119518, -0.0008020841277, 0.005189535339, -0.02685444459, 0.1128360018, -0.3761262714,
      1.128379166,
    ],
  );
  const q = m.polynomial(
    m.op('f32x4.min', magnitude, m.f32(4)),
    [0.000197586267, -0.00305924673, 0.0222903919, -0.104062683, -0.637033263, -1.12776402, -0.000174276447],
  );
  const far = m.op('f32x4.sub', m.f32(1), exp(m, q));
  return copySign(m, m.select(small, m.op('f32x4.mul', magnitude, p), far), x); // (4)
}

/** sin x (phase 0) or cos x (phase 1). Beyond 2^31 quarter turns the quadrant is lost. */
export function sine(m: Lanes, x: Local, phase: 0 | 1): Local {
  return m.call(phase === 0 ? 'sin' : 'cos', (origin) => writeSine(origin, phase), x);
}

function writeSine({ module, relaxed }: Origin, phase: 0 | 1): FunctionBuilder {
  const fn = new FunctionBuilder(['v128'], ['v128']);
  const m = new Lanes(openContext(module, fn, relaxed), fn.body);
  const reduce = (pair: Local) => {
    const turns = m.op('f64x2.nearest', m.op('f64x2.mul', pair, m.f64(2 / Math.PI)));
    const r = m.op('f64x2.sub', pair, m.op('f64x2.mul', turns, m.f64(Math.PI / 2)));
    return {
      turns: m.op('i32x4.trunc_sat_f64x2_s_zero', turns),
      r: m.op(
        'f32x4.demote_f64x2_zero',
        m.op('f64x2.sub', r, m.op('f64x2.mul', turns, m.f64(6.123233995736766e-17))),
      ),
    };
  };
  fn.body.get(0, 0).shuffle32(2, 3, 2, 3);
  const upper = m.keep();
  const [low, high] = [
    reduce(m.op('f64x2.promote_low_f32x4', 0)),
    reduce(m.op('f64x2.promote_low_f32x4', upper)),
  ];
  const join = (a: Local, b: Local) => {
    fn.body.get(a, b).shuffle32(0, 1, 4, 5);
    return m.keep();
  };
  const r = join(low.r, high.r);
  const quadrant = m.op('i32x4.add', join(low.turns, high.turns), m.i32(phase));
  const z = m.op('f32x4.mul', r, r);
  const [f2, f3, f4, f5, f6, f7, f8, f9, f10] = inverseFactorials(10).reverse().slice(2) as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const cube = m.op('f32x4.mul', r, z);
  const odd = m.madd(cube, m.polynomial(z, [f9, -f7, f5, -f3]), r); // (5)
  const even = m.polynomial(z, [-f10, f8, -f6, f4, -f2, 1]);
  const swap = m.op('i32x4.eq', m.op('v128.and', quadrant, m.i32(1)), m.i32(1));
  const sign = m.shift('i32x4.shl', m.op('v128.and', quadrant, m.i32(2)), 30);
  fn.body.get(m.op('v128.xor', m.select(swap, even, odd), sign));
  return fn;
}

const rotations = [13, 15, 26, 6, 17, 29, 16, 24];

/** First word of Threefry-2x32 (20 rounds) of (counter, 0), lane by lane; Salmon et al. 2011, section 4.2. */
export function threefry(m: Lanes, key0: Local, key1: Local, counter: Local): Local {
  return m.call('threefry', writeThreefry, key0, key1, counter);
}

function writeThreefry({ module, relaxed }: Origin): FunctionBuilder {
  const fn = new FunctionBuilder(['v128', 'v128', 'v128'], ['v128']);
  const m = new Lanes(openContext(module, fn, relaxed), fn.body);
  const [key0, key1, counter] = [0, 1, 2];
  const keys = [key0, key1, m.op('v128.xor', m.op('v128.xor', key0, key1), m.i32(0x1bd11bda))];
  let x = m.op('i32x4.add', counter, key0);
  let y = key1;
  for (let round = 0; round < 20; round += 1) {
    const turn = rotations[round % 8]!;
    x = m.op('i32x4.add', x, y);
    const turned = m.op('v128.or', m.shift('i32x4.shl', y, turn), m.shift('i32x4.shr_u', y, 32 - turn));
    y = m.op('v128.xor', turned, x);
    if (round % 4 === 3) {
      const group = (round + 1) / 4;
      x = m.op('i32x4.add', x, keys[group % 3]!);
      y = m.op('i32x4.add', m.op('i32x4.add', y, keys[(group + 1) % 3]!), m.i32(group));
    }
  }
  fn.body.get(x);
  return fn;
}

/** x^y, lane by lane. */
export function pow(m: Lanes, x: Local, y: Local): Local {
  const index = m.context.module.named('pow', writePow);
  return m.eachLane((lane) => {
    for (const operand of [x, y]) m.code.get(operand).op('f32x4.extract_lane', lane);
    m.code.op('call', index);
  });
}

/**
 * x^y = 2^(y log2 |x|) in f64, with the sign of x where y is odd, as the bits of an f32. NaN where x is negative and
 * y is no integer; 1 where y = 0 or x = 1.
 */
function writePow(): FunctionBuilder {
  const fn = new FunctionBuilder(['f32', 'f32'], ['i32']);
  const { body } = fn;
  const [x, y, f, s, z, t, n, power] = (
    ['f64', 'f64', 'f64', 'f64', 'f64', 'f64', 'f64', 'f64'] as const
  ).map((type) => fn.local(type)) as [Local, Local, Local, Local, Local, Local, Local, Local];
  const [bits, exponent] = [fn.local('i64'), fn.local('i64')];
  const result = (value: () => void) => {
    value();
    body.op('f32.demote_f64').op('i32.reinterpret_f32').op('return');
  };
  body.get(0).op('f64.promote_f32').set(x).get(1).op('f64.promote_f32').set(y);
  body.get(y).f64(0).op('f64.eq').get(x).f64(1).op('f64.eq').op('i32.or');
  body.if(() => result(() => body.f64(1)));
  body.get(x, x).op('f64.ne').get(y, y).op('f64.ne').op('i32.or');
  body.if(() => result(() => body.get(x, y).op('f64.add')));
  // log2 |x| = e + 2 atanh(s) / ln 2 with the mantissa in [sqrt(1/2), sqrt(2)), as in (2).
  body.get(x).op('f64.abs').op('i64.reinterpret_f64').i64(0x3fe6a09e667f3bcdn).op('i64.sub').set(bits);
  body.get(bits).i64(52n).op('i64.shr_s').set(exponent);
  body.get(bits).i64(0xfffffffffffffn).op('i64.and').i64(0x3fe6a09e667f3bcdn).op('i64.add');
  body.op('f64.reinterpret_i64').f64(1).op('f64.sub').set(f);
  body.get(f, f).f64(2).op('f64.add').op('f64.div').tee(s).get(s).op('f64.mul').set(z);
  body.f64(2 / 17);
  for (let k = 15; k >= 1; k -= 2)
    body
      .get(z)
      .op('f64.mul')
      .f64(2 / k)
      .op('f64.add');
  body.get(s).op('f64.mul').f64(Math.LOG2E).op('f64.mul');
  body.get(exponent).op('f64.convert_i64_s').op('f64.add').set(t);
  // 0 and infinity have no logarithm here: exponents beyond any f32 stand for them.
  body
    .get(x)
    .f64(0)
    .op('f64.eq')
    .if(() => body.f64(-1e4).set(t));
  body
    .get(x)
    .op('f64.abs')
    .f64(Number.POSITIVE_INFINITY)
    .op('f64.eq')
    .if(() => body.f64(1e4).set(t));
  body.get(t, y).op('f64.mul').f64(-1000).op('f64.max').f64(1000).op('f64.min').tee(t);
  // |x| = 1 with infinite y is 0 times infinity; its power is 1.
  body
    .get(t)
    .op('f64.ne')
    .if(() => body.f64(0).set(t));
  body.get(t).op('f64.nearest').tee(n).get(t).op('f64.sub').op('f64.neg').f64(Math.LN2).op('f64.mul').set(s);
  const terms = inverseFactorials(11);
  body.f64(terms[0]!);
  for (const term of terms.slice(1)) body.get(s).op('f64.mul').f64(term).op('f64.add');
  body.get(n).op('i64.trunc_sat_f64_s').i64(1023n).op('i64.add').i64(52n).op('i64.shl');
  body.op('f64.reinterpret_i64').op('f64.mul').set(power);
  // The sign bit of x counts where y is an odd integer; 1 / x tells -0 from 0.
  body
    .f64(1)
    .get(x)
    .op('f64.div')
    .f64(0)
    .op('f64.lt')
    .if(() => {
      body.get(y, y).op('f64.floor').op('f64.ne').get(x).f64(Number.NEGATIVE_INFINITY).op('f64.gt');
      body
        .op('i32.and')
        .get(x)
        .f64(0)
        .op('f64.ne')
        .op('i32.and')
        .if(() => result(() => body.f64(Number.NaN)));
      body.get(y).f64(0.5).op('f64.mul').tee(s).get(s).op('f64.floor').op('f64.ne');
      body
        .get(y, y)
        .op('f64.floor')
        .op('f64.eq')
        .op('i32.and')
        .if(() => {
          body.get(power).op('f64.neg').set(power);
        });
    });
  body.get(power).op('f32.demote_f64').op('i32.reinterpret_f32');
  return fn;
}
