import {
  attention,
  averagePool,
  concat,
  conv2d,
  convTranspose2d,
  crossEntropy,
  cumsum,
  dropout,
  flip,
  gelu,
  geluTanh,
  groupNorm,
  huberLoss,
  layerNorm,
  linear,
  logSoftmax,
  logSumExp,
  max,
  mean,
  meanSquaredError,
  min,
  mul,
  neg,
  numel,
  oneHot,
  pixelShuffle,
  pixelUnshuffle,
  quickGelu,
  read,
  referenceDevice,
  relu,
  reshape,
  rmsNorm,
  type Shape,
  setDevice,
  sigmoid,
  silu,
  slice,
  softmax,
  softplus,
  split,
  stack,
  sum,
  type Tensor,
  tensor,
  transpose,
  truncate,
  upsampleNearest,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { at, numbers, type SampleTensor, shapes, tabulate, tensorOf } from '../../support/op-samples.ts';

beforeAll(() => setDevice(referenceDevice()));

const wide = { low: -4, high: 4 };

/** Random values of a shape, in float64 so that nothing is rounded. */
const values = (shape: Shape): fc.Arbitrary<SampleTensor> => tensorOf(shape, 'f64', numbers(wide));
const f64 = ({ shape, values: numbersOf }: SampleTensor): Tensor =>
  tensor(Float64Array.from(numbersOf), shape);
const all = async (x: Tensor): Promise<number[]> => [...(await read(x))];

/** Equal within 1e-13 of the largest: float64 sums in another order. */
function expectClose(got: readonly number[], want: readonly number[]): void {
  expect(got.length).toBe(want.length);
  const scale = Math.max(1, ...want.map(Math.abs));
  want.forEach((value, i) => {
    if (!(Math.abs(got[i]! - value) <= 1e-13 * scale)) expect(got, `element ${i}`).toEqual(want);
  });
}

const total = (list: readonly number[]): number => list.reduce((partial, value) => partial + value, 0);
const average = (list: readonly number[]): number => total(list) / list.length;

/** Runs a property on random tensors of the given shapes. */
function forAll(
  drawn: fc.Arbitrary<readonly SampleTensor[]>,
  property: (...x: SampleTensor[]) => Promise<void>,
) {
  return fc.assert(
    fc.asyncProperty(drawn, async (x) => property(...x)),
    { numRuns: 50 },
  );
}

const one = shapes({ most: 40 }).chain((shape) => fc.tuple(values(shape)));
const matrix = fc
  .constantFrom<[number, number][]>([1, 1], [2, 3], [4, 5])
  .chain((shape) => fc.tuple(values(shape)));

/** The standard normal distribution function by Simpson's rule from 0: 2,000 steps, error below 1e-14 on [-4, 4]. */
function normalCdf(x: number): number {
  const steps = 2000;
  const h = x / steps;
  const density = (t: number): number => Math.exp((-t * t) / 2);
  const inner = Array.from({ length: steps - 1 }, (_, i) => (i % 2 === 0 ? 4 : 2) * density((i + 1) * h));
  return 0.5 + ((1 + density(x) + total(inner)) * h) / 3 / Math.sqrt(2 * Math.PI);
}

const logistic = (x: number): number => 1 / (1 + Math.exp(-x));

describe('activations', () => {
  it.each<[string, (x: Tensor) => Tensor, (x: number) => number]>([
    ['sigmoid', sigmoid, logistic],
    ['silu', silu, (x) => x * logistic(x)],
    ['relu', relu, (x) => (x + Math.abs(x)) / 2],
    ['gelu', gelu, (x) => x * normalCdf(x)],
    ['geluTanh', geluTanh, (x) => x * logistic(2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))],
    ['quickGelu', quickGelu, (x) => x * logistic(1.702 * x)],
    ['softplus', softplus, (x) => Math.log1p(Math.exp(x))],
    ['truncate', truncate, (x) => Math.trunc(x) + 0],
  ])('%s equals its formula', (_name, f, formula) =>
    forAll(one, async (x) => expectClose(await all(f(f64(x!))), x!.values.map(formula))),
  );

  it('stay finite where exponentials overflow', async () => {
    for (const f of [sigmoid, silu, relu, gelu, geluTanh, quickGelu, softplus]) {
      const got = await all(f(tensor(Float64Array.of(-1e4, -800, 800, 1e4))));
      expect(got.every(Number.isFinite), `${f.name}: ${got}`).toBe(true);
    }
  });
});

