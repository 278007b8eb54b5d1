import { numel, type Shape } from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readView } from '../../packages/tensor/src/ops/movement.ts';
import {
  contiguousView,
  expandView,
  isContiguous,
  mergeAxes,
  padView,
  permuteView,
  rangeOf,
  reshapeView,
  sliceView,
  type View,
  windowView,
} from '../../packages/tensor/src/view.ts';
import { indices, tabulate } from '../support/op-samples.ts';

/** Values with a shape, moved by copying: what views must read. */
interface Copy {
  readonly shape: Shape;
  readonly values: readonly number[];
}

const at = ({ shape, values }: Copy, index: readonly number[]): number =>
  values[index.reduce((place, i, axis) => place * shape[axis]! + i, 0)]!;

/** One movement: of a view, and by copying. */
interface Move {
  readonly name: string;
  view(view: View): View | null;
  copy(copy: Copy): Copy;
}

const moved = (shape: Shape, value: (index: readonly number[]) => number): Copy => ({
  shape,
  values: tabulate(shape, value),
});

/** The movements that a shape allows, with random parameters. */
function moves(shape: Shape): fc.Arbitrary<Move> {
  const axes = [...shape.keys()];
  const permuted = fc.shuffledSubarray(axes, { minLength: axes.length }).map(
    (order): Move => ({
      name: `permute ${order}`,
      view: (view) => permuteView(view, order),
      copy: (copy) =>
        moved(
          order.map((axis) => shape[axis]!),
          (index) =>
            at(
              copy,
              axes.map((axis) => index[order.indexOf(axis)]!),
            ),
        ),
    }),
  );
  const stretched = fc.tuple(fc.constantFrom(2, 3), fc.boolean()).map(([by, lead]): Move => {
    const to = [
      ...(lead && shape.length < 5 ? [by] : []),
      ...shape.map((extent) => (extent === 1 ? by : extent)),
    ];
    return {
      name: `expand ${to}`,
      view: (view) => expandView(view, to),
      copy: (copy) =>
        moved(to, (index) =>
          at(
            copy,
            index.slice(to.length - shape.length).map((i, axis) => (shape[axis] === 1 ? 0 : i)),
          ),
        ),
    };
  });
  const runs = shape.map((extent) =>
    fc.tuple(fc.nat(Math.max(0, extent - 1)), fc.constantFrom(1, 2, -1), fc.nat()).map(([start, step, n]) => {
      const most = extent === 0 ? 0 : step > 0 ? Math.ceil((extent - start) / step) : start + 1;
      // Mostly something: empty tensors end the chain.
      return { start, step, count: most === 0 ? 0 : 1 + (n % most) };
    }),
  );
  const sliced = fc.tuple(...runs).map((chosen): Move => {
    const to = chosen.map(({ count }) => count);
    return {
      name: `slice ${JSON.stringify(chosen)}`,
      view: (view) =>
        sliceView(
          view,
          chosen.map(({ start }) => start),
          to,
          chosen.map(({ step }) => step),
        ),
      copy: (copy) =>
        moved(to, (index) =>
          at(
            copy,
            index.map((i, axis) => chosen[axis]!.start + chosen[axis]!.step * i),
          ),
        ),
    };
  });
  const amounts = fc.array(fc.nat(1), { minLength: shape.length, maxLength: shape.length });
  const padded = fc.tuple(amounts, amounts).map(
    ([before, after]): Move => ({
      name: `pad ${before} ${after}`,
      view: (view) => padView(view, before, after),
      copy: (copy) =>
        moved(
          shape.map((extent, axis) => extent + before[axis]! + after[axis]!),
          (index) => {
            const inner = index.map((i, axis) => i - before[axis]!);
            return inner.every((i, axis) => i >= 0 && i < shape[axis]!) ? at(copy, inner) : 0;
          },
        ),
    }),
  );
  const windowed = fc
    .tuple(fc.nat(), fc.constantFrom(1, 2), fc.constantFrom(1, 2), fc.constantFrom(1, 2))
    .map(([n, size, stride, dilation]): Move => {
      const axis = n % Math.max(1, shape.length);
      const reach = dilation * (size - 1) + 1;
      const [width, by] =
        shape.length > 0 && shape.length < 5 && shape[axis]! >= reach ? [size, dilation] : [1, 1];
      const positions = Math.floor((shape[axis]! - by * (width - 1) - 1) / stride) + 1;
      const usable = shape.length > 0 && shape.length < 5 && shape[axis]! > 0;
      return {
        name: `window ${axis} ${width} ${stride} ${by}`,
        view: (view) => (usable ? windowView(view, axis, width, stride, by) : view),
        copy: (copy) =>
          usable
            ? moved([...shape.with(axis, positions), width], (index) =>
                at(copy, index.slice(0, -1).with(axis, index[axis]! * stride + index.at(-1)! * by)),
              )
            : copy,
      };
    });
  const reshaped = fc.nat(3).map((how): Move => {
    const to =
      how === 0
        ? [numel(shape)]
        : how === 1
          ? [...shape, 1]
          : how === 2
            ? mergedAt(shape, 0)
            : mergedAt(shape, shape.length - 2);
    return {
      name: `reshape ${to}`,
      view: (view) => reshapeView(view, to),
      copy: ({ values }) => ({ shape: to, values }),
    };
  });
  return fc.oneof(permuted, stretched, sliced, padded, windowed, reshaped, reshaped);
}

