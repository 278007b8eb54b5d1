import { gradcheck, gradgradcheck } from '@deftjs/autograd/gradcheck';
import {
  add,
  attention,
  averagePool,
  clamp,
  conv2d,
  convTranspose2d,
  crossEntropy,
  dropout,
  gelu,
  geluTanh,
  groupNorm,
  huberLoss,
  layerNorm,
  linear,
  logSoftmax,
  logSumExp,
  matmul,
  mean,
  meanSquaredError,
  min,
  pixelShuffle,
  pixelUnshuffle,
  quickGelu,
  relu,
  rmsNorm,
  type Shape,
  sigmoid,
  silu,
  softmax,
  softplus,
  stack,
  type Tensor,
  tensor,
  upsampleNearest,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, it } from 'vitest';
import { distinct, floats, leaf, type SampleTensor, shapes, tensorOf } from '../support/op-samples.ts';

interface Case {
  readonly inputs: readonly SampleTensor[];
  readonly f: (...x: Tensor[]) => Tensor;
  /** What else f depends on, for the message. */
  readonly options?: unknown;
}

/** Values off the grid of 1/16, so that no kink (0, 1, ties) is hit. */
const off = (shape: Shape, shift = 1 / 64): fc.Arbitrary<SampleTensor> =>
  floats(shape, { low: -2, high: 2, shift });

const activation = (f: (x: Tensor) => Tensor): fc.Arbitrary<Case> =>
  shapes({ most: 8 }).chain((shape) => off(shape).map((x) => ({ inputs: [x], f })));

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
        f: (q: Tensor, k: Tensor, v: Tensor) => attention(q, k, v, { mask, causal }),
        options: { masked, causal },
      };
    }),
  );

const classes = fc.tuple(distinct([3, 4]), tensorOf([3], 'i32', fc.nat(3))).map(([logits, labels]) => ({
  inputs: [logits],
  f: (x: Tensor) => crossEntropy(x, leaf(labels)),
  options: labels.values,
}));

const compared = (f: (a: Tensor, b: Tensor) => Tensor): fc.Arbitrary<Case> =>
  shapes({ maxRank: 2, most: 8, empty: false }).chain((shape) =>
    fc
      .tuple(off(shape), floats(shape, { low: -2, high: 2, shift: 3 / 64 }))
      .map((inputs) => ({ inputs, f: f as Case['f'] })),
  );

const picture = (f: (x: Tensor) => Tensor, shape: Shape): fc.Arbitrary<Case> =>
  floats(shape).map((x) => ({ inputs: [x], f }));

const products = fc
  .tuple(shapes({ maxRank: 2, most: 2 }), fc.boolean(), fc.boolean())
  .chain(([batch, left, right]) =>
    fc
      .tuple(floats([...(left ? batch : []), 2, 3]), floats([...(right ? batch : []), 3, 2]))
      .map((inputs) => ({ inputs, f: matmul as Case['f'] })),
  );

const composites: Readonly<Record<string, fc.Arbitrary<Case>>> = {
  sigmoid: activation(sigmoid),
  silu: activation(silu),
  relu: activation(relu),
  gelu: activation(gelu),
  geluTanh: activation(geluTanh),
  quickGelu: activation(quickGelu),
  softplus: activation(softplus),
  clamp: activation((x) => clamp(x, -1, 0.5)),
  dropout: activation((x) => dropout(x, 0.5, [1, 2])),
  softmax: rows(softmax),
  logSoftmax: rows(logSoftmax),
  logSumExp: rows(logSumExp),
  min: rows(min),
  mean: rows(mean),
  layerNorm: normalised([3, 5], 5, (x, w, b) => layerNorm(x, w, b)),
  rmsNorm: normalised([3, 5], 5, (x, w, b) => add(rmsNorm(x, w), b)),
  groupNorm: normalised([2, 4, 2, 1], 4, (x, w, b) => groupNorm(x, 2, w, b)),
  linear: fc
    .tuple(floats([2, 2, 3]), floats([2, 3]), floats([2]))
    .map((inputs) => ({ inputs, f: linear as Case['f'] })),
  matmul: products,
  conv2d: convolution,
  convTranspose2d: transposed,
  attention: attending,
  meanSquaredError: compared(meanSquaredError),
  huberLoss: compared((a, b) => huberLoss(a, b, 0.75)),
  crossEntropy: classes,
  stack: compared((a, b) => stack([a, b], 0)),
  upsampleNearest: picture((x) => upsampleNearest(x, 2), [1, 2, 2, 1]),
  averagePool: picture((x) => averagePool(x, 2), [1, 2, 2, 4]),
  pixelShuffle: picture((x) => pixelShuffle(x, 2), [1, 4, 1, 2]),
  pixelUnshuffle: picture((x) => pixelUnshuffle(x, 2), [1, 1, 2, 4]),
};

describe.each(Object.entries(composites))('%s', (name, cases) => {
  const holds = (numRuns: number, check: typeof gradcheck): Promise<void> =>
    fc.assert(
      fc.asyncProperty(cases, async ({ inputs, f, options }) => {
        try {
          await check(f, inputs.map(leaf));
        } catch (cause) {
          const given = JSON.stringify({ inputs, options });
          throw new Error(`${(cause as Error).message}\n${name} of ${given}`, { cause });
        }
      }),
      { numRuns },
    );

  it('has the derivatives of its definition, in both directions', () => holds(25, gradcheck));
  it('has second derivatives', () => holds(8, gradgradcheck));
});
