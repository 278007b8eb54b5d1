/**
 * Arena slots for temporaries. A temporary lives from the kernel that writes it to the last that reads it; two share
 * a slot when one of them dies before the other is born.
 *
 * In place: a map kernel, or rows, may write over a temporary that it reads for the last time, at the very element it writes.
 * Then both are one resident of the arena, which lives as long as both.
 *
 * Residents are placed by size, largest first, so that a slot fits all that come later (greedy by size, Pisarchyk
 * and Lee, "Efficient memory management for deep neural net inference", 2020).
 */

import type { Aval } from '../op.ts';
import { numel } from '../shape.ts';
import { type Draft, storedBytes, valuesRead, writesOf } from './drafts.ts';
import { partsOf } from './parts.ts';
import { readsOnlyWhatItWrites } from './place.ts';

interface Resident {
  readonly bytes: number;
  readonly birth: number;
  death: number;
  slot: number;
}

export interface Arena {
  /** The slot of each temporary. */
  readonly slotOf: ReadonlyMap<number, number>;
  /** Bytes of each slot. */
  readonly slots: readonly number[];
}

/** Slots for everything that the drafts write, in the order they run, except `kept`. */
export function planMemory(
  drafts: readonly Draft[],
  avals: readonly Aval[],
  kept: ReadonlySet<number>,
): Arena {
  const residents = findResidents(drafts, avals, kept);
  const bySize = [...new Set(residents.values())].sort((a, b) => b.bytes - a.bytes || a.birth - b.birth);
  const slots: Resident[][] = [];
  for (const resident of bySize) {
    const overlaps = (other: Resident): boolean =>
      other.birth <= resident.death && resident.birth <= other.death;
    // Later slots are smaller: the last one that is free fits best.
    const free = slots.findLastIndex((others) => !others.some(overlaps));
    resident.slot = free < 0 ? slots.push([]) - 1 : free;
    slots[resident.slot]!.push(resident);
  }
  return {
    slotOf: new Map([...residents].map(([value, { slot }]) => [value, slot])),
    slots: slots.map(([largest]) => largest!.bytes),
  };
}

function findResidents(
  drafts: readonly Draft[],
  avals: readonly Aval[],
  kept: ReadonlySet<number>,
): Map<number, Resident> {
  const lastRead = new Map<number, number>();
  drafts.forEach((draft, time) => {
    for (const value of valuesRead(draft)) lastRead.set(value, time);
  });
  const residents = new Map<number, Resident>();
  const parts = partsOf(drafts, avals);
  drafts.forEach((draft, time) => {
    const dying = valuesRead(draft).filter((value) => residents.has(value) && lastRead.get(value) === time);
    const reusable = dying.filter((value) => readsOnlyWhatItWrites(draft, value, numel(avals[value]!.shape)));
    for (const written of writesOf(draft)) {
      const part = parts.get(written);
      const value = part?.whole ?? written; // resident from the first part on
      if (kept.has(value) || residents.has(value)) continue;
      const { dtype, shape } = avals[value]!;
      const death = lastRead.get(value) ?? time;
      const same = part
        ? -1
        : reusable.findIndex(
            (from) => avals[from]!.dtype === dtype && numel(avals[from]!.shape) === numel(shape),
          );
      if (same < 0) {
        residents.set(value, { bytes: storedBytes(dtype, numel(shape)), birth: time, death, slot: -1 });
        continue;
      }
      const resident = residents.get(reusable.splice(same, 1)[0]!)!;
      resident.death = death;
      residents.set(value, resident);
    }
  });
  return residents;
}
