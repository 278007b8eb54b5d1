/**
 * WGSL functions that the language lacks or defines too loosely, each good to about 1e-7.
 *
 * They are written once for one number and for four: T, U, I and B stand for f32, u32, i32 and bool, or for vectors of them.
 * A shader may assume that NaN and infinity do not exist, so both are made from bits that the compiler cannot see
 * through, and tests for them look at bits.
 */

/** Names of the functions, with the names that each one calls. */
const calls = {
  infinity: [],
  nan: [],
  isNan: [],
  tanhf: ['isNan'],
  erff: ['isNan'],
  quarter: [],
  sinf: ['quarter'],
  cosf: ['quarter'],
  power: ['nan'],
  toI32: ['isNan'],
  toU32: ['isNan'],
  threefry: [],
  unpackHalves: [],
  packHalves: [],
} as const satisfies Record<string, readonly string[]>;

export type FunctionName = keyof typeof calls;

const sources: Readonly<Record<FunctionName, string>> = {
  infinity: `fn infinity() -> f32 { var bits = 0x7f800000u; return bitcast<f32>(bits); }`,
  nan: `fn nan() -> f32 { var bits = 0x7fc00000u; return bitcast<f32>(bits); }`,

  isNan: `fn isNan(x: T) -> B { return (bitcast<U>(x) & U(0x7fffffffu)) > U(0x7f800000u); }`,

  // Odd polynomial near 0, where 1 - 2 / (e^2x + 1) cancels; beyond 15 the result is 1 in f32 and e^2x may overflow.
  tanhf: `fn tanhf(x: T) -> T {
  let a = min(abs(x), T(15.0));
  let z = a * a;
  let near = a + a * z * (-0.33333281 + z * (0.13331442 + z * (-0.053739715 + z * (0.020639086 - z * 0.0057049855))));
  let far = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
  let y = select(far, near, a < T(0.625));
  return select(select(y, -y, x < T(0.0)), x, isNan(x));
}`,

  // x P(x^2) / Q(x^2), a minimax fit of 1.7e-8 on [0, 3.9], where the result is 1 in f32.
  erff: `fn erff(x: T) -> T {
  let a = clamp(x, T(-3.9), T(3.9));
  let z = a * a;
  let p = fma(fma(fma(fma(fma(T(0.0000020664697), z, T(0.00028506326)), z, T(0.0037383831)), z, T(0.052668195)), z,
    T(0.18966766)), z, T(1.1283791));
  let q = fma(fma(fma(fma(fma(T(0.000038270038), z, T(0.0011573855)), z, T(0.014914351)), z, T(0.11381931)), z,
    T(0.50142139)), z, T(1.0));
  return select(clamp(a * p / q, T(-1.0), T(1.0)), x, isNan(x));
}`,

  // x = (pi / 2) n + r with |r| <= pi / 4, pi / 2 in four parts of 11 bits; odd quadrants take the cosine's series.
  // Mesa would add the parts up first, and lose what the parts are for, if no max stood between the steps.
  quarter: `fn quarter(x: T, shift: I) -> T {
  let n = round(x * 0.63661977);
  let r1 = max(fma(n, T(-1.5703125), x), T(-1e30));
  let r2 = max(fma(n, T(-0.0004837513), r1), T(-1e30));
  let r = fma(n, T(-2.563344e-12), max(fma(n, T(-7.5495336e-8), r2), T(-1e30)));
  let z = r * r;
  let s = r + r * z * (-0.16666655 + z * (0.0083321724 - z * 0.00019516480));
  let c = 1.0 - 0.5 * z + z * z * (0.041666646 + z * (-0.001388736 + z * 0.000024437533));
  let q = I(n) + shift;
  let y = select(s, c, (q & I(1)) != I(0));
  return clamp(select(y, -y, (q & I(2)) != I(0)), T(-1.0), T(1.0)); // the reduction is worthless beyond 2^22
}`,
  sinf: `fn sinf(x: T) -> T { return quarter(x, I(0)); }`,
  cosf: `fn cosf(x: T) -> T { return quarter(x, I(1)); }`,

  // pow of WGSL knows no negative base; y is odd iff y / 2 is not whole.
  power: `fn power(x: T, y: T) -> T {
  let size = select(pow(abs(x), y), select(T(0.0), T(1.0) / abs(x), y < T(0.0)), x == T(0.0));
  let odd = floor(y * 0.5) * 2.0 != y;
  let signed = select(size, -size, (x < T(0.0)) & odd);
  let real = select(signed, T(nan()), (x < T(0.0)) & (floor(y) != y));
  return select(real, T(1.0), y == T(0.0));
}`,

  // Saturating; NaN gives 0.
  toI32: `fn toI32(x: T) -> I {
  let inRange = I(clamp(x, T(-2147483648.0), T(2147483520.0)));
  let whole = select(inRange, I(2147483647), x >= T(2147483648.0));
  return select(whole, I(0), isNan(x));
}`,
  toU32: `fn toU32(x: T) -> U {
  let inRange = U(clamp(x, T(0.0), T(4294967040.0)));
  let whole = select(inRange, U(0xffffffffu), x >= T(4294967296.0));
  return select(whole, U(0u), isNan(x));
}`,

  // Salmon et al. 2011, section 4.2: Threefry-2x32 with 20 rounds.
  threefry: `fn threefry(key0: U, key1: U, counter: U) -> U {
  let key2 = key0 ^ key1 ^ U(0x1bd11bdau);
  var x = counter + key0;
  var y = key1;
${threefryRounds()}
  return x;
}`,

  unpackHalves: `fn unpackHalves(words: vec2u) -> vec4f {
  return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
}`,
  packHalves: `fn packHalves(x: vec4f) -> vec2u {
  return vec2u(pack2x16float(x.xy), pack2x16float(x.zw));
}`,
};

