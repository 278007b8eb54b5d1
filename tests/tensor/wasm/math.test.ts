/** Accuracy of the elementary functions over all of f32, against float64. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openWasmNode } from '../../../packages/tensor/src/node/wasm.ts';
import type { WasmDevice } from '../../../packages/tensor/src/wasm/index.ts';
import { erf, threefry } from '../../support/plan-interpreter.ts';
import { runPlan } from '../webgpu/agreement.ts';
import { binary, PlanBuilder, unary } from '../webgpu/plans.ts';

let device: WasmDevice;
beforeAll(async () => {
  device = await openWasmNode({ threads: 1 });
});
afterAll(() => device.close());

type Name = 'exp' | 'log' | 'tanh' | 'erf' | 'sin' | 'cos';

async function evaluate(op: Name, x: Float32Array): Promise<Float64Array> {
  const builder = new PlanBuilder();
  const expr = unary(op, builder.load(builder.input('f32', x), [x.length]));
  const outputs = [{ dtype: 'f32' as const, buffer: builder.output('f32', x.length), expr }];
  builder.kernel({ kind: 'map', label: op, shape: [x.length], outputs });
  const { plan, values } = builder.build();
  return (await runPlan(device, plan, values))[0]!;
}

async function evaluatePow(x: Float32Array, y: Float32Array): Promise<Float64Array> {
  const builder = new PlanBuilder();
  const shape = [x.length];
  const expr = binary(
    'pow',
    builder.load(builder.input('f32', x), shape),
    builder.load(builder.input('f32', y), shape),
  );
  const outputs = [{ dtype: 'f32' as const, buffer: builder.output('f32', x.length), expr }];
  builder.kernel({ kind: 'map', label: 'pow', shape, outputs });
  const { plan, values } = builder.build();
  return (await runPlan(device, plan, values))[0]!;
}

/** `count` numbers evenly spaced from `low` to `high`, or evenly in their logarithms. */
function evenly(low: number, high: number, count = 20_000): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));
}

function logarithmic(low: number, high: number, count = 20_000): Float32Array {
  return evenly(Math.log(low), Math.log(high), count).map(Math.exp);
}

/** Largest |f(x) - truth(x)| / |truth(x)|, where the truth is a normal f32. */
function worst(x: Float32Array, f: Float64Array, truth: (x: number) => number): number {
  let largest = 0;
  x.forEach((at, i) => {
    const expected = truth(at);
    if (Math.abs(expected) < 2 ** -126) return;
    largest = Math.max(largest, Math.abs(f[i]! - expected) / Math.abs(expected));
  });
  return largest;
}

/** Twice the spacing of f32 relative to the value: what "about 2 units in the last place" means. */
const twoUnits = 2 ** -22;

describe('relative errors stay below two units in the last place', () => {
  const cases: readonly [Name, Float32Array, (x: number) => number][] = [
    ['exp', evenly(-87, 88.7), Math.exp],
    ['exp', evenly(-1, 1), Math.exp],
    ['log', logarithmic(2 ** -126, 3e38), Math.log],
    ['log', evenly(0.5, 2), Math.log],
    ['tanh', evenly(-12, 12), Math.tanh],
    ['tanh', logarithmic(1e-30, 10), Math.tanh],
    ['erf', evenly(-5, 5), erf],
    ['erf', logarithmic(1e-30, 5), erf],
  ];
  test.each(cases)('%s', async (op, x, truth) => {
    expect(worst(x, await evaluate(op, x), truth)).toBeLessThan(twoUnits);
  });
});

test.each([
  ['sin', Math.sin],
  ['cos', Math.cos],
] as const)('%s is right to 2^-23 of the range for large and small arguments', async (op, truth) => {
  for (const x of [evenly(-10, 10), evenly(-1e6, 1e6)]) {
    const f = await evaluate(op, x);
    const errors = f.map((value, i) => Math.abs(value - truth(x[i]!)));
    expect(Math.max(...errors)).toBeLessThan(2 ** -23);
  }
});

