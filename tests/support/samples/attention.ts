/** Samples of attention and its gradients. */
import type { DType, Shape } from '@deftjs/tensor';
import fc from 'fast-check';
import {
  at,
  floats,
  type OpSamples,
  type Sample,
  type SampleTensor,
  shapes,
  tabulate,
  tensorOf,
} from './sample.ts';

interface Attrs {
  readonly scale: number;
  readonly causal: boolean;
}

type Result = 'mean' | 'logSum' | 'query' | 'key' | 'value';

const f32 = (...shape: number[]): { shape: Shape; dtype: DType } => ({ shape, dtype: 'f32' });

/** A mask of one kind; where `open`, every query sees the first two keys. */
function masks(shape: Shape, open: boolean): fc.Arbitrary<SampleTensor | null> {
  const keys = shape.at(-1)!;
  const opened = (x: SampleTensor, value: number): SampleTensor =>
    open ? { ...x, values: x.values.map((own, i) => (i % keys < 2 ? value : own)) } : x;
  const bias = fc.constantFrom(-1, 0, 0.5, ...(open ? [] : [Number.NEGATIVE_INFINITY]));
  return fc.oneof(
    fc.constant(null),
    tensorOf(shape, 'bool', fc.nat(1)).map((x) => opened(x, 1)),
    tensorOf(shape, 'f32', bias),
  );
}

/** Where no product vanishes and no two are equal: cancelled derivatives would be compared with their rounding. */
const apart = (shape: Shape): fc.Arbitrary<SampleTensor> =>
  fc.noBias(floats(shape, { low: -1, high: 1, unit: 1 / 1024, shift: 1 / 3000 }));

function drawn(result: Result, extent: fc.Arbitrary<number>, open: boolean): fc.Arbitrary<Sample<Attrs>> {
  const isGradient = result !== 'mean' && result !== 'logSum';
  // A query that sees one key has a weight of 1 whatever its score: derivatives that cancel.
  const several = open ? extent.filter((length) => length > 1) : extent;
  return fc
    .record({
      batch: shapes({ maxRank: 2, most: open ? 2 : 4, empty: !open }),
      queries: several,
      keys: several,
      width: extent,
      valueWidth: extent,
      scale: fc.constantFrom(1, 0.5, -0.25),
      causal: fc.boolean(),
    })
    .chain(({ batch, queries, keys, width, valueWidth, scale, causal }) => {
      const rows = [...batch, queries];
      const numbers = open ? apart : floats;
      const gradient = [numbers([...rows, valueWidth]), numbers(rows), numbers(rows)];
      return fc
        .tuple(
          fc.tuple(
            numbers([...rows, width]),
            numbers([...batch, keys, width]),
            numbers([...batch, keys, valueWidth]),
            ...(isGradient ? gradient : []),
          ),
          masks([...rows, keys], open),
        )
        .map(([inputs, mask]) => ({ inputs: mask ? [...inputs, mask] : inputs, attrs: { scale, causal } }));
    });
}

/**
 * A gradient's sample with its own log sums of rows: with others, weights beyond 1 leave the range of f16.
 */
function withOwnLogSums({ inputs, attrs }: Sample<Attrs>): Sample<Attrs> {
  const [q, k, v, gradient, L, ...rest] = inputs as [SampleTensor, ...SampleTensor[]];
  const mask = rest.slice(1);
  const values = attentionSamples.attentionLogSum.expected([q, k!, v!, ...mask], attrs);
  return { inputs: [q, k!, v!, gradient!, { ...L!, values }, ...rest], attrs };
}