function threefryRounds(): string {
  const rotations = [13, 15, 26, 6, 17, 29, 16, 24];
  return Array.from({ length: 20 }, (_, round) => {
    const turn = rotations[round % 8]!;
    const mix = `  x += y; y = ((y << U(${turn}u)) | (y >> U(${32 - turn}u))) ^ x;`;
    if (round % 4 !== 3) return mix;
    const group = (round + 1) / 4;
    return `${mix}\n  x += key${group % 3}; y += key${(group + 1) % 3} + U(${group}u);`;
  }).join('\n');
}

const scalarTypes: readonly [RegExp, string, string][] = [
  [/\bT\b/g, 'f32', 'vec4f'],
  [/\bU\b/g, 'u32', 'vec4u'],
  [/\bI\b/g, 'i32', 'vec4i'],
  [/\bB\b/g, 'bool', 'vec4<bool>'],
];

/** Functions whose text does not depend on the width. */
const fixed: ReadonlySet<FunctionName> = new Set(['infinity', 'nan', 'unpackHalves', 'packHalves'] as const);

/** The name that the function has for one number, or for four. */
export function functionName(name: FunctionName, wide: boolean): string {
  return wide && !fixed.has(name) ? `${name}4` : name;
}

/** The functions that a call of one needs, callees first, as [name, WGSL]. */
export function functionSources(name: FunctionName, wide: boolean): (readonly [string, string])[] {
  const needed = calls[name].flatMap((callee) => functionSources(callee, wide));
  let text = sources[name];
  if (!fixed.has(name)) {
    for (const [letter, one, four] of scalarTypes) text = text.replace(letter, wide ? four : one);
    for (const own of [name, ...calls[name]]) {
      text = text.replace(new RegExp(`\\b${own}\\(`, 'g'), `${functionName(own, wide)}(`);
    }
  }
  return [...needed, [functionName(name, wide), text]];
}
