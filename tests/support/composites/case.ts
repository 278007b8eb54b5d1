/** What a case of a composite is: inputs, the function, and what comes out. */
import type { Shape, Tensor } from '@deftjs/tensor';
import fc from 'fast-check';
import { floats, numbers, type SampleTensor, tensorOf } from '../samples/sample.ts';

export interface Case {
  readonly inputs: readonly SampleTensor[];
  readonly f: (...x: Tensor[]) => Tensor;
  /** The values in other words than f's; left out where a property of tests/tensor/ops/composites.test.ts states them. */
  readonly expected?: readonly number[];
  /** What else f depends on, for the message. */
  readonly options?: unknown;
}

/** A function made of ops. */
export interface Composite {
  /** All kinds of inputs: ties, extents 0 and 1, every dtype that it takes. */
  readonly valid: fc.Arbitrary<Case>;
  /** Inputs at which it has derivatives, few elements; null where it has none. */
  readonly smooth: fc.Arbitrary<Case> | null;
}

/** One arbitrary for both, where every valid case has derivatives. */
export const everywhere = (cases: fc.Arbitrary<Case>): Composite => ({ valid: cases, smooth: cases });

/** A function without derivatives. */
export const nowhere = (cases: fc.Arbitrary<Case>): Composite => ({ valid: cases, smooth: null });

/** Values off the grid of 1/16, so that no kink (0, 1, ties) is hit. */
export const off = (shape: Shape, shift = 1 / 64): fc.Arbitrary<SampleTensor> =>
  floats(shape, { low: -2, high: 2, shift });

/** Cases of one function over drawn inputs. */
export function of(
  inputs: fc.Arbitrary<readonly SampleTensor[]>,
  f: (...x: Tensor[]) => Tensor,
  expected?: (...x: SampleTensor[]) => readonly number[],
  options?: unknown,
): fc.Arbitrary<Case> {
  return inputs.map((x) => ({ inputs: x, f, ...(expected && { expected: expected(...x) }), options }));
}

/** Cases of a function of one tensor. */
export const ofOne = (
  x: fc.Arbitrary<SampleTensor>,
  f: (x: Tensor) => Tensor,
  expected?: (x: SampleTensor) => readonly number[],
  options?: unknown,
): fc.Arbitrary<Case> =>
  of(
    x.map((drawn) => [drawn]),
    f as Case['f'],
    expected && ((drawn) => expected(drawn!)),
    options,
  );

/** Cases of a function of no tensor. */
export const made = (f: () => Tensor, expected?: readonly number[]): Case => ({
  inputs: [],
  f,
  ...(expected && { expected }),
});

export const one = <T>(...list: T[]): fc.Arbitrary<T> => fc.constantFrom(...list);

/** Floats with a NaN or an infinity here and there. */
export const withSpecials = (shape: Shape): fc.Arbitrary<SampleTensor> =>
  tensorOf(
    shape,
    'f32',
    fc.oneof(
      { weight: 6, arbitrary: numbers({ low: -1, high: 1, unit: 1 / 2 }) },
      {
        weight: 1,
        arbitrary: fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY),
      },
    ),
  );

export const total = (list: readonly number[]): number => list.reduce((sum, value) => sum + value, 0);
