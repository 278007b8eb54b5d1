import {
  foldIn,
  keyOf,
  normalNumbers,
  randomBernoulli,
  randomBits,
  randomInteger,
  randomNormal,
  randomPermutation,
  randomTruncatedNormal,
  randomUniform,
  read,
  referenceDevice,
  setDevice,
  type Tensor,
  tensor,
  threefry,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { openWasmNode } from '../../../packages/tensor/src/node/wasm.ts';
import { erfReference, threefryReference } from '../../../packages/tensor/src/ops/elementwise.ts';
import { openWebGPU } from '../../../packages/tensor/src/webgpu/index.ts';
import { threefry2x32 } from '../../support/samples/elementwise.ts';
import { hasWebGPU, testAdapter } from '../../support/webgpu.ts';

beforeAll(() => setDevice(referenceDevice()));

const all = async (x: Tensor): Promise<number[]> => [...(await read(x))];
const words = fc.integer({ min: 0, max: 2 ** 32 - 1 });

describe('Threefry-2x32', () => {
  it('of the tests gives the words that the authors publish with Random123', () => {
    expect(threefry2x32([0, 0], [0, 0])).toEqual([0x6b200159, 0x99ba4efe]);
    const ones = 0xffffffff;
    expect(threefry2x32([ones, ones], [ones, ones])).toEqual([0x1cb996fc, 0xbb002be7]);
    expect(threefry2x32([0x13198a2e, 0x03707344], [0x243f6a88, 0x85a308d3])).toEqual([
      0xc4923a9c, 0x483df7a0,
    ]);
  });

  it('of the engine gives the same first word', () =>
    fc.assert(
      fc.asyncProperty(words, words, words, async (key0, key1, counter) => {
        const got = await all(threefry(key0, key1, tensor(Uint32Array.of(counter))));
        expect(got).toEqual([threefry2x32([key0, key1], [counter, 0])[0]]);
      }),
      { numRuns: 200 },
    ));
});

describe('random tensors', () => {
  const key = keyOf(2 ** 40 + 7);

  it('are functions of the key', async () => {
    expect(await all(randomUniform(key, [50]))).toEqual(await all(randomUniform(keyOf(2 ** 40 + 7), [50])));
    expect(await all(randomBits(key, [5, 10]))).toEqual(
      await all(randomBits(tensor(Uint32Array.from(key)), [50])),
    );
    expect(keyOf(2 ** 40 + 7)).toEqual([7, 256]);
  });

  it('differ between keys that are near, and between streams of one key', async () => {
    const draws = [
      keyOf(0),
      keyOf(1),
      keyOf(2 ** 32),
      foldIn(keyOf(0), 0),
      foldIn(keyOf(0), 1),
      foldIn(keyOf(0), 2 ** 32),
      foldIn(keyOf(1), 0),
    ];
    const seen = new Set((await Promise.all(draws.map((k) => all(randomBits(k, [4]))))).flat());
    expect(seen.size).toBe(4 * draws.length);
  });

  it('are uniform on [0, 1): mean, variance and neighbours as they should be', async () => {
    const count = 20_000;
    const u = await all(randomUniform(key, [count]));
    expect(u.every((v) => v >= 0 && v < 1 && Number.isInteger(v * 2 ** 24))).toBe(true);
    const mean = u.reduce((sum, v) => sum + v, 0) / count;
    const variance = u.reduce((sum, v) => sum + (v - 0.5) ** 2, 0) / count;
    const neighbours = u.slice(1).reduce((sum, v, i) => sum + (v - 0.5) * (u[i]! - 0.5), 0) / count;
    // Five standard errors: sqrt(1/12), sqrt(1/180) and 1/12 over the root of the count.
    expect(Math.abs(mean - 0.5)).toBeLessThan((5 * Math.sqrt(1 / 12)) / Math.sqrt(count));
    expect(Math.abs(variance - 1 / 12)).toBeLessThan((5 * Math.sqrt(1 / 180)) / Math.sqrt(count));
    expect(Math.abs(neighbours)).toBeLessThan(5 / 12 / Math.sqrt(count));
  });

  it('of booleans are true with the probability', async () => {
    const count = (await all(randomBernoulli(key, [10_000], 0.2))).filter((v) => v === 1).length;
    expect(Math.abs(count - 2000)).toBeLessThan(5 * Math.sqrt(10_000 * 0.2 * 0.8));
    expect(await all(randomBernoulli(key, [50], 1))).toEqual(new Array(50).fill(1));
    expect(await all(randomBernoulli(key, [50], 0))).toEqual(new Array(50).fill(0));
  });

  it('are normal: moments and the share within one deviation', () => {
    const count = 20_000;
    const z = normalNumbers(key, count);
    const moment = (power: number): number => z.reduce((sum, v) => sum + v ** power, 0) / count;
    const within = z.filter((v) => Math.abs(v) < 1).length / count;
    // Five standard errors of the first four moments: variances 1, 2, 15, 96.
    expect(Math.abs(moment(1))).toBeLessThan(5 / Math.sqrt(count));
    expect(Math.abs(moment(2) - 1)).toBeLessThan((5 * Math.sqrt(2)) / Math.sqrt(count));
    expect(Math.abs(moment(3))).toBeLessThan((5 * Math.sqrt(15)) / Math.sqrt(count));
    expect(Math.abs(moment(4) - 3)).toBeLessThan((5 * Math.sqrt(96)) / Math.sqrt(count));
    expect(Math.abs(within - 0.6826894921)).toBeLessThan((5 * Math.sqrt(0.68 * 0.32)) / Math.sqrt(count));
  });

  it('of normal numbers are prefixes of longer ones, rounded to their type', async () => {
    expect([...normalNumbers(key, 5)]).toEqual([...normalNumbers(key, 8)].slice(0, 5));
    expect(await all(randomNormal(key, [5]))).toEqual([...normalNumbers(key, 5)].map(Math.fround));
    expect(randomNormal(key, [2, 3], 'f16').dtype).toBe('f16');
  });

  it('of whole numbers lie in their range and fill it evenly', async () => {
    const [low, high, count] = [-3, 4, 21_000];
    const drawn = await all(randomInteger(key, [count], low, high));
    const share = count / (high - low);
    for (let value = low; value < high; value += 1) {
      const seen = drawn.filter((v) => v === value).length;
      expect(Math.abs(seen - share)).toBeLessThan(5 * Math.sqrt(share * (1 - 1 / (high - low))));
    }
    expect(drawn.every((v) => v >= low && v < high)).toBe(true);
    const ends = await all(randomInteger(key, [50], -(2 ** 31), -(2 ** 31) + 1));
    expect(ends).toEqual(new Array(50).fill(-(2 ** 31)));
  });

  it('of permutations hold each position once, and every position comes first about equally often', async () => {
    const [count, trials] = [5, 2000];
    const firsts = new Array<number>(count).fill(0);
    for (let i = 0; i < trials; i += 1) {
      const order = await all(randomPermutation(foldIn(key, i), count));
      expect(order.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4]);
      firsts[order[0]!]! += 1;
    }
    for (const seen of firsts)
      expect(Math.abs(seen - trials / count)).toBeLessThan(5 * Math.sqrt((trials / count) * (1 - 1 / count)));
    expect(await all(randomPermutation(key, 0))).toEqual([]);
  });

  it('of truncated normal numbers have the moments of what is left of the distribution', async () => {
    const [low, high, count] = [-0.5, 2, 20_000];
    const z = await all(randomTruncatedNormal(key, [count], { low, high }, 'f64'));
    expect(z.every((v) => v >= low && v <= high)).toBe(true);
    // Mean (phi(low) - phi(high)) / Z; variance 1 + (low phi(low) - high phi(high)) / Z - mean^2, below 1.
    const phi = (v: number): number => Math.exp((-v * v) / 2) / Math.sqrt(2 * Math.PI);
    const share = (erfReference(high * Math.SQRT1_2) - erfReference(low * Math.SQRT1_2)) / 2;
    const mean = (phi(low) - phi(high)) / share;
    const variance = 1 + (low * phi(low) - high * phi(high)) / share - mean ** 2;
    const got = z.reduce((sum, v) => sum + v, 0) / count;
    const spread = z.reduce((sum, v) => sum + (v - got) ** 2, 0) / count;
    expect(Math.abs(got - mean)).toBeLessThan(5 * Math.sqrt(variance / count));
    expect(Math.abs(spread - variance)).toBeLessThan(5 * variance * Math.sqrt(2 / count));
  });

  it('of a million normal numbers: mean, variance, and the distance from the distribution function', () => {
    const count = 2 ** 20;
    const z = normalNumbers(key, count).toSorted();
    const mean = z.reduce((sum, v) => sum + v, 0) / count;
    const variance = z.reduce((sum, v) => sum + (v - mean) ** 2, 0) / count;
    expect(Math.abs(mean)).toBeLessThan(4e-3);
    expect(Math.abs(variance - 1)).toBeLessThan(6e-3);
    let distance = 0;
    for (let i = 0; i < count; i += 64) {
      const below = (1 + erfReference(z[i]! * Math.SQRT1_2)) / 2;
      distance = Math.max(distance, Math.abs(below - i / count) - 64 / count);
    }
    // Kolmogorov: P(D sqrt(n) > 2.23) = 1e-4.
    expect(distance * Math.sqrt(count)).toBeLessThan(2.23);
  });
});

describe('2^20 random words', () => {
  /** FNV-1a over the words. */
  const hash = (words_: Iterable<number>): number => {
    let state = 0x811c9dc5;
    for (const word of words_) state = Math.imul(state ^ word, 0x01000193) >>> 0;
    return state;
  };
  const key = keyOf(123);
  const wanted = hash(Array.from({ length: 2 ** 20 }, (_, i) => threefryReference(key[0], key[1], i)));

  it('are the same on wasm', async () => {
    const device = await openWasmNode({ threads: 2 });
    expect(hash(await read(randomBits(key, [2 ** 20]), device))).toBe(wanted);
    await device.close();
  });

  it.skipIf(!hasWebGPU)('are the same on WebGPU', async () => {
    const device = await openWebGPU((await testAdapter()).adapter);
    expect(hash(await read(randomBits(key, [2 ** 20]), device))).toBe(wanted);
    await device.close();
  });
});
