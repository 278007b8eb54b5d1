/** Cases of the functions that models are made of: activations, norms, products, convolutions, pictures, losses. */
import * as api from '@deftjs/tensor';
import { attention, conv2d, convTranspose2d, matmul, type Shape, type Tensor, tensor } from '@deftjs/tensor';
import fc from 'fast-check';
import {
  at,
  distinct,
  floats,
  leaf,
  type SampleTensor,
  shapes,
  tabulate,
  tensorOf,
} from '../samples/sample.ts';
import { type Case, type Composite, everywhere, made, nowhere, of, off, ofOne, one, total } from './case.ts';

const activation = (f: (x: Tensor) => Tensor): Composite =>
  everywhere(shapes({ most: 8 }).chain((shape) => ofOne(off(shape), f)));

/** Rows of distinct values along some axis: norms and softmax. */
const rows = (f: (x: Tensor, axis: number) => Tensor): fc.Arbitrary<Case> =>
  fc.tuple(shapes({ minRank: 1, maxRank: 3, most: 12, empty: false }), fc.nat()).chain(([shape, n]) =>
    distinct(shape).map((x) => {
      const axis = n % shape.length;
      return { inputs: [x], f: (t: Tensor) => f(t, axis), options: { axis } };
    }),
  );

/** A picture or rows whose standard deviation is about 1 or 1/20, where eps counts, with weight and bias. */
const normalised = (
  shape: Shape,
  channels: number,
  f: (x: Tensor, w: Tensor, b: Tensor) => Tensor,
): fc.Arbitrary<Case> =>
  fc
    .tuple(distinct(shape), off([channels]), off([channels]), fc.constantFrom(1, 1 / 16))
    .map(([x, w, b, scale]) => ({
      inputs: [{ ...x, values: x.values.map((value) => value * scale) }, w, b],
      f: f as Case['f'],
      options: { scale },
    }));

interface Geometry {
  readonly stride: readonly [number, number];
  readonly padding: readonly [number, number];
  readonly dilation: readonly [number, number];
  readonly groups: number;
}

const pair = (...values: number[]): fc.Arbitrary<[number, number]> =>
  fc.tuple(fc.constantFrom(...values), fc.constantFrom(...values));

const geometries: fc.Arbitrary<Geometry> = fc.record({
  stride: pair(1, 2),
  padding: pair(0, 1, 2),
  dilation: pair(1, 2),
  groups: fc.constantFrom(1, 2),
});

const convolution = fc.tuple(geometries, pair(1, 2, 3)).chain(([options, kernel]) => {
  const size = kernel.map((extent, i) => options.dilation[i]! * (extent - 1) + 1);
  return fc
    .tuple(
      floats([1, 2 * options.groups, size[0]!, size[1]! + 1]),
      floats([options.groups, 2, ...kernel]),
      floats([options.groups]),
    )
    .map((inputs) => ({ inputs, f: (x: Tensor, w: Tensor, b: Tensor) => conv2d(x, w, b, options), options }));
});

const transposed = fc.tuple(geometries, pair(1, 2, 3)).chain(([{ padding: _, ...options }, kernel]) =>
  fc
    .tuple(
      floats([1, 2 * options.groups, 2, 1]),
      floats([2 * options.groups, 2, ...kernel]),
      floats([2 * options.groups]),
    )
    .map((inputs) => ({
      inputs,
      f: (x: Tensor, w: Tensor, b: Tensor) => convTranspose2d(x, w, b, options),
      options,
    })),
);

const attending = fc
  .record({
    masked: fc.constantFrom('none', 'bool', 'floats'),
    causal: fc.boolean(),
    keys: fc.constantFrom(1, 3),
  })
  .chain(({ masked, causal, keys }) =>
    fc.tuple(floats([1, 2, 2, 2]), floats([1, 2, keys, 2]), floats([1, 2, keys, 3])).map((inputs) => {
      // Every query sees the first key at least: a row of -Infinity has no derivative.
      const visible = Uint32Array.from({ length: 2 * keys }, (_, i) => Number(i % keys === 0 || i % 2 === 0));
      const bias = Float32Array.from({ length: 2 * keys }, (_, i) => (i % 3) / 4);
      const mask =
        masked === 'none'
          ? null
          : masked === 'bool'
            ? tensor(visible, [2, keys], 'bool')
            : tensor(bias, [2, keys]);
      return {
        inputs,
        f: (q: Tensor, k: Tensor, v: Tensor) =>
          attention(q, k, v, { mask: mask && masked === 'floats' ? api.cast(mask, q.dtype) : mask, causal }),
        options: { masked, causal },
      };
    }),
  );