describe('softmax', () => {
  it('sums to one along the axis and does not change when a constant is added', () =>
    forAll(matrix, async (x) => {
      for (const axis of [0, 1]) {
        const y = await all(softmax(f64(x!), axis));
        expectClose(await all(sum(softmax(f64(x!), axis), axis)), new Array(x!.shape[1 - axis]!).fill(1));
        expectClose(await all(softmax(f64({ ...x!, values: x!.values.map((v) => v + 1000) }), axis)), y);
      }
    }));

  it('is exp over its sum, and logSoftmax and logSumExp are its logarithms', () =>
    forAll(matrix, async (x) => {
      const [rows, columns] = x!.shape as [number, number];
      const e = x!.values.map(Math.exp);
      const sums = Array.from({ length: rows }, (_, i) => total(e.slice(i * columns, (i + 1) * columns)));
      expectClose(
        await all(softmax(f64(x!))),
        e.map((value, i) => value / sums[Math.floor(i / columns)]!),
      );
      expectClose(await all(logSumExp(f64(x!))), sums.map(Math.log));
      expectClose(
        await all(logSoftmax(f64(x!))),
        x!.values.map((value, i) => value - Math.log(sums[Math.floor(i / columns)]!)),
      );
      expect(logSumExp(f64(x!), 0, true).shape).toEqual([1, columns]);
    }));

  it('survives entries that would overflow, and gives masked entries exactly nothing', async () => {
    const y = await all(softmax(tensor(Float64Array.of(1e4, Number.NEGATIVE_INFINITY, 1e4 - 1))));
    expectClose(y, [logistic(1), 0, logistic(-1)]);
    expect(y[1]).toBe(0);
    expect(
      await all(softmax(tensor(Float64Array.of(Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY)))),
    ).toEqual([Number.NaN, Number.NaN]);
  });
});

/** (v - mean) / sqrt(variance + eps) of a list. */
function standard(list: readonly number[], eps: number): number[] {
  const centre = average(list);
  const variance = average(list.map((v) => (v - centre) ** 2));
  return list.map((v) => (v - centre) / Math.sqrt(variance + eps));
}

describe('norms', () => {
  const rows = fc.tuple(values([3, 5]), values([5]), values([5]));

  it('layerNorm equals its formula row by row', () =>
    forAll(rows, async (x, w, b) => {
      const want = [0, 5, 10].flatMap((start) =>
        standard(x!.values.slice(start, start + 5), 1e-5).map((v, i) => v * w!.values[i]! + b!.values[i]!),
      );
      expectClose(await all(layerNorm(f64(x!), f64(w!), f64(b!))), want);
    }));

  it('rmsNorm divides by the root of the mean square', () =>
    forAll(rows, async (x, w) => {
      const want = [0, 5, 10].flatMap((start) => {
        const row = x!.values.slice(start, start + 5);
        return row.map((v, i) => (v / Math.sqrt(average(row.map((u) => u * u)) + 1e-6)) * w!.values[i]!);
      });
      expectClose(await all(rmsNorm(f64(x!), f64(w!))), want);
    }));

  it('groupNorm standardises each group of channels of each picture', () =>
    forAll(fc.tuple(values([2, 6, 2, 1]), values([6]), values([6])), async (x, w, b) => {
      const want = [0, 1, 2, 3].flatMap((group) =>
        standard(x!.values.slice(group * 6, group * 6 + 6), 1e-5).map((v, i) => {
          const channel = (group % 2) * 3 + Math.floor(i / 2);
          return v * w!.values[channel]! + b!.values[channel]!;
        }),
      );
      expectClose(await all(groupNorm(f64(x!), 2, f64(w!), f64(b!))), want);
    }));

  it('keep their digits under a large mean', async () => {
    const shifted = Float64Array.of(1e6 - 1, 1e6, 1e6 + 1);
    expectClose(await all(layerNorm(tensor(shifted))), standard([-1, 0, 1], 1e-5));
  });
});