test('pow is right to one unit in the last place wherever the result is a normal number', async () => {
  const base = logarithmic(1e-6, 1e6, 141);
  const exponent = evenly(-6, 6, 97);
  const x = Float32Array.from({ length: 141 * 97 }, (_, i) => base[i % 141]!);
  const y = Float32Array.from({ length: 141 * 97 }, (_, i) => exponent[Math.floor(i / 141)]!);
  const f = await evaluatePow(x, y);
  const errors = f.map((value, i) => Math.abs(value / x[i]! ** y[i]! - 1));
  expect(Math.max(...errors)).toBeLessThanOrEqual(2 ** -23);
});

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

test.each([
  [
    'exp',
    [89, 1e30, inf, -104, -1e30, -inf, 0, -100],
    [inf, inf, inf, 0, 0, 0, 1, Math.fround(Math.exp(-100))],
  ],
  ['log', [0, -0, -1, -inf, inf, 1, 1e-45], [-inf, -inf, nan, nan, inf, 0, Math.log(2 ** -149)]],
  ['tanh', [inf, -inf, 1e30, -1e30, 0, -0, 1e-40], [1, -1, 1, -1, 0, -0, 1e-40]],
  ['erf', [inf, -inf, 1e30, -1e30, 0, -0], [1, -1, 1, -1, 0, -0]],
  ['sin', [inf, 0], [nan, 0]],
  ['cos', [-inf, 0], [nan, 1]],
] as const)('%s of the ends of its range', async (op, x, expected) => {
  // A long and a short vector take the four-lane and the one-lane code.
  const f = await evaluate(op, Float32Array.from([...x, nan]));
  [...expected, nan].forEach((value, i) => {
    const at = `${op}(${x[i] ?? nan})`;
    // Subnormal results have a spacing of 2^-149.
    if (Number.isFinite(value) && value !== 0) {
      expect(Math.abs(f[i]! - value), at).toBeLessThanOrEqual(
        Math.max(2 ** -149, Math.abs(value) * 2 ** -22),
      );
    } else expect(f[i], at).toBe(value);
  });
});

test('pow of special operands is that of JavaScript', async () => {
  const special = [0, -0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, inf, -inf, nan];
  const pairs = special.flatMap((x) => special.map((y) => [x, y] as const));
  const f = await evaluatePow(
    Float32Array.from(pairs, ([x]) => x),
    Float32Array.from(pairs, ([, y]) => y),
  );
  pairs.forEach(([x, y], i) => {
    // IEEE 754 says that 1 to any power is 1, and that (-1) to infinity is; JavaScript says NaN.
    const expected = x === 1 || (x === -1 && Math.abs(y) === inf) ? 1 : x ** y;
    const close = Object.is(f[i], expected) || Math.abs(f[i]! - expected) <= Math.abs(expected) * 2 ** -23;
    expect(close, `${x} ** ${y}: ${f[i]}; expected ${expected}`).toBe(true);
  });
});

test('threefry is that of the interpreter', async () => {
  const builder = new PlanBuilder();
  const words = (seed: number) =>
    Uint32Array.from({ length: 37 }, (_, i) => Math.imul(i + seed, 0x9e3779b1) >>> 0);
  const [key0, key1, counter] = [words(1), words(5), words(9)];
  const load = (x: Uint32Array) => builder.load(builder.input('u32', x), [37]);
  const expr = {
    kind: 'threefry' as const,
    type: 'u32' as const,
    key0: load(key0),
    key1: load(key1),
    counter: load(counter),
  };
  const outputs = [{ dtype: 'u32' as const, buffer: builder.output('u32', 37), expr }];
  builder.kernel({ kind: 'map', label: 'threefry', shape: [37], outputs });
  const { plan, values } = builder.build();
  const [got] = await runPlan(device, plan, values);
  expect([...got!]).toEqual([...counter].map((_, i) => threefry(key0[i]!, key1[i]!, counter[i]!)));
});
