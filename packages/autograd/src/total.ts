/** Sums of cotangents that arrived at one tensor. */
import { add, concat, type Tensor, zeros } from '@deftjs/tensor';

/** A cotangent of a part of a tensor, which lies between `start` and `end` of an axis. */
interface Section {
  readonly axis: number;
  readonly start: number;
  readonly end: number;
  readonly part: Tensor;
}

/**
 * The sum. Where a tensor was cut into parts along an axis, as `split` and `narrow` do, the cotangents are those parts with
 * zeros around them, and their sum is the parts side by side: each is written once, and no zeros are added.
 */
export function total(arrived: readonly Tensor[]): Tensor {
  return sideBySide(arrived) ?? arrived.reduce((a, b) => add(a, b));
}

function sideBySide(arrived: readonly Tensor[]): Tensor | null {
  const [first] = arrived;
  const sections: Section[] = [];
  for (const x of arrived) {
    const section = sectionOf(x);
    if (section === null || section.axis !== (sections[0]?.axis ?? section.axis)) return null;
    sections.push(section);
  }
  sections.sort((a, b) => a.start - b.start);
  const { axis } = sections[0]!;
  const extent = first!.shape[axis]!;
  const gap = (size: number): Tensor[] =>
    size > 0 ? [zeros(first!.shape.with(axis, size), first!.dtype)] : [];
  const parts: Tensor[] = [];
  let at = 0;
  for (const { start, end, part } of sections) {
    if (start < at) return null; // they overlap
    parts.push(...gap(start - at), part);
    at = end;
  }
  return concat([...parts, ...gap(extent - at)], axis);
}

/** x as a part with zeros around it along one axis; null where it is something else. */
function sectionOf({ source, shape }: Tensor): Section | null {
  if (source.kind !== 'applied' || source.op.name !== 'pad') return null;
  const { before, after } = source.attrs as { before: readonly number[]; after: readonly number[] };
  const axes = shape.map((_, axis) => axis).filter((axis) => before[axis]! + after[axis]! > 0);
  const [axis] = axes;
  if (axis === undefined || axes.length > 1) return null;
  return { axis, start: before[axis]!, end: shape[axis]! - after[axis]!, part: source.inputs[0]! };
}