describe('attention', () => {
  const qkv = fc.tuple(values([2, 1, 3, 2]), values([2, 1, 4, 2]), values([2, 1, 4, 5]));

  /** Query by query, key by key; a key that may not be seen is left out. */
  function expected(
    [q, k, v]: readonly SampleTensor[],
    sees: (i: number, j: number) => boolean,
    bias = (_i: number, _j: number) => 0,
  ): number[] {
    return tabulate([2, 1, 3, 5], ([n, h, i, e]) => {
      const weights = [0, 1, 2, 3].map((j) => {
        const score =
          total([0, 1].map((d) => at(q!, [n!, h!, i!, d]) * at(k!, [n!, h!, j, d]))) / Math.sqrt(2);
        return sees(i!, j) ? Math.exp(score + bias(i!, j)) : 0;
      });
      return total(weights.map((w, j) => w * at(v!, [n!, h!, j, e!]))) / total(weights);
    });
  }

  it('averages the values by the softmax of the scaled products', () =>
    forAll(qkv, async (...x) => {
      const [q, k, v] = x.map(f64) as [Tensor, Tensor, Tensor];
      expectClose(
        await all(attention(q, k, v)),
        expected(x, () => true),
      );
    }));

  it('shows query i the keys up to i when causal', () =>
    forAll(qkv, async (...x) => {
      const [q, k, v] = x.map(f64) as [Tensor, Tensor, Tensor];
      expectClose(
        await all(attention(q, k, v, { causal: true })),
        expected(x, (i, j) => j <= i),
      );
    }));

  it('takes masks of booleans and of floats', () =>
    forAll(qkv, async (...x) => {
      const [q, k, v] = x.map(f64) as [Tensor, Tensor, Tensor];
      const visible = tensor(Uint32Array.of(1, 0, 1, 1), [1, 4], 'bool');
      expectClose(
        await all(attention(q, k, v, { mask: visible })),
        expected(x, (_i, j) => j !== 1),
      );
      const bias = tensor(Float64Array.of(0, 1, -1, 0.5, 2, 0, 0, 1, 0, 0, 3, 0), [3, 4]);
      const table = [0, 1, -1, 0.5, 2, 0, 0, 1, 0, 0, 3, 0];
      expectClose(
        await all(attention(q, k, v, { mask: bias })),
        expected(
          x,
          () => true,
          (i, j) => table[i * 4 + j]!,
        ),
      );
    }));
});

describe('losses', () => {
  const pairs = shapes({ most: 20, empty: false }).chain((shape) => fc.tuple(values(shape), values(shape)));

  it('are the means that they say', () =>
    forAll(pairs, async (a, b) => {
      const d = a!.values.map((value, i) => value - b!.values[i]!);
      expectClose(await all(meanSquaredError(f64(a!), f64(b!))), [average(d.map((v) => v * v))]);
      const huber = d.map((v) => (Math.abs(v) < 2 ? (v * v) / 2 : 2 * (Math.abs(v) - 1)));
      expectClose(await all(huberLoss(f64(a!), f64(b!), 2)), [average(huber)]);
    }));

  it('cross entropy is the mean of minus the logarithm of the label probability', () =>
    forAll(fc.tuple(values([4, 3])), async (x) => {
      const labels = [2, 0, 1, 2];
      const want = labels.map((label, i) => {
        const row = x!.values.slice(i * 3, i * 3 + 3);
        return Math.log(total(row.map(Math.exp))) - row[label]!;
      });
      expectClose(await all(crossEntropy(f64(x!), tensor(Int32Array.from(labels)))), [average(want)]);
    }));

  it('one-hot rows have their one at the index, and none outside', async () => {
    expect(await all(oneHot(tensor(Int32Array.of(1, -1, 3, 0)), 3))).toEqual([
      0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0,
    ]);
  });
});

