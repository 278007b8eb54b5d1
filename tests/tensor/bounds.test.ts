/**
 * Accuracy of the elementwise functions in f32 on each device, at 262,144 points: the bounds are WGSL's, or tighter where
 * a function is composed here (erf, tanh, sigmoid, silu). The truth is JavaScript's float64, of the very f32 inputs.
 */
import * as api from '@deftjs/tensor';
import { type Device, read, type Tensor, tensor } from '@deftjs/tensor';
import { afterAll, describe, expect, it } from 'vitest';
import { grad } from '../../packages/autograd/src/index.ts';
import { openWasmNode } from '../../packages/tensor/src/node/wasm.ts';
import { erfReference } from '../../packages/tensor/src/ops/elementwise.ts';
import { openWebGPU } from '../../packages/tensor/src/webgpu/index.ts';
import { hasWebGPU, testAdapter } from '../support/webgpu.ts';

const wasm = await openWasmNode({ threads: 2 });
const webgpu = hasWebGPU ? await openWebGPU((await testAdapter()).adapter) : null;
afterAll(async () => {
  await wasm.close();
  await webgpu?.close();
});
const devices: readonly (readonly [string, Device])[] = webgpu
  ? [
      ['wasm', wasm],
      ['WebGPU', webgpu],
    ]
  : [['wasm', wasm]];

const count = 2 ** 18;

/** Numbers in a random order, so that the pairs of two sets differ. */
function draw(seed: number, map: (u: number) => number): Float32Array {
  const uniform = api.threefryNumbers(api.keyOf(seed), count);
  return Float32Array.from(uniform, (u) => map(u / 2 ** 32));
}

const between = (low: number, high: number) => (u: number) => low + (high - low) * u;
/** Of all magnitudes between two, and of either sign. */
const magnitudes = (low: number, high: number) => (u: number) =>
  Math.sign(u - 0.5) * low * (high / low) ** Math.abs(2 * u - 1);
const positive = (low: number, high: number) => (u: number) => low * (high / low) ** u;

/** The distance of the f32 numbers around a value: a unit in its last place. */
function unit(value: number): number {
  return 2 ** (Math.floor(Math.log2(Math.max(Math.abs(value), 2 ** -126))) - 23);
}

type Bound = (expected: number, x: number) => number;
const units =
  (n: number): Bound =>
  (expected) =>
    n * unit(expected);
const absolute =
  (bound: number): Bound =>
  () =>
    bound;
const relative =
  (bound: number): Bound =>
  (expected) =>
    bound * Math.abs(expected);
/** WGSL's bound of exp: 3 + 2 |x| units. */
const ofExp: Bound = (expected, x) => (3 + 2 * Math.abs(x)) * unit(expected);
/** WGSL's bound of log: 2^-21 between 1/2 and 2, three units elsewhere. */
const ofLog: Bound = (expected, x) => (x >= 0.5 && x <= 2 ? 2 ** -21 : 3 * unit(expected));

const logistic = (x: number) => 1 / (1 + Math.exp(-x));
const errorSlope = (x: number) => (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x);

type Case = readonly [
  name: string,
  domain: (u: number) => number,
  f: (x: Tensor) => Tensor,
  truth: (x: number) => number,
  bound: Bound,
];