function mergedAt(shape: Shape, axis: number): Shape {
  return axis >= 0 && axis + 1 < shape.length
    ? shape.toSpliced(axis, 2, shape[axis]! * shape[axis + 1]!)
    : shape;
}

/** The buffer that views read. */
const data = Float64Array.from({ length: 400 }, (_, i) => i + 1);

function read(view: View): number[] {
  return [...readView(data, view)];
}

/** A shape and a chain of movements from it. */
const chains = fc
  .array(fc.constantFrom(2, 1, 3, 4), { maxLength: 4 })
  .chain((shape) => fc.tuple(fc.constant(shape), chainOf(shape, 5)));

function chainOf(shape: Shape, length: number): fc.Arbitrary<Move[]> {
  if (length === 0) return fc.constant([]);
  return moves(shape).chain((move) => {
    const next = move.copy({ shape, values: new Array(numel(shape)).fill(0) }).shape;
    if (numel(next) > 300) return fc.constant([]);
    return chainOf(next, length - 1).map((rest) => [move, ...rest]);
  });
}

describe('views', () => {
  it('read what copying would have moved, along any chain of movements', () => {
    fc.assert(
      fc.property(chains, ([shape, chain]) => {
        let copy: Copy = { shape, values: [...data.slice(0, numel(shape))] };
        let view = contiguousView(shape);
        const done: string[] = [];
        for (const move of chain) {
          const next = move.view(view);
          done.push(move.name);
          if (next === null) return; // needs a copy: see below
          copy = move.copy(copy);
          view = next;
          expect(view.shape, done.join('; ')).toEqual(copy.shape);
          expect(read(view), done.join('; ')).toEqual(copy.values);
          if (isContiguous(view)) expect(copy.values).toEqual([...data.slice(0, numel(view.shape))]);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('fail to reshape only where no view could read the elements in order', () => {
    let failures = 0;
    fc.assert(
      fc.property(chains, ([shape, chain]) => {
        let view = contiguousView(shape);
        for (const move of chain) {
          const next = move.view(view);
          if (next !== null) {
            view = next;
            continue;
          }
          failures += 1;
          const target = move.copy({ shape: view.shape, values: new Array(numel(view.shape)).fill(0) }).shape;
          expect(isReadable(view, target), `${JSON.stringify(view)} as [${target}]`).toBe(false);
          return;
        }
      }),
      { numRuns: 1000 },
    );
    expect(failures).toBeGreaterThan(10);
  });

  it('know the range of an affine function', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: -3, max: 3 })), { maxLength: 3 }),
        fc.integer(),
        (axes, offset) => {
          const f = { offset, strides: axes.map(([, stride]) => stride) };
          const shape = axes.map(([extent]) => extent);
          const values = tabulate(shape, (index) =>
            index.reduce((sum, i, axis) => sum + i * f.strides[axis]!, offset),
          );
          expect(rangeOf(f, shape)).toEqual({ low: Math.min(...values), high: Math.max(...values) });
        },
      ),
    );
  });

  it('merge neighbouring axes exactly where every function steps evenly over both', () => {
    fc.assert(
      fc.property(chains, ([shape, chain]) => {
        let view = contiguousView(shape);
        for (const move of chain) {
          const next = move.view(view);
          if (next === null) break; // the moves that follow are made for its shape
          view = next;
        }
        const functions = [view, ...view.guards];
        const merged = mergeAxes(view.shape, functions);
        expect(numel(merged.shape)).toBe(numel(view.shape));
        // Each function is affine in the merged index too: it has the stride of the last axis merged.
        const strides = functions.map((f) => merged.kept.map((axes) => f.strides[axes.at(-1)!]!));
        const values = functions.map((f, k) =>
          tabulate(merged.shape, (index) =>
            index.reduce((sum, i, axis) => sum + i * strides[k]![axis]!, f.offset),
          ),
        );
        functions.forEach((f, k) => {
          expect(values[k]).toEqual(
            tabulate(view.shape, (index) =>
              index.reduce((sum, i, axis) => sum + i * f.strides[axis]!, f.offset),
            ),
          );
        });
      }),
      { numRuns: 300 },
    );
  });
});

/**
 * Whether affine functions of an index over `target` give the view's address and guards at every position: their
 * strides are forced by the first step along each axis, so it is enough to try those.
 */
function isReadable(view: View, target: Shape): boolean {
  const from = indices(view.shape);
  const to = indices(target);
  return [view, ...view.guards].every(({ offset, strides }) => {
    const values = from.map((index) => index.reduce((sum, i, axis) => sum + i * strides[axis]!, offset));
    const steps = target.map((extent, axis) => {
      const first = to.findIndex(
        (index) => index[axis] === 1 && index.every((i, other) => other === axis || i === 0),
      );
      return extent > 1 ? values[first]! - values[0]! : 0;
    });
    return to.every(
      (index, place) => values[place] === index.reduce((sum, i, axis) => sum + i * steps[axis]!, values[0]!),
    );
  });
}