/** Class labels, some ignored, some smoothed; by the definition, target by target. */
const classes: fc.Arbitrary<Case> = fc
  .tuple(
    distinct([3, 4]),
    tensorOf([3], 'i32', fc.nat(3)),
    one(0, 1 / 8),
    one<number | undefined>(undefined, 1, -100),
  )
  .map(([logits, labels, labelSmoothing, ignoreIndex]) => {
    const options = { labelSmoothing, ...(ignoreIndex !== undefined && { ignoreIndex }) };
    const counted = [0, 1, 2].filter((row) => labels.values[row] !== ignoreIndex);
    const losses = counted.map((row) => {
      const line = [0, 1, 2, 3].map((c) => at(logits, [row, c]));
      const sum = total(line.map(Math.exp));
      const target = (c: number): number =>
        Number(c === labels.values[row]) * (1 - labelSmoothing) + labelSmoothing / 4;
      return -total(line.map((v, c) => target(c) * Math.log(Math.exp(v) / sum)));
    });
    return {
      inputs: [logits],
      f: (x: Tensor) => api.crossEntropy(x, leaf(labels), options),
      expected: [total(losses) / losses.length],
      options: { labels: labels.values, ...options },
    };
  });

/** Those of them that count a row at least: the mean of none has no derivative. */
const countedClasses = classes.filter(({ expected }) => !Number.isNaN(expected![0]!));

const compared = (
  f: (a: Tensor, b: Tensor) => Tensor,
  expected?: (a: readonly number[], b: readonly number[]) => readonly number[],
): Composite =>
  everywhere(
    shapes({ maxRank: 2, most: 8, empty: false }).chain((shape) =>
      of(
        fc.tuple(off(shape), floats(shape, { low: -2, high: 2, shift: 3 / 64 })),
        f as Case['f'],
        expected && ((a, b) => expected(a!.values, b!.values)),
      ),
    ),
  );

const picture = (f: (x: Tensor) => Tensor, shape: Shape): Composite => everywhere(ofOne(floats(shape), f));

const products = fc
  .tuple(shapes({ maxRank: 2, most: 2 }), fc.boolean(), fc.boolean())
  .chain(([batch, left, right]) =>
    fc
      .tuple(floats([...(left ? batch : []), 2, 3]), floats([...(right ? batch : []), 3, 2]))
      .map((inputs) => ({ inputs, f: matmul as Case['f'] })),
  );

interface Pooling {
  readonly kernel: [number, number];
  readonly stride: [number, number];
  readonly padding: [number, number];
}

const poolings: fc.Arbitrary<Pooling> = fc
  .record({ kernel: pair(1, 2, 3), stride: pair(1, 2, 3), padding: pair(0, 1) })
  .map(({ kernel, stride, padding }) => ({
    kernel,
    stride,
    padding: padding.map((v, i) => Math.min(v, Math.floor(kernel[i]! / 2))) as [number, number],
  }));

/** Windows of pixels one by one; those of the padding are not there. */
function pooled(
  x: SampleTensor,
  { kernel, stride, padding }: Pooling,
  fold: (pixels: number[]) => number,
): number[] {
  const [n, c, h, w] = x.shape as [number, number, number, number];
  const size = [h, w].map(
    (extent, i) => Math.floor((extent + 2 * padding[i]! - kernel[i]!) / stride[i]!) + 1,
  );
  return tabulate([n, c, ...size], ([i, j, oh, ow]) => {
    const pixels: number[] = [];
    for (let kh = 0; kh < kernel[0]; kh += 1)
      for (let kw = 0; kw < kernel[1]; kw += 1) {
        const [y, z] = [oh! * stride[0] + kh - padding[0], ow! * stride[1] + kw - padding[1]];
        if (y >= 0 && z >= 0 && y < h && z < w) pixels.push(at(x, [i!, j!, y, z]));
      }
    return fold(pixels);
  });
}