const ofOne: readonly Case[] = [
  ['floor', between(-1e4, 1e4), api.floor, Math.floor, units(0)],
  ['ceil', between(-1e4, 1e4), api.ceil, Math.ceil, units(0)],
  ['abs', magnitudes(1e-30, 1e30), api.abs, Math.abs, units(0)],
  ['sqrt', positive(1e-30, 1e30), api.sqrt, Math.sqrt, units(4)],
  ['rsqrt', positive(1e-30, 1e30), api.rsqrt, (x) => 1 / Math.sqrt(x), units(2)],
  ['reciprocal', magnitudes(1e-30, 1e30), api.reciprocal, (x) => 1 / x, units(2.5)],
  ['exp', between(-80, 80), api.exp, Math.exp, ofExp],
  ['log', positive(1e-30, 1e30), api.log, Math.log, ofLog],
  ['log near 1', between(0.5, 2), api.log, Math.log, ofLog],
  ['sin', between(-Math.PI, Math.PI), api.sin, Math.sin, absolute(5e-4)],
  ['cos', between(-Math.PI, Math.PI), api.cos, Math.cos, absolute(5e-4)],
  ['tanh', between(-20, 20), api.tanh, Math.tanh, absolute(1e-5)],
  ['tanh of all sizes', magnitudes(1e-30, 3e38), api.tanh, Math.tanh, absolute(1e-5)],
  ['sigmoid', between(-15, 15), api.sigmoid, logistic, relative(2e-6)],
  ['silu', between(-15, 15), api.silu, (x) => x * logistic(x), relative(2e-6)],
  ['erf', between(-6, 6), api.erf, erfReference, absolute(1e-6)],
  ['erf of all sizes', magnitudes(1e-30, 3e38), api.erf, erfReference, absolute(1e-6)],
  ["erf's gradient", between(-6, 6), grad((x) => api.sum(api.erf(x))), errorSlope, absolute(1e-6)],
];

type Pair = readonly [
  name: string,
  domains: readonly [(u: number) => number, (u: number) => number],
  f: (a: Tensor, b: Tensor) => Tensor,
  truth: (a: number, b: number) => number,
  bound: Bound,
];

const wide = magnitudes(1e-15, 1e15);
const ofTwo: readonly Pair[] = [
  ['add', [wide, wide], api.add, (a, b) => a + b, units(1)],
  ['sub', [wide, wide], api.sub, (a, b) => a - b, units(1)],
  ['mul', [wide, wide], api.mul, (a, b) => a * b, units(1)],
  ['div', [wide, wide], api.div, (a, b) => a / b, units(2.5)],
  ['maximum', [wide, wide], api.maximum, Math.max, units(0)],
  ['minimum', [wide, wide], api.minimum, Math.min, units(0)],
  ['pow', [positive(1e-3, 1e3), between(-4, 4)], api.pow, (a, b) => a ** b, relative(1e-5)],
];

/** The point where the error is largest in terms of its bound; none has a value where the truth has none. */
function expectWithin(got: Float32Array, expected: Float64Array, x: Float32Array, bound: Bound): void {
  let worst = { ratio: 0, text: 'none' };
  expected.forEach((truth, i) => {
    const error = Math.abs(got[i]! - truth);
    if (error === 0) return;
    const ratio = error / bound(truth, x[i]!);
    if (!(ratio <= worst.ratio)) worst = { ratio, text: `f(${x[i]}) = ${got[i]}; expected ${truth}` };
  });
  expect(worst.ratio, worst.text).toBeLessThanOrEqual(1);
}

describe.each(devices)('on %s', (_name, device) => {
  const values = async (y: Tensor) => (await read(y, device)) as Float32Array;

  it.each(ofOne)('%s', async (_name, domain, f, truth, bound) => {
    const x = draw(1, domain);
    expectWithin(await values(f(tensor(x))), Float64Array.from(x, truth), x, bound);
  });

  it.each(ofTwo)('%s', async (_name, [first, second], f, truth, bound) => {
    const [a, b] = [draw(1, first), draw(2, second)];
    const expected = Float64Array.from(a, (value, i) => truth(value, b[i]!));
    expectWithin(await values(f(tensor(a), tensor(b))), expected, a, bound);
  });

  it('the sum of 4,194,304 numbers is right to 2e-6 of it', async () => {
    const x = Float32Array.from(api.threefryNumbers(api.keyOf(3), 2 ** 22), (u) => u / 2 ** 32);
    const truth = x.reduce((total, value) => total + value, 0);
    const [got] = await values(api.sum(tensor(x)));
    expect(Math.abs(got! - truth)).toBeLessThanOrEqual(2e-6 * truth);
  });
});
