/**
 * Sorting. Short rows by counting: the rank of an element is the number of elements that come before it,
 *
 *     rank_i = #{j : x_j < x_i, or x_j = x_i and j < i}                                       (1)
 *     order_k = i where rank_i = k                                                            (2)
 *
 * n^2 comparisons, all at once. Longer rows are cut into blocks that are sorted so, and merged in pairs: of the first k
 * elements of the merged runs a and b, each of length L,
 *
 *     i_k = max i : i <= L, i <= k, a_{i-1} comes before b_{k-i} or there is no b_{k-i}       (3)
 *
 * come from a. It is found by halving steps, for all k at once (merge paths; Green, McColl and Bader, ICS 2012), so that
 * n elements take O(n log^2 n) reads and nothing is written out of order.
 *
 * NaN counts as larger than every number and is told by its bits: the same order on every device. Values are gathered,
 * and so carry derivatives.
 */
import { type DType, expectNumbers, isFloat } from '../dtype.ts';
import { formatShape, ShapeError } from '../errors.ts';
import { resolveAxis } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { bits, isnan } from './bits.ts';
import {
  add,
  and,
  cast,
  equal,
  less,
  lessEqual,
  logicalNot,
  mod,
  mul,
  or,
  sub,
  where,
} from './elementwise.ts';
import { sum } from './expand.ts';
import { gather, takeAlongAxis } from './gather.ts';
import { narrow, pad, reshape, transpose, unsqueeze } from './movement.ts';
import { full, iota } from './source.ts';

/** A row of elements as they meet each other: once along i, once along j. */
type Compared = readonly [x: Tensor, missing: Tensor | null];

/** Which elements are NaN; null where none can be. */
function missingOf(x: Tensor): Tensor | null {
  return isFloat(x.dtype) ? isnan(x) : null;
}

/** a < b, where NaN is larger than every number and equal to itself. */
function below([a, aMissing]: Compared, [b, bMissing]: Compared): Tensor {
  const smaller = less(a, b);
  return aMissing && bMissing ? and(logicalNot(aMissing), or(bMissing, smaller)) : smaller;
}

/** Equation (1) along the last axis. */
function ranks(x: Tensor, descending: boolean): Tensor {
  const missing = missingOf(x);
  const along = (axis: number): Compared => [unsqueeze(x, axis), missing && unsqueeze(missing, axis)];
  const [atI, atJ] = [along(-1), along(-2)];
  const [low, high] = descending ? [atJ, atI] : [atI, atJ];
  const square = [x.shape.at(-1)!, x.shape.at(-1)!];
  const earlier = less(iota(square, 1), iota(square, 0)); // j < i
  // An earlier j comes first unless x_i is smaller, a later one only if x_j is.
  return sum(cast(where(earlier, logicalNot(below(low, high)), below(high, low)), 'i32'), -1);
}

/** The first `count` positions of equation (2), along the last axis. */
function firstOf(rank: Tensor, count: number): Tensor {
  const shape = [...rank.shape.slice(0, -1), count, rank.shape.at(-1)!];
  return sum(where(equal(unsqueeze(rank, -2), iota(shape, -2)), iota(shape, -1), 0), -1);
}

/** Rows up to this length are sorted by counting. */
const COUNTED = 8192;
/** Elements of a block, a power of two. */
const BLOCK = 256;

/** Numbers in the same order, NaN the largest of them: f32 and f16 as integers, which are compared at once. */
function sortable(x: Tensor): Tensor {
  if (x.dtype !== 'f32' && x.dtype !== 'f16') return x;
  const own = bits(x);
  const upwards = where(less(own, 2 ** 31), or(own, 2 ** 31), sub(2 ** 32 - 1, own));
  const oneZero = where(equal(own, 2 ** 31), 2 ** 31, upwards); // -0 is 0
  return where(isnan(x), 2 ** 32 - 1, oneZero);
}

/** A value that comes after all others of the type, or with the last of them. */
function lastOf(dtype: DType, descending: boolean): number {
  if (isFloat(dtype)) return descending ? Number.NEGATIVE_INFINITY : Number.NaN;
  if (dtype === 'u32') return descending ? 0 : 2 ** 32 - 1;
  return descending ? -(2 ** 31) : 2 ** 31 - 1;
}

/** Runs of equal length, one after the other, each in order; `order` says where each element was. */
interface Runs {
  readonly sorted: Tensor;
  readonly order: Tensor;
}