const pooling = (
  f: (x: Tensor, kernel: [number, number], options: Pooling) => Tensor,
  fold: (pixels: number[], area: number) => number,
): Composite =>
  everywhere(
    fc.tuple(poolings, one(0, 1), one(1, 2)).chain(([options, more, n]) =>
      ofOne(
        distinct([n, 1, options.kernel[0] + more, options.kernel[1] + 1]),
        (x) => f(x, options.kernel, options),
        (x) => pooled(x, options, (pixels) => fold(pixels, options.kernel[0] * options.kernel[1])),
        options,
      ),
    ),
  );

/** Along one axis, at a place between pixels: each pixel by its distance, cut at the picture's ends. */
const tent = (place: number, pixel: number, extent: number): number =>
  Math.max(0, 1 - Math.abs(Math.min(extent - 1, Math.max(0, place)) - pixel));

const resized = (
  f: (x: Tensor, size: [number, number], alignCorners: boolean) => Tensor,
  weight: (at: number, from: number, to: number, pixel: number, alignCorners: boolean) => number,
): Composite =>
  everywhere(
    fc.tuple(pair(1, 2, 3), pair(1, 2, 4, 5), fc.boolean(), one(1, 2)).chain(([from, to, alignCorners, n]) =>
      ofOne(
        floats([n, 1, ...from]),
        (x) => f(x, to, alignCorners),
        (x) =>
          tabulate([n, 1, ...to], ([i, c, h, w]) =>
            total(
              tabulate(
                from,
                ([a, b]) =>
                  weight(h!, from[0], to[0], a!, alignCorners) *
                  weight(w!, from[1], to[1], b!, alignCorners) *
                  at(x, [i!, c!, a!, b!]),
              ),
            ),
          ),
        { from, to, alignCorners },
      ),
    ),
  );

/** Every pair of channels as a complex number times e^(i t). */
const rotations: Composite = everywhere(
  fc
    .tuple(one('interleaved' as const, 'halves' as const), one(1, 2, 3), one(2, 4))
    .chain(([pairs, length, width]) => {
      const positions = [0, 5, 1.5].slice(0, length);
      const half = width / 2;
      return ofOne(
        floats([2, length, width]),
        (x) => {
          const { cos, sin } = api.rotaryTable(positions, width, 100);
          return api.rope(x, { cos: api.cast(cos, x.dtype), sin: api.cast(sin, x.dtype) }, { pairs });
        },
        (x) =>
          tabulate(x.shape, ([b, t, d]) => {
            const i = pairs === 'halves' ? d! % half : Math.floor(d! / 2);
            const [re, im] = pairs === 'halves' ? ([i, i + half] as const) : ([2 * i, 2 * i + 1] as const);
            const angle = positions[t!]! * 100 ** (-i / half);
            const [c, s] = [Math.fround(Math.cos(angle)), Math.fround(Math.sin(angle))];
            const [u, v] = [at(x, [b!, t!, re]), at(x, [b!, t!, im])];
            return d === re ? u * c - v * s : u * s + v * c;
          }),
        { pairs, width, positions },
      );
    }),
);

const drawn = (f: (key: api.Key, shape: Shape) => Tensor): Composite =>
  nowhere(
    fc.tuple(shapes({ most: 40 }), fc.nat(), fc.nat()).map(([shape, a, b]) => ({
      ...made(() => f([a, b], shape)),
      options: { key: [a, b], shape },
    })),
  );

const average = (list: readonly number[]): number => total(list) / list.length;

