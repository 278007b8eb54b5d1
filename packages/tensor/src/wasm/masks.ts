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
  const tuples = (part: Part, indices: Iterable<number>) =>
    Array.from(indices, (i) => part.guards.map((table) => table[i]!));
  const groups = classes(tuples(along, starts));
  const others = classes(tuples(other, other.address.keys()));
  if (groups.distinct.length * others.distinct.length > largestTable) return null;
  const inside = (start: readonly number[], shift: readonly number[], lane: number) =>
    limits.every((limit, g) => {
      const value = fixed[g]! + start[g]! + lane * steps.guards[g]! + shift[g]!;
      return value >= 0 && value < limit;
    });
  const rows = classes(
    groups.distinct.map((start) =>
      others.distinct.flatMap((shift) => [0, 1, 2, 3].map((lane) => -Number(inside(start, shift, lane)))),
    ),
  );
  const rowBytes = 16 * others.distinct.length;
  return {
    group: Int32Array.from(groups.of, (group) => rows.of[group]! * rowBytes),
    other: Int32Array.from(others.of, (index) => index * 16),
    table: Int32Array.from(rows.distinct.flat()),
  };
}

/** The distinct tuples, and for each tuple which of them it is. */
function classes(tuples: readonly (readonly number[])[]): { distinct: (readonly number[])[]; of: number[] } {
  const known = new Map<string, number>();
  const distinct: (readonly number[])[] = [];
  const of = tuples.map((tuple) => {
    const key = tuple.join();
    const index = known.get(key) ?? distinct.push(tuple) - 1;
    known.set(key, index);
    return index;
  });
  return { distinct, of };
}