/** Runs of twice the length, by (3). */
function merged({ sorted, order }: Runs, length: number, descending: boolean): Runs {
  const at = iota([sorted.size]);
  const k = mod(at, 2 * length);
  const start = sub(at, k);
  const element = (place: Tensor): Compared => {
    const x = gather(sorted, place);
    return [x, missingOf(x)];
  };
  /** Whether a_i comes before b_j, or there is no b_j. */
  const comesFirst = (i: Tensor, j: Tensor): Tensor => {
    const [a, b] = [element(add(start, i)), element(add(start, add(j, length)))];
    const [low, high] = descending ? [a, b] : [b, a];
    return or(lessEqual(length, j), logicalNot(below(low, high)));
  };
  let i: Tensor = full(k.shape, 0, 'i32');
  for (let step = length; step >= 1; step /= 2) {
    const more = add(i, step);
    const isOpen = and(lessEqual(more, k), lessEqual(more, length));
    i = where(and(isOpen, comesFirst(sub(more, 1), sub(k, more))), more, i);
  }
  const j = sub(k, i);
  const from = add(start, where(and(less(i, length), comesFirst(i, j)), i, add(j, length)));
  return { sorted: gather(sorted, from), order: gather(order, from) };
}

/** Equation (2) for rows [rows, n], by blocks. */
function orderByMerging(x: Tensor, descending: boolean): Tensor {
  const [rows, n] = x.shape as readonly [number, number];
  const padded = BLOCK * 2 ** Math.ceil(Math.log2(n / BLOCK));
  const shape = [rows, padded];
  const isElement = less(iota(shape, 1), n);
  const filled = where(
    isElement,
    pad(x, [
      [0, 0],
      [0, padded - n],
    ]),
    lastOf(x.dtype, descending),
  );
  const blocks = reshape(filled, [rows, padded / BLOCK, BLOCK]);
  const within = firstOf(ranks(blocks, descending), BLOCK);
  const starts = reshape(mul(iota([rows * (padded / BLOCK)]), BLOCK), [rows, padded / BLOCK, 1]);
  const order = reshape(add(within, starts), [rows * padded]);
  let runs: Runs = { sorted: gather(reshape(filled, [rows * padded]), order), order };
  for (let length = BLOCK; length < padded; length *= 2) runs = merged(runs, length, descending);
  const ofRow = sub(reshape(runs.order, shape), mul(iota(shape, 0), padded));
  return narrow(ofRow, 1, 0, n);
}

function positions(op: string, x: Tensor, axis: number, descending: boolean, count?: number): Tensor {
  expectNumbers(op, x.dtype);
  const a = resolveAxis(op, axis, x.rank);
  const extent = x.shape[a]!;
  if (count !== undefined && !(Number.isInteger(count) && count >= 0 && count <= extent)) {
    throw new ShapeError(`${op}: expected a count in [0, ${extent}]; got ${formatShape([count])}`);
  }
  const last = transpose(x, a, -1);
  const kept = count ?? extent;
  if (extent <= COUNTED || x.size === 0) {
    return transpose(firstOf(ranks(last, descending), kept), a, -1);
  }
  const rows = reshape(sortable(last), [x.size / extent, extent]);
  const order = orderByMerging(rows, descending);
  return transpose(reshape(narrow(order, 1, 0, kept), last.shape.with(-1, kept)), a, -1);
}

export interface SortOptions {
  /** Default: the last. */
  readonly axis?: number;
  /** Largest first. Default: false. */
  readonly descending?: boolean;
}

/** Values in order, and the positions (i32) that they come from. */
export interface Sorted {
  readonly values: Tensor;
  readonly indices: Tensor;
}

/**
 * The positions (i32) that sort `x` along an axis; equal elements keep their order, NaN comes last, first when
 * descending (torch.argsort, stable).
 * @throws ShapeError when the axis is out of range, DTypeError for bool
 */
export function argsort(x: Tensor, { axis = -1, descending = false }: SortOptions = {}): Tensor {
  return positions('argsort', x, axis, descending);
}

/**
 * `x` sorted along an axis, and where each value was; order as in `argsort`. Derivatives go back to where the values
 * came from.
 * @throws ShapeError when the axis is out of range, DTypeError for bool
 */
export function sort(x: Tensor, { axis = -1, descending = false }: SortOptions = {}): Sorted {
  const indices = positions('sort', x, axis, descending);
  return { values: takeAlongAxis(x, indices, axis), indices };
}

/**
 * The `count` largest elements along an axis, largest first, and where they are; the first of equal ones. NaN counts as
 * largest (torch.topk).
 * @throws ShapeError when the axis is out of range or shorter than `count`, DTypeError for bool
 */
export function topk(x: Tensor, count: number, axis = -1): Sorted {
  const indices = positions('topk', x, axis, true, count);
  return { values: takeAlongAxis(x, indices, axis), indices };
}
