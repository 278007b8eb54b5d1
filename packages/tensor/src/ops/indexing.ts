/**
 * NumPy's indexing as one function. Whole numbers, ranges, new axes and '...' are views; arrays of positions gather.
 */
import { DTypeError, ShapeError } from '../errors.ts';
import { broadcastShapes, numel, type Shape } from '../shape.ts';
import { apply, Tensor } from '../tensor.ts';
import { add, and, less, lessEqual, mul, where } from './elementwise.ts';
import { expand } from './expand.ts';
import { gather } from './gather.ts';
import { permute, reshape, sliceOp } from './movement.ts';

/** start:stop:step of Python; null or left out: from the end that the step starts at, to the other. */
export type IndexRange = readonly [start: number | null, stop: number | null, step?: number];

/** What an index says of one axis: a position, a range, many positions; or a new axis (null), or '...'. */
export type IndexPart = number | IndexRange | Tensor | null | '...';

/** What is read along one axis: every `step`-th place from `start`, or given places. */
type Reading =
  | {
      readonly kind: 'position' | 'range';
      readonly start: number;
      readonly step: number;
      readonly count: number;
    }
  | { readonly kind: 'places'; readonly places: Tensor };

function rangeOf([start, stop, step = 1]: IndexRange, extent: number): Reading {
  if (!Number.isInteger(step) || step === 0 || ![start ?? 0, stop ?? 0].every(Number.isInteger)) {
    throw new ShapeError(
      `index: a range is of whole numbers, its step not 0; got [${start}, ${stop}, ${step}]`,
    );
  }
  // Python's slice.indices: positions are cut to [0, extent] going up and to [-1, extent - 1] going down.
  const [low, high] = step > 0 ? [0, extent] : [-1, extent - 1];
  const cut = (at: number): number => Math.min(high, Math.max(low, at < 0 ? at + extent : at));
  const from = start === null ? (step > 0 ? low : high) : cut(start);
  const to = stop === null ? (step > 0 ? high : low) : cut(stop);
  return { kind: 'range', start: from, step, count: Math.max(0, Math.ceil((to - from) / step)) };
}

function readingOf(part: Exclude<IndexPart, null | '...'>, axis: number, extent: number): Reading {
  if (part instanceof Tensor) {
    if (part.dtype !== 'i32') throw new DTypeError(`index: positions must be i32; got ${part.dtype}`);
    return { kind: 'places', places: part };
  }
  if (typeof part !== 'number') return rangeOf(part, extent);
  const start = part < 0 ? part + extent : part;
  if (!Number.isInteger(part) || start < 0 || start >= extent) {
    throw new ShapeError(
      `index: position out of range; expected [${-extent}, ${extent - 1}] along axis ${axis}; got ${part}`,
    );
  }
  return { kind: 'position', start, step: 1, count: 1 };
}

/** The parts with '...' as the ranges that it stands for. */
function spelledOut(parts: readonly IndexPart[], shape: Shape): Exclude<IndexPart, '...'>[] {
  const named = parts.filter((part) => part !== null && part !== '...').length;
  const dots = parts.filter((part) => part === '...').length;
  if (named > shape.length || dots > 1) {
    throw new ShapeError(
      `index: expected at most one "..." and ${shape.length} parts that read an axis; got ${dots} and ${named}`,
    );
  }
  const whole = Array.from({ length: shape.length - named }, (): IndexRange => [null, null]);
  return (dots === 0 ? [...parts, '...' as const] : parts).flatMap((part) =>
    part === '...' ? whole : [part],
  );
}

/**
 * x[parts] as NumPy indexes: 3 takes one place, [1, 5, 2] the range 1:5:2 (null: an end; steps may be negative), null a
 * new axis, '...' all axes between, and an i32 tensor the places that it names, negative ones counted from the end.
 * Several tensors broadcast together and name one place each along their axes; what they pick takes the place of their
 * axes where these stand side by side, else comes first (numbers count as tensors then, as in NumPy). A place outside
 * gives NaN (0 for integers), as in `gather`.
 * @throws ShapeError, DTypeError
 */
export function index(x: Tensor, ...parts: readonly IndexPart[]): Tensor {
  const all = spelledOut(parts, x.shape);
  let axis = 0;
  const readings = all.map((part) => {
    if (part === null) return null;
    axis += 1;
    return readingOf(part, axis - 1, x.shape[axis - 1]!);
  });
  const ofAxes = readings.filter((reading) => reading !== null);
  const run = ofAxes.map((reading, i) =>
    reading.kind === 'places' ? { start: 0, step: 1, count: x.shape[i]! } : reading,
  );
  const sliced = apply(sliceOp, [x], {
    starts: run.map(({ start, count }) => (count === 0 ? 0 : start)),
    shape: run.map(({ count }) => count),
    steps: run.map(({ step }) => step),
  });
  /** The result's extents for the parts that are no tensors: numbers take their axis away. */
  const kept = (list: readonly (Reading | null)[]): number[] =>
    list.flatMap((reading) => (reading === null ? [1] : reading.kind === 'range' ? [reading.count] : []));
  const places = ofAxes.flatMap((reading) => (reading.kind === 'places' ? [reading.places] : []));
  if (places.length === 0) return reshape(sliced, kept(readings));

  const picked = [...ofAxes.keys()].filter((i) => ofAxes[i]!.kind === 'places');
  const rest = [...ofAxes.keys()].filter((i) => ofAxes[i]!.kind !== 'places');
  const [found, foundShape] = pick(sliced, picked, rest, places); // [...foundShape, ...rest]
  const isArray = readings.map((reading) => reading !== null && reading.kind !== 'range');
  const [first, last] = [isArray.indexOf(true), isArray.lastIndexOf(true)];
  const front = isArray.slice(first, last + 1).every(Boolean) ? kept(readings.slice(0, first)) : [];
  const back = kept(readings).slice(front.length);
  const apart = reshape(found, [...foundShape, ...front, ...back]);
  const [f, g] = [foundShape.length, front.length];
  return permute(apart, [
    ...front.map((_, i) => f + i),
    ...foundShape.map((_, i) => i),
    ...back.map((_, i) => f + g + i),
  ]);
}

/** Elements at places along some axes, which come first in the result, as one axis for each of the places. */
function pick(
  x: Tensor,
  picked: readonly number[],
  rest: readonly number[],
  places: readonly Tensor[],
): [found: Tensor, shape: Shape] {
  const extents = picked.map((axis) => x.shape[axis]!);
  const shape = broadcastShapes(
    'index',
    places.map((place) => place.shape),
  );
  const flat = places.map((place, i) => {
    const extent = extents[i]!;
    const positive = where(less(place, 0), add(place, extent), place);
    return { positive, inside: and(lessEqual(0, positive), less(positive, extent)) };
  });
  const address = flat.reduce<{ positive: Tensor; inside: Tensor }>(
    (sum, { positive, inside }, i) =>
      i === 0
        ? { positive, inside }
        : { positive: add(mul(sum.positive, extents[i]!), positive), inside: and(sum.inside, inside) },
    flat[0]!,
  );
  const table = reshape(permute(x, [...picked, ...rest]), [
    numel(extents),
    ...rest.map((axis) => x.shape[axis]!),
  ]);
  return [gather(table, expand(where(address.inside, address.positive, -1), shape)), shape];
}