export const layerComposites = {
  sigmoid: activation(api.sigmoid),
  silu: activation(api.silu),
  relu: activation(api.relu),
  gelu: activation(api.gelu),
  geluTanh: activation(api.geluTanh),
  quickGelu: activation(api.quickGelu),
  softplus: activation(api.softplus),
  clamp: activation((x) => api.clamp(x, -1, 0.5)),
  dropout: activation((x) => api.dropout(x, 0.5, [1, 2])),
  softmax: everywhere(rows(api.softmax)),
  logSoftmax: everywhere(rows(api.logSoftmax)),
  logSumExp: everywhere(rows(api.logSumExp)),
  standardize: everywhere(rows((x, axis) => api.standardize(x, axis, 1 / 64))),
  layerNorm: everywhere(normalised([3, 5], 5, (x, w, b) => api.layerNorm(x, w, b))),
  rmsNorm: everywhere(normalised([3, 5], 5, (x, w, b) => api.add(api.rmsNorm(x, w), b))),
  groupNorm: everywhere(normalised([2, 4, 2, 1], 4, (x, w, b) => api.groupNorm(x, 2, w, b))),
  linear: everywhere(of(fc.tuple(floats([2, 2, 3]), floats([2, 3]), floats([2])), api.linear as Case['f'])),
  convTranspose2d: everywhere(transposed),
  attention: everywhere(attending),
  meanSquaredError: compared(api.meanSquaredError),
  meanAbsoluteError: compared(api.meanAbsoluteError, (a, b) => [
    average(a.map((v, i) => Math.abs(v - b[i]!))),
  ]),
  huberLoss: compared((a, b) => api.huberLoss(a, b, 0.75)),
  binaryCrossEntropy: compared(
    (a, b) => api.binaryCrossEntropy(a, api.add(api.mul(b, 1 / 8), 1 / 2)),
    (a, b) => [
      average(
        a.map((v, i) => {
          const [p, t] = [1 / (1 + Math.exp(-v)), b[i]! / 8 + 1 / 2];
          return -t * Math.log(p) - (1 - t) * Math.log(1 - p);
        }),
      ),
    ],
  ),
  crossEntropy: { valid: classes, smooth: countedClasses },
  oneHot: nowhere(
    shapes({ maxRank: 2 }).chain((shape) =>
      ofOne(
        tensorOf(shape, 'i32', fc.integer({ min: -1, max: 3 })),
        (x) => api.oneHot(x, 3),
        (x) => x.values.flatMap((v) => [0, 1, 2].map((c) => Number(c === v))),
      ),
    ),
  ),
  upsampleNearest: picture((x) => api.upsampleNearest(x, 2), [1, 2, 2, 1]),
  averagePool: pooling(api.averagePool, (pixels, area) => total(pixels) / area),
  maxPool: pooling(api.maxPool, (pixels) => Math.max(...pixels)),
  pixelShuffle: picture((x) => api.pixelShuffle(x, 2), [1, 4, 1, 2]),
  pixelUnshuffle: picture((x) => api.pixelUnshuffle(x, 2), [1, 1, 2, 4]),
  interpolateNearest: resized(api.interpolateNearest, (i, from, to, pixel) =>
    Number(pixel === Math.floor((i * from) / to)),
  ),
  interpolateBilinear: resized(
    (x, size, alignCorners) => api.interpolateBilinear(x, size, { alignCorners }),
    (i, from, to, pixel, corners) =>
      tent(
        corners ? (to === 1 ? 0 : (i * (from - 1)) / (to - 1)) : (i + 0.5) * (from / to) - 0.5,
        pixel,
        from,
      ),
  ),
  rope: rotations,
  randomBits: drawn(api.randomBits),
  randomUniform: drawn(api.randomUniform),
  randomBernoulli: drawn((key, shape) => api.randomBernoulli(key, shape, 0.3)),
  randomInteger: drawn((key, shape) => api.randomInteger(key, shape, -5, 2 ** 31)),
  randomNormal: drawn(api.randomNormal),
  randomTruncatedNormal: drawn((key, shape) => api.randomTruncatedNormal(key, shape)),
  randomPermutation: drawn((key, shape) => api.randomPermutation(key, shape.length)),
} satisfies Readonly<Record<string, Composite>>;

/** The primitives that broadcast, or take options, around their op: what the op's own samples do not see. */
export const wrappedOps = {
  matmul: everywhere(products),
  conv2d: everywhere(convolution),
} satisfies Readonly<Record<string, Composite>>;
