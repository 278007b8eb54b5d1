/** How a tensor lies in memory before an op reads it: the same values through views. */
import { expand, flip, numel, permute, type Shape, slice, type Tensor } from '@deftjs/tensor';
import { at, leaf, type SampleTensor, tabulate } from './op-samples.ts';

export const layouts = ['dense', 'transposed', 'offset', 'broadcast'] as const;
export type Layout = (typeof layouts)[number];

/** A tensor as it is stored, and as it is read. */
export interface LaidOut {
  /** What an op sees. Under 'broadcast' the first slice along the first axis, repeated: other values than the sample's. */
  readonly seen: SampleTensor;
  readonly stored: Tensor;
  readonly view: Tensor;
}

/** Axes in the opposite order. */
const reversed = <T>(list: readonly T[]): T[] => list.toReversed();

/** The sample in a layout; scalars and empty tensors have one only. */
export function laidOut(x: SampleTensor, layout: Layout): LaidOut {
  const { shape, dtype } = x;
  const plain = layout === 'dense' || shape.length === 0 || numel(shape) === 0;
  const store = (stored: Shape, values: readonly number[]): Tensor => leaf({ shape: stored, dtype, values });
  if (plain) {
    const stored = store(shape, x.values);
    return { seen: x, stored, view: stored };
  }
  if (layout === 'transposed') {
    const turned = reversed(shape);
    const stored = store(
      turned,
      tabulate(turned, (index) => at(x, reversed(index))),
    );
    return { seen: x, stored, view: permute(stored, reversed([...shape.keys()])) };
  }
  if (layout === 'offset') {
    // In a frame of ones, one place before and two after, read backwards along the last axis.
    const last = shape.length - 1;
    const frame = shape.map((extent) => extent + 3);
    const stored = store(
      frame,
      tabulate(frame, (index) => {
        const place = index.map((i) => i - 1);
        const inside = place.every((i, axis) => i >= 0 && i < shape[axis]!);
        return inside ? at(x, place.with(last, shape[last]! - 1 - place[last]!)) : 1;
      }),
    );
    const inner = slice(
      stored,
      shape.map(() => 1),
      shape.map((extent) => extent + 1),
    );
    return { seen: x, stored, view: flip(inner, last) };
  }
  const row = shape.with(0, 1);
  const values = x.values.slice(0, numel(row));
  const stored = store(row, values);
  const seen = {
    ...x,
    values: tabulate(shape, (index) => at({ ...x, shape: row, values }, index.with(0, 0))),
  };
  return { seen, stored, view: expand(stored, shape) };
}
