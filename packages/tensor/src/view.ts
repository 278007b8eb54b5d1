/**
 * Views: how an index space reads a row-major buffer without a copy.
 *
 * A view of shape (n_0 ... n_{r-1}) reads, at index x, the element
 *
 *     address(x) = offset + sum_i strides_i x_i                                             (1)
 *
 * provided every guard holds, and zero otherwise:
 *
 *     0 <= guard.offset + sum_i guard.strides_i x_i < guard.limit                           (2)
 *
 * Every movement op is an affine substitution x_a = d_a + sum_j c_aj x'_j in (1) and (2): permute, expand, slice and
 * flip change only (1), pad adds a guard, and a sliding window (the im2col of a convolution) turns one axis into two.
 * Only a reshape that merges axes can fail: then the axes are not evenly spaced in memory and a copy is needed.
 */
import { contiguousStrides, numel, type Shape } from './shape.ts';

/** One affine function of the index: offset + sum_i strides_i x_i. */
export interface Affine {
  readonly offset: number;
  readonly strides: readonly number[];
}

/** In bounds iff the affine function lies in [0, limit). */
export interface Guard extends Affine {
  readonly limit: number;
}

export interface View extends Affine {
  readonly shape: Shape;
  readonly guards: readonly Guard[];
}

/** The view that reads a row-major buffer of this shape as it is. */
export function contiguousView(shape: Shape): View {
  return { shape, strides: contiguousStrides(shape), offset: 0, guards: [] };
}

/** Whether the view reads element i of the buffer at row-major position i. */
export function isContiguous(view: View): boolean {
  if (view.offset !== 0 || view.guards.length > 0) return false;
  const strides = contiguousStrides(view.shape);
  return view.shape.every((extent, axis) => extent === 1 || view.strides[axis] === strides[axis]);
}

function substituteAffine(f: Affine, rows: readonly Affine[], rank: number): Affine {
  let offset = f.offset;
  const strides = new Array<number>(rank).fill(0);
  rows.forEach((row, axis) => {
    const factor = f.strides[axis]!;
    offset += factor * row.offset;
    for (let j = 0; j < rank; j += 1) strides[j]! += factor * row.strides[j]!;
  });
  return { offset, strides };
}

/** Smallest and largest value of an affine function over an index space. */
export function rangeOf(f: Affine, shape: Shape): { low: number; high: number } {
  let low = f.offset;
  let high = f.offset;
  f.strides.forEach((stride, axis) => {
    const reach = stride * (shape[axis]! - 1);
    if (reach < 0) low += reach;
    else high += reach;
  });
  return { low, high };
}

/**
 * The view after x_a = rows[a](x'), with x' in the new shape: one row for each old axis. Guards that hold everywhere
 * on the new shape are dropped.
 */
export function substitute(view: View, shape: Shape, rows: readonly Affine[]): View {
  const rank = shape.length;
  const guards = view.guards.map((guard) => ({ ...substituteAffine(guard, rows, rank), limit: guard.limit }));
  return {
    ...substituteAffine(view, rows, rank),
    shape,
    guards: guards.filter((guard) => canFail(guard, shape)),
  };
}

function canFail(guard: Guard, shape: Shape): boolean {
  const { low, high } = rangeOf(guard, shape);
  return numel(shape) > 0 && (low < 0 || high >= guard.limit);
}

/** The affine function that is axis `axis` of an index of the given rank, scaled and shifted. */
export function axisOf(rank: number, axis: number, stride = 1, offset = 0): Affine {
  const strides = new Array<number>(rank).fill(0);
  if (axis >= 0) strides[axis] = stride;
  return { offset, strides };
}

/** Output axis i is input axis axes[i]. */
export function permuteView(view: View, axes: readonly number[]): View {
  const moved = <T extends Affine>(f: T): T => ({ ...f, strides: axes.map((axis) => f.strides[axis]!) });
  return {
    ...moved(view),
    shape: axes.map((axis) => view.shape[axis]!),
    guards: view.guards.map(moved),
  };
}

/** Axes aligned at the end; extent 1 and missing axes repeat. The caller has checked that the shapes broadcast. */
export function expandView(view: View, shape: Shape): View {
  const lead = shape.length - view.shape.length;
  const repeats = (axis: number): boolean => axis < 0 || (view.shape[axis] === 1 && shape[axis + lead] !== 1);
  const moved = <T extends Affine>(f: T): T => ({
    ...f,
    strides: shape.map((_, axis) => (repeats(axis - lead) ? 0 : f.strides[axis - lead]!)),
  });
  const guards = view.guards.map(moved).filter((guard) => canFail(guard, shape));
  return { ...moved(view), shape, guards };
}

