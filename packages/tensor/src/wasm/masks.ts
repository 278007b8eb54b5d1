/**
 * Which lanes of a vector load lie inside the guards, as tables. A load belongs to a group of four neighbours along
 * one axis and to one index of the other axis; its mask depends only on the class of each. Padding leaves few
 * classes (first row, inner rows, last row; ...), so the table of masks stays in the first-level cache.
 */
import type { Operand, Part, Steps } from './operand.ts';

export interface Masks {
  /** For each group: where its row of masks begins, in bytes. */
  readonly group: Int32Array;
  /** For each index of the other axis: the place of its mask in a row, in bytes. */
  readonly other: Int32Array;
  /** Masks of four lanes: all ones where every guard holds. */
  readonly table: Int32Array;
}

const largestTable = 2 ** 16;

/**
 * Masks for loads of four neighbours of `along`, beginning at `starts` and guarded in the steps given, at each index
 * of `other`; null where guards depend on the batch, or there are too many classes for a table.
 */
export function maskTable(
  { batch, limits }: Operand,
  along: Part,
  starts: readonly number[],
  steps: Steps,
  other: Part,
): Masks | null {
  if (batch.guards.some((table) => table.some((value) => value !== table[0]))) return null;
  const fixed = batch.guards.map((table) => table[0] ?? 0);
  const groups = guardClasses(along, starts);
  const others = guardClasses(other, other.address.keys());
  if (groups.distinct.length * others.distinct.length > largestTable) return null;
  const lanes = 4 * others.distinct.length;
  const rows = groups.distinct.map((start) => {
    const row = new Int32Array(lanes).fill(-1);
    others.distinct.forEach((shift, at) => {
      limits.forEach((limit, g) => {
        let value = fixed[g]! + start[g]! + shift[g]!;
        for (let lane = 4 * at; lane < 4 * at + 4; lane += 1) {
          if (value < 0 || value >= limit) row[lane] = 0;
          value += steps.guards[g]!;
        }
      });
    });
    return row;
  });
  const { distinct, of } = classes(rows, (row) => row.join());
  return {
    group: Int32Array.from(groups.of, (group) => of[group]! * 4 * lanes),
    other: Int32Array.from(others.of, (index) => index * 16),
    table: Int32Array.from(distinct.flatMap((row) => [...row])),
  };
}

/** What differs among some indices of a part: their shares of the guarded indices. */
function guardClasses({ guards }: Part, indices: Iterable<number>): Classes<readonly number[]> {
  const tuples = Array.from(indices, (i) => guards.map((table) => table[i]!));
  // Two shares of less than 2^25 make one number: a quicker key than text.
  const isShort = (tuple: readonly number[]) =>
    tuple.length < 3 && tuple.every((share) => Math.abs(share) < 2 ** 25);
  const keyOf = (tuple: readonly number[]) =>
    isShort(tuple) ? tuple.reduce((key, share) => key * 2 ** 26 + share, 0) : tuple.join();
  return classes(tuples, keyOf);
}

interface Classes<T> {
  readonly distinct: readonly T[];
  /** For each of them all, which of the distinct ones it is. */
  readonly of: readonly number[];
}

function classes<T>(all: readonly T[], keyOf: (one: T) => string | number): Classes<T> {
  const known = new Map<string | number, number>();
  const distinct: T[] = [];
  const of = all.map((one) => {
    const key = keyOf(one);
    const index = known.get(key) ?? distinct.push(one) - 1;
    known.set(key, index);
    return index;
  });
  return { distinct, of };
}
