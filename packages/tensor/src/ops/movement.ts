/**
 * Movement: the same elements, read in another order. All of them are views (view.ts) and cost nothing by
 * themselves. Adjoint pairs: reshape and itself, permute and its inverse, slice and pad.
 */
import { formatShape, formatShapes, ShapeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { numel, resolveAxis, type Shape } from '../shape.ts';
import { apply, type Tensor } from '../tensor.ts';
import {
  type Affine,
  contiguousView,
  padView,
  permuteView,
  reshapeView,
  sliceView,
  type View,
} from '../view.ts';

/** The values that a view reads from a row-major array: equations (1) and (2) of view.ts, literally. */
export function readView(data: Float64Array, view: View): Float64Array {
  const { shape, guards } = view;
  const out = new Float64Array(numel(shape));
  const index = shape.map(() => 0);
  for (let i = 0; i < out.length; i += 1) {
    if (guards.every((guard) => isWithin(valueAt(guard, index), guard.limit)))
      out[i] = data[valueAt(view, index)]!;
    advance(index, shape);
  }
  return out;
}

function isWithin(value: number, limit: number): boolean {
  return value >= 0 && value < limit;
}

function valueAt({ offset, strides }: Affine, index: readonly number[]): number {
  let value = offset;
  for (let axis = 0; axis < index.length; axis += 1) value += strides[axis]! * index[axis]!;
  return value;
}

/** The next index, row-major. */
function advance(index: number[], shape: Shape): void {
  for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
    index[axis]! += 1;
    if (index[axis]! < shape[axis]!) return;
    index[axis] = 0;
  }
}

/** The op that reads its input through a view; `view` also is its reference. */
export function movement<Attrs>(
  name: string,
  shape: (input: Shape, attrs: Attrs) => Shape,
  view: (input: View, attrs: Attrs, output: Shape) => View | null,
  pullback: (dy: Tensor, input: Shape, attrs: Attrs) => Tensor,
): Op<Attrs> {
  const op: Op<Attrs> = {
    name,
    infer: ([x], attrs) => ({ shape: shape(x!.shape, attrs), dtype: x!.dtype }),
    reference: ([x], attrs, output) =>
      readView(x!.data, view(contiguousView(x!.shape), attrs, output.shape)!),
    lower: { kind: 'view', view },
    vjp: (dy, { inputs, attrs }) => [pullback(dy, inputs[0]!.shape, attrs)],
    jvp: ([dx], { attrs }) => apply(op, [dx!], attrs),
  };
  return op;
}

export const reshapeOp: Op<{ readonly shape: Shape }> = movement(
  'reshape',
  (input, { shape }) => {
    if (numel(input) !== numel(shape)) {
      throw new ShapeError(`reshape: the number of elements changes; got ${formatShapes([input, shape])}`);
    }
    return shape;
  },
  (view, _attrs, output) => reshapeView(view, output),
  (dy, input) => reshape(dy, input),
);

export const permuteOp: Op<{ readonly axes: readonly number[] }> = movement(
  'permute',
  (input, { axes }) => axes.map((axis) => input[axis]!),
  (view, { axes }) => permuteView(view, axes),
  (dy, _input, { axes }) =>
    permute(
      dy,
      axes.map((_, axis) => axes.indexOf(axis)),
    ),
);

interface SliceAttrs {
  readonly starts: readonly number[];
  readonly shape: Shape;
  readonly steps: readonly number[];
}

// The adjoint puts dy back on the places it was read from: zeros between (steps), before and after.
export const sliceOp: Op<SliceAttrs> = movement(
  'slice',
  (_input, { shape }) => shape,
  (view, { starts, shape, steps }) => sliceView(view, starts, shape, steps),
  (dy, input, { starts, steps }) => {
    const backwards = steps.flatMap((step, axis) => (step < 0 ? [axis] : []));
    const spread = spreadOut(backwards.length > 0 ? flip(dy, backwards) : dy, steps.map(Math.abs));
    const before = starts.map((start, axis) =>
      steps[axis]! < 0 && dy.shape[axis]! > 0 ? start + steps[axis]! * (dy.shape[axis]! - 1) : start,
    );
    const after = input.map((extent, axis) => extent - before[axis]! - spread.shape[axis]!);
    return pad(
      spread,
      before.map((amount, axis) => [amount, after[axis]!] as const),
    );
  },
);