/** Element starts[a] + steps[a] * i along each axis; a negative step reads backwards. */
export function sliceView(
  view: View,
  starts: readonly number[],
  shape: Shape,
  steps: readonly number[],
): View {
  const rows = shape.map((_, axis) => axisOf(shape.length, axis, steps[axis]!, starts[axis]!));
  return substitute(view, shape, rows);
}

/** Zeros before and after each axis (negative amounts crop). */
export function padView(view: View, before: readonly number[], after: readonly number[]): View {
  const shape = view.shape.map((extent, axis) => extent + before[axis]! + after[axis]!);
  const rows = shape.map((_, axis) => axisOf(shape.length, axis, 1, -before[axis]!));
  const moved = substitute(view, shape, rows);
  const bounds = view.shape.map((limit, axis) => ({ ...rows[axis]!, limit }));
  return { ...moved, guards: [...moved.guards, ...bounds.filter((guard) => canFail(guard, shape))] };
}

/**
 * Sliding windows along one axis: axis `axis` becomes the window's position, and a new last axis the place within
 * the window, x_axis = stride * position + dilation * place.
 */
export function windowView(view: View, axis: number, size: number, stride: number, dilation: number): View {
  const positions = Math.floor((view.shape[axis]! - dilation * (size - 1) - 1) / stride) + 1;
  const rank = view.shape.length + 1;
  const shape = [...view.shape.map((extent, i) => (i === axis ? positions : extent)), size];
  const rows = view.shape.map((_, i) => {
    const row = axisOf(rank, i, i === axis ? stride : 1);
    return i === axis ? { ...row, strides: row.strides.with(rank - 1, dilation) } : row;
  });
  return substitute(view, shape, rows);
}

/** The same elements in row-major order under another shape, or null where that takes a copy. */
export function reshapeView(view: View, shape: Shape): View | null {
  if (numel(shape) !== numel(view.shape))
    throw new Error('internal: a reshape changes the number of elements');
  if (numel(shape) === 0 || isContiguous(view)) return contiguousView(shape);
  const rows: Affine[] = [];
  let from = 0;
  let to = 0;
  while (from < view.shape.length || to < shape.length) {
    // The shortest runs of old and new axes that hold equally many elements.
    const [fromStart, toStart] = [from, to];
    let old = from < view.shape.length ? view.shape[from++]! : 1;
    let fresh = to < shape.length ? shape[to++]! : 1;
    while (old !== fresh) {
      if (old < fresh) old *= view.shape[from++]!;
      else fresh *= shape[to++]!;
    }
    if (!isEven(view, fromStart, from)) return null;
    // The merged axis counts in units of its last axis that has extent; row-major over the new axes.
    const strides = new Array<number>(shape.length).fill(0);
    for (let j = to - 1, unit = 1; j >= toStart; unit *= shape[j]!, j -= 1) strides[j] = unit;
    const unitAxis = lastWithExtent(view.shape, fromStart, from);
    for (let axis = fromStart; axis < from; axis += 1) {
      rows.push(axis === unitAxis ? { offset: 0, strides } : axisOf(shape.length, -1));
    }
  }
  return substitute(view, shape, rows);
}

function lastWithExtent(shape: Shape, start: number, end: number): number {
  let axis = end - 1;
  while (axis > start && shape[axis] === 1) axis -= 1;
  return axis;
}

/** Whether axes [start, end) step evenly through memory and guards, so that they can count as one. */
function isEven(view: View, start: number, end: number): boolean {
  const unitAxis = lastWithExtent(view.shape, start, end);
  return [view, ...view.guards].every(({ strides }) => {
    let expected = strides[unitAxis]!;
    for (let axis = unitAxis; axis >= start; axis -= 1) {
      if (view.shape[axis] !== 1 && strides[axis] !== expected) return false;
      if (view.shape[axis] !== 1) expected *= view.shape[axis]!;
    }
    return true;
  });
}

/** Views over one index space with every pair of neighbouring axes merged that is even in all of them. */
export function mergeAxes(shape: Shape, functions: readonly Affine[]): { shape: number[]; kept: number[][] } {
  const kept: number[][] = [];
  shape.forEach((extent, axis) => {
    if (extent === 1) return;
    const group = kept.at(-1);
    const previous = group?.at(-1);
    const even =
      previous !== undefined &&
      functions.every(({ strides }) => strides[previous] === strides[axis]! * extent);
    if (group && even) group.push(axis);
    else kept.push([axis]);
  });
  return { shape: kept.map((axes) => axes.reduce((product, axis) => product * shape[axis]!, 1)), kept };
}