describe('reductions', () => {
  it('min is minus the largest of the negated, for every type and at the ends of the integers', async () => {
    await forAll(one, async (x) => {
      if (numel(x!.shape) === 0) return;
      expect(await all(min(f64(x!)))).toEqual([Math.min(...x!.values)]);
    });
    expect(await all(min(tensor(Int32Array.of(5, -(2 ** 31), 7))))).toEqual([-(2 ** 31)]);
    expect(await all(min(tensor(Uint32Array.of(0, 2 ** 32 - 1, 7))))).toEqual([0]);
    expect(await all(min(tensor(Uint32Array.of(2 ** 32 - 1, 2 ** 31))))).toEqual([2 ** 31]);
  });

  it.each([31, 32, 33, 64, 1000, 1100])(
    'running sums of %i elements in runs are those one by one',
    async (length) => {
      const x = Float64Array.from({ length }, (_, i) => (i * i) % 7);
      x[length - 2] = Number.NaN; // stays out of the sums before it
      let sum = 0;
      expect(await all(cumsum(tensor(x)))).toEqual(
        [...x].map((value) => {
          sum += value;
          return sum;
        }),
      );
    },
  );

  it('keep the axes when asked, and fold in any order of axes', () =>
    forAll(fc.tuple(values([2, 3, 4])), async (x) => {
      expect(mean(f64(x!), [0, 2], true).shape).toEqual([1, 3, 1]);
      expectClose(await all(mean(f64(x!), [2, 0])), await all(mean(mean(f64(x!), 2), 0)));
      expectClose(await all(max(f64(x!), [-1, 1])), await all(max(max(f64(x!), 2), 1)));
    }));
});

describe('convolutions', () => {
  const geometry = fc.record({
    stride: fc.constantFrom(1, 2, 3),
    padding: fc.constantFrom(0, 1),
    dilation: fc.constantFrom(1, 2),
    groups: fc.constantFrom(1, 2),
    kernel: fc.constantFrom(1, 2, 3),
    outputPadding: fc.constantFrom(0, 1),
  });

  it('the transposed one is the adjoint: <y, conv x> = <convT y, x>', () =>
    fc.assert(
      fc.asyncProperty(
        geometry,
        fc.integer({ min: 1, max: 3 }),
        async ({ kernel, groups, outputPadding: _, ...options }, extent) => {
          const w = [2 * groups, 3, kernel, kernel];
          const side = extent + options.dilation * (kernel - 1) + 2;
          const wave = (shape: Shape, phase: number): Tensor =>
            tensor(
              Float64Array.from({ length: numel(shape) }, (_v, i) => Math.sin(phase + i * i)),
              shape,
            );
          const [x, weight] = [wave([2, 3 * groups, side, side], 1), wave(w, 2)];
          const out = conv2d(x, weight, null, { ...options, groups });
          const y = wave(out.shape, 3);
          const short = (side + 2 * options.padding - options.dilation * (kernel - 1) - 1) % options.stride;
          const back = convTranspose2d(y, weight, null, { ...options, groups, outputPadding: short });
          expect(back.shape).toEqual(x.shape);
          const [left, right] = [await all(sum(mul(y, out))), await all(sum(mul(back, x)))];
          expect(Math.abs(left[0]! - right[0]!)).toBeLessThan(1e-11);
        },
      ),
      { numRuns: 60 },
    ));

  it('the transposed one spreads each pixel by the kernel', async () => {
    const x = tensor(Float64Array.of(1, 10), [1, 1, 1, 2]);
    const w = tensor(Float64Array.of(1, 2, 3), [1, 1, 1, 3]);
    expect(await all(convTranspose2d(x, w, tensor(Float64Array.of(0.5)), { stride: [1, 2] }))).toEqual([
      1.5, 2.5, 13.5, 20.5, 30.5,
    ]);
  });

  it('of one pixel are linear maps', () =>
    forAll(fc.tuple(values([2, 3, 1, 1]), values([4, 3, 1, 1]), values([4])), async (...inputs) => {
      const [x, w, b] = inputs.map(f64) as [Tensor, Tensor, Tensor];
      expectClose(await all(conv2d(x, w, b)), await all(linear(reshape(x, [2, 3]), reshape(w, [4, 3]), b)));
    }));

  it('of a flipped picture with a flipped kernel are flipped', () =>
    forAll(fc.tuple(values([1, 2, 4, 3]), values([2, 2, 3, 2])), async (...inputs) => {
      const [x, w] = inputs.map(f64) as [Tensor, Tensor];
      const mirrored = conv2d(flip(x, [2, 3]), flip(w, [2, 3]), null, { padding: 1 });
      expectClose(await all(flip(mirrored, [2, 3])), await all(conv2d(x, w, null, { padding: 1 })));
    }));
});