/** `x` with steps[a] - 1 zeros between neighbours along each axis. */
export function spreadOut(x: Tensor, steps: readonly number[]): Tensor {
  return steps.reduce((y, step, axis) => {
    const extent = y.shape[axis]!;
    if (step === 1 || extent === 0) return y;
    const columns = reshape(y, [...y.shape.slice(0, axis + 1), 1, ...y.shape.slice(axis + 1)]);
    const padded = pad(
      columns,
      columns.shape.map((_, i) => (i === axis + 1 ? [0, step - 1] : [0, 0])),
    );
    const merged = reshape(padded, y.shape.with(axis, extent * step));
    return narrow(merged, axis, 0, (extent - 1) * step + 1);
  }, x);
}

interface PadAttrs {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

export const padOp: Op<PadAttrs> = movement(
  'pad',
  (input, { before, after }) => input.map((extent, axis) => extent + before[axis]! + after[axis]!),
  (view, { before, after }) => padView(view, before, after),
  (dy, input, { before }) =>
    slice(
      dy,
      before,
      input.map((extent, axis) => before[axis]! + extent),
    ),
);

/**
 * The same elements in row-major order under another shape. One extent may be -1: it is worked out.
 * @throws ShapeError when the number of elements differs
 */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const hole = shape.indexOf(-1);
  if (hole < 0) return apply(reshapeOp, [x], { shape });
  const rest = numel(shape.with(hole, 1));
  if (rest === 0 || x.size % rest !== 0) {
    throw new ShapeError(`reshape: -1 has no whole value; got ${formatShapes([x.shape, shape])}`);
  }
  return apply(reshapeOp, [x], { shape: shape.with(hole, x.size / rest) });
}

/**
 * Axes reordered: axis i of the result is axis `axes[i]` of `x`.
 * @throws ShapeError when `axes` is not a permutation
 */
export function permute(x: Tensor, axes: readonly number[]): Tensor {
  const resolved = axes.map((axis) => resolveAxis('permute', axis, x.rank));
  if (resolved.length !== x.rank || new Set(resolved).size !== x.rank) {
    throw new ShapeError(`permute: expected each of ${x.rank} axes once; got ${formatShape(axes)}`);
  }
  return apply(permuteOp, [x], { axes: resolved });
}

/** Two axes swapped, by default the last two (a matrix transposed). */
export function transpose(x: Tensor, a = -2, b = -1): Tensor {
  const [first, second] = [resolveAxis('transpose', a, x.rank), resolveAxis('transpose', b, x.rank)];
  const axes = x.shape.map((_, axis) => (axis === first ? second : axis === second ? first : axis));
  return permute(x, axes);
}

function expectWhole(op: string, numbers: readonly number[]): void {
  if (!numbers.every(Number.isInteger)) {
    throw new ShapeError(`${op}: expected whole numbers; got ${formatShape(numbers)}`);
  }
}

/**
 * Elements from `starts` (included) to `stops` (excluded) along each axis, every `steps`-th. Negative positions count
 * from the end, positions past an end are cut to it, as in Python. Steps are positive; `flip` reads backwards.
 * @throws ShapeError
 */
