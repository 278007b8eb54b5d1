import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cutsOf, digitsOf, indicesOf } from '../../../packages/tensor/src/compiler/digits.ts';
import { contiguousStrides, numel } from '../../../packages/tensor/src/shape.ts';
import {
  type Affine,
  contiguousView,
  permuteView,
  reshapeView,
  sliceView,
  type View,
} from '../../../packages/tensor/src/view.ts';

function indices(shape: readonly number[]): number[][] {
  return shape.reduce<number[][]>(
    (all, extent) => all.flatMap((index) => Array.from({ length: extent }, (_, i) => [...index, i])),
    [[]],
  );
}

function at({ offset, strides }: Affine, index: readonly number[]): number {
  return index.reduce((sum, i, axis) => sum + strides[axis]! * i, offset);
}

/** A shape, and a view that reads a value of it with axes cut and permuted. */
const orders = fc
  .array(fc.constantFrom(1, 2, 3, 4, 6), { minLength: 1, maxLength: 4 })
  .chain((shape) =>
    fc.record({
      shape: fc.constant(shape),
      cut: fc.array(fc.constantFrom(1, 2, 3), { minLength: shape.length, maxLength: shape.length }),
      order: fc.shuffledSubarray(
        [...shape.keys(), ...shape.keys()].map((_, i) => i),
        {
          minLength: 2 * shape.length,
          maxLength: 2 * shape.length,
        },
      ),
    }),
  )
  .map(({ shape, cut, order }) => {
    const axes = shape.flatMap((extent, axis) =>
      extent % cut[axis]! === 0 ? [cut[axis]!, extent / cut[axis]!] : [1, extent],
    );
    return { shape, view: permuteView(reshapeView(contiguousView(shape), axes)!, order) };
  });

describe('digits', () => {
  it('spell every order of cut axes', () => {
    fc.assert(
      fc.property(orders, ({ shape, view }) => {
        const digits = digitsOf(view, shape);
        if (digits === null) return; // boundaries that interleave
        const bases = digits.read.map(digits.base);
        expect(numel(bases)).toBe(numel(shape));
        const spelled: Affine = { offset: 0, strides: digits.read };
        expect(indices(bases).map((index) => at(spelled, index))).toEqual(
          indices(view.shape).map((index) => at(view, index)),
        );
        expect([...digits.own.flat()].sort()).toEqual([...digits.read].sort());
      }),
    );
  });

  it('are none for a view that reads an element twice, or not at all', () => {
    const repeated: View = { shape: [2, 2], offset: 0, strides: [0, 1], guards: [] };
    expect(digitsOf(repeated, [4])).toBeNull();
    expect(digitsOf(sliceView(contiguousView([4]), [0], [2], [1]), [4])).toBeNull();
    expect(digitsOf(sliceView(contiguousView([4]), [3], [4], [-1]), [4])).toBeNull();
  });
});

describe('indices', () => {
  it('find along each axis what a view reads, after the cuts that it needs', () => {
    fc.assert(
      fc.property(orders, ({ shape, view }) => {
        const cuts = cutsOf(view, shape).flat();
        const cut = reshapeView(view, cuts)!;
        const rows = indicesOf(cut, shape);
        if (rows === null) return;
        const strides = contiguousStrides(shape);
        for (const index of indices(cut.shape)) {
          const place = rows.map((row) => at(row, index));
          expect(place.every((i, axis) => i >= 0 && i < shape[axis]!)).toBe(true);
          expect(at({ offset: 0, strides }, place)).toBe(at(cut, index));
        }
      }),
    );
  });

  it('refuse a window that runs over the end of an axis', () => {
    const window: View = { shape: [2, 3], offset: 0, strides: [1, 1], guards: [] };
    expect(indicesOf(window, [3, 4])).toEqual([
      { offset: 0, strides: [0, 0] },
      { offset: 0, strides: [1, 1] },
    ]);
    expect(indicesOf(window, [4, 3])).toBeNull();
  });
});