function attention(result: Result): OpSamples<Attrs> {
  const isGradient = result !== 'mean' && result !== 'logSum';
  const rest = isGradient ? [f32(2, 5), f32(2), f32(2)] : [];
  const attrs = { scale: 1, causal: false };
  const valid = drawn(result, fc.constantFrom(2, 1, 3, 5, 9, 0), false);
  const refuses = (
    inputs: readonly { shape: Shape; dtype: DType }[],
    error: 'ShapeError' | 'DTypeError',
    message: string,
  ) => ({ inputs, attrs, error, message });
  return {
    valid: isGradient ? valid.map(withOwnLogSums) : valid,
    smooth: drawn(result, fc.constantFrom(2, 1, 3), true),
    expected: (inputs, { scale, causal }) => {
      const [q, k, v] = inputs as [SampleTensor, SampleTensor, SampleTensor];
      const [dO, L, D] = isGradient ? inputs.slice(3) : [];
      const mask = inputs[isGradient ? 6 : 3];
      const [keys, width] = k.shape.slice(-2) as [number, number];
      const [queries, valueWidth] = [q.shape.at(-2)!, v.shape.at(-1)!];
      const sum = (count: number, term: (i: number) => number): number =>
        Array.from({ length: count }, (_, i) => term(i)).reduce((partial, x) => partial + x, 0);
      const dot = (a: SampleTensor, i: readonly number[], b: SampleTensor, j: readonly number[]): number =>
        sum(a.shape.at(-1)!, (d) => at(a, [...i, d]) * at(b, [...j, d]));
      /** exp of a score. */
      const weight = (b: readonly number[], i: number, j: number): number => {
        const bias = mask ? at(mask, [...b, i, j]) : 0;
        if ((causal && j > i) || (mask?.dtype === 'bool' && bias === 0)) return 0;
        return Math.exp(scale * dot(q, [...b, i], k, [...b, j]) + (mask?.dtype === 'bool' ? 0 : bias));
      };
      const all = (b: readonly number[], i: number): number => sum(keys, (j) => weight(b, i, j));
      const P = (b: readonly number[], i: number, j: number): number =>
        weight(b, i, j) * Math.exp(-at(L!, [...b, i]));
      const dS = (b: readonly number[], i: number, j: number): number =>
        scale * P(b, i, j) * (dot(dO!, [...b, i], v, [...b, j]) - at(D!, [...b, i]));
      const batch = q.shape.slice(0, -2);
      const over = (
        count: number,
        extent: number,
        f: (b: readonly number[], i: number, e: number) => number,
      ) =>
        tabulate([...batch, count, extent], (index) => f(index.slice(0, -2), index.at(-2)!, index.at(-1)!));
      switch (result) {
        case 'mean':
          return over(queries, valueWidth, (b, i, e) => {
            const weighted = sum(keys, (j) => weight(b, i, j) * at(v, [...b, j, e]));
            return all(b, i) === 0 ? 0 : weighted / all(b, i);
          });
        case 'logSum':
          return over(queries, 1, (b, i) => {
            const total = all(b, i);
            return total === 0 ? Number.POSITIVE_INFINITY : Math.log(total);
          });
        case 'query':
          return over(queries, width, (b, i, d) => sum(keys, (j) => dS(b, i, j) * at(k, [...b, j, d])));
        case 'key':
          return over(keys, width, (b, j, d) => sum(queries, (i) => dS(b, i, j) * at(q, [...b, i, d])));
        case 'value':
          return over(keys, valueWidth, (b, j, e) => sum(queries, (i) => P(b, i, j) * at(dO!, [...b, i, e])));
      }
    },
    special: [],
    invalid: [
      refuses(
        [f32(2, 4), f32(3, 4), f32(2, 5), ...rest],
        'ShapeError',
        'expected [..., Lq, D], [..., Lk, D] and [..., Lk, E]; got [2, 4] and [3, 4] and [2, 5]',
      ),
      refuses(
        [f32(2, 4), f32(3, 4), f32(3, 5), ...rest, f32(3, 2)],
        'ShapeError',
        'expected a mask [2, 3]; got [3, 2]',
      ),
      refuses(
        [f32(2, 4), f32(3, 4), f32(3, 5), ...rest, { shape: [2, 3], dtype: 'i32' }],
        'DTypeError',
        'expected a mask of bool or f32; got i32',
      ),
      ...(isGradient
        ? [
            refuses(
              [f32(2, 4), f32(3, 4), f32(3, 5), f32(2, 4), f32(2), f32(2)],
              'ShapeError',
              'expected a cotangent [2, 5]; got [2, 4]',
            ),
            refuses(
              [f32(2, 4), f32(3, 4), f32(3, 5), f32(2, 5), f32(3), f32(2)],
              'ShapeError',
              'expected sums of rows [2]; got [3] and [2]',
            ),
          ]
        : []),
    ],
  };
}

export const attentionSamples = {
  attention: attention('mean'),
  attentionLogSum: attention('logSum'),
  attentionQuery: attention('query'),
  attentionKey: attention('key'),
  attentionValue: attention('value'),
};