export function slice(
  x: Tensor,
  starts: readonly number[],
  stops: readonly number[],
  steps?: readonly number[],
): Tensor {
  const step = steps ?? x.shape.map(() => 1);
  if ([starts, stops, step].some((list) => list.length !== x.rank) || step.some((s) => !(s >= 1))) {
    throw new ShapeError(`slice: expected a start, a stop and a step >= 1 for each of ${x.rank} axes`);
  }
  expectWhole('slice', [...starts, ...stops, ...step]);
  const place = (at: number, extent: number): number =>
    Math.min(extent, Math.max(0, at < 0 ? at + extent : at));
  const from = x.shape.map((extent, axis) => place(starts[axis]!, extent));
  const shape = x.shape.map((extent, axis) =>
    Math.max(0, Math.ceil((place(stops[axis]!, extent) - from[axis]!) / step[axis]!)),
  );
  return apply(sliceOp, [x], { starts: from, shape, steps: step });
}

/**
 * `length` elements from `start` along one axis.
 * @throws ShapeError when they reach past the end
 */
export function narrow(x: Tensor, axis: number, start: number, length: number): Tensor {
  const a = resolveAxis('narrow', axis, x.rank);
  expectWhole('narrow', [start, length]);
  if (start < 0 || length < 0 || start + length > x.shape[a]!) {
    throw new ShapeError(
      `narrow: [${start}, ${start + length}) reaches past axis ${a} of ${formatShape(x.shape)}`,
    );
  }
  return apply(sliceOp, [x], {
    starts: x.shape.map((_, i) => (i === a ? start : 0)),
    shape: x.shape.with(a, length),
    steps: x.shape.map(() => 1),
  });
}

/**
 * Equal parts along one axis, in order.
 * @throws ShapeError when the axis does not divide
 */
export function split(x: Tensor, parts: number, axis = -1): Tensor[] {
  const a = resolveAxis('split', axis, x.rank);
  const length = x.shape[a]! / parts;
  if (!Number.isInteger(parts) || parts < 1 || !Number.isInteger(length)) {
    throw new ShapeError(`split: axis ${a} of ${formatShape(x.shape)} does not divide into ${parts}`);
  }
  return Array.from({ length: parts }, (_, i) => narrow(x, a, i * length, length));
}

/**
 * Zeros before and after each axis: `amounts[axis] = [before, after]`.
 * @throws ShapeError when an amount is negative or missing
 */
export function pad(x: Tensor, amounts: readonly (readonly number[])[]): Tensor {
  if (amounts.length !== x.rank || amounts.some(([b, a]) => !(b! >= 0) || !(a! >= 0))) {
    throw new ShapeError(`pad: expected [before, after] >= 0 for each of ${x.rank} axes`);
  }
  expectWhole('pad', amounts.flat());
  return apply(padOp, [x], { before: amounts.map(([b]) => b!), after: amounts.map(([, a]) => a!) });
}

/** Read backwards along the axes. @throws ShapeError when an axis is out of range */
export function flip(x: Tensor, axes: number | readonly number[]): Tensor {
  const list = (typeof axes === 'number' ? [axes] : axes).map((axis) => resolveAxis('flip', axis, x.rank));
  return apply(sliceOp, [x], {
    starts: x.shape.map((extent, axis) => (list.includes(axis) ? Math.max(0, extent - 1) : 0)),
    shape: x.shape,
    steps: x.shape.map((_, axis) => (list.includes(axis) ? -1 : 1)),
  });
}

/** A new axis of extent 1 before axis `axis` (counted in the result). */
export function unsqueeze(x: Tensor, axis: number): Tensor {
  const a = resolveAxis('unsqueeze', axis, x.rank + 1);
  return reshape(x, x.shape.toSpliced(a, 0, 1));
}

/** The axis, of extent 1, taken out. @throws ShapeError when its extent is not 1 */
export function squeeze(x: Tensor, axis: number): Tensor {
  const a = resolveAxis('squeeze', axis, x.rank);
  if (x.shape[a] !== 1) throw new ShapeError(`squeeze: axis ${a} has extent ${x.shape[a]}, expected 1`);
  return reshape(x, x.shape.toSpliced(a, 1));
}