describe('resampling', () => {
  const picture = fc.tuple(values([2, 4, 2, 4]));

  it('the nearest upsampling repeats pixels, and averaging takes it back', () =>
    forAll(picture, async (x) => {
      const up = upsampleNearest(f64(x!), 3);
      expect(await all(up)).toEqual(
        tabulate([2, 4, 6, 12], ([n, c, h, w]) => at(x!, [n!, c!, Math.floor(h! / 3), Math.floor(w! / 3)])),
      );
      expectClose(await all(averagePool(up, 3)), x!.values);
    }));

  it('pixelUnshuffle moves blocks into channels, and pixelShuffle back', () =>
    forAll(picture, async (x) => {
      const packed = pixelUnshuffle(f64(x!), 2);
      const want = tabulate([2, 16, 1, 2], ([n, c, h, w]) =>
        at(x!, [n!, Math.floor(c! / 4), h! * 2 + (Math.floor(c! / 2) % 2), w! * 2 + (c! % 2)]),
      );
      expect(await all(packed)).toEqual(want);
      expect(await all(pixelShuffle(packed, 2))).toEqual(x!.values);
    }));
});

describe('joining and splitting', () => {
  it('split, then concat or stack, gives the whole', () =>
    forAll(fc.tuple(values([2, 6, 3])), async (x) => {
      const parts = split(f64(x!), 3, 1);
      expect(parts.map(({ shape }) => shape)).toEqual([
        [2, 2, 3],
        [2, 2, 3],
        [2, 2, 3],
      ]);
      expect(await all(concat(parts, 1))).toEqual(x!.values);
      expect(await all(reshape(stack(parts, 1), [2, 6, 3]))).toEqual(x!.values);
    }));

  it('slices count negative positions from the end and cut those past it, as Python does', () =>
    forAll(fc.tuple(values([5])), async (x) => {
      const list = x!.values;
      expect(await all(slice(f64(x!), [-4], [-1], [2]))).toEqual([list[1], list[3]]);
      expect(await all(slice(f64(x!), [1], [99]))).toEqual(list.slice(1));
      expect(await all(slice(f64(x!), [4], [2]))).toEqual([]);
    }));

  it('transposing twice changes nothing', () =>
    forAll(fc.tuple(values([2, 3, 4])), async (x) => {
      expect(await all(transpose(transpose(f64(x!), 0, 2), 2, 0))).toEqual(x!.values);
    }));
});

describe('dropout', () => {
  it('keeps about the share that it says, scaled to the same mean, and everything at 0', async () => {
    const ones = tensor(new Float64Array(10_000).fill(1));
    const kept = (await all(dropout(ones, 0.3, [1, 2]))).filter((v) => v !== 0);
    // Five standard deviations of a binomial of 10,000 at 0.7 are 229.
    expect(Math.abs(kept.length - 7000)).toBeLessThan(229);
    expect(kept.every((v) => v === 1 / 0.7)).toBe(true);
    expect(dropout(ones, 0, [1, 2])).toBe(ones);
    expect(await all(dropout(neg(ones), 0.3, [1, 2]))).toEqual(
      (await all(dropout(ones, 0.3, [1, 2]))).map((v) => 0 - v),
    );
  });
});
