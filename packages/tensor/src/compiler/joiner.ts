/**
 * Kernels joined in pairs, as long as there is a pair to join: who writes and reads what, and whether the two can run
 * at one place among the others. What makes a pair, and what it becomes, are the rule's.
 */
import { type Draft, valuesRead, writesOf } from './drafts.ts';

/** What is joined with what. */
export interface JoinRule {
  /** Positions that may be joined with this later one, in the order to try. */
  partners(position: number, joiner: Joiner): readonly number[];
  /** One kernel for both, with those outputs of the earlier that are needed besides; null where there is none. */
  join(earlier: Draft, later: Draft, isNeeded: (value: number) => boolean): Draft | null;
}

export class Joiner {
  readonly #drafts: (Draft | null)[];
  readonly #outputs: ReadonlySet<number>;
  readonly #late: ReadonlyMap<number, number>;
  readonly #rule: JoinRule;
  readonly #writer = new Map<number, number>();
  readonly #readers = new Map<number, Set<number>>();

  /** @param late values whose kernels were put off, each with what it was put off for: only alike ones join */
  constructor(
    drafts: readonly Draft[],
    outputs: readonly number[],
    late: ReadonlyMap<number, number>,
    rule: JoinRule,
  ) {
    this.#late = late;
    this.#drafts = [...drafts];
    this.#outputs = new Set(outputs);
    this.#rule = rule;
    drafts.forEach((draft, position) => {
      this.#link(draft, position);
    });
  }

  /** The drafts with all joined that can be, values still before their readers. */
  joined(): Draft[] {
    for (let position = 0; position < this.#drafts.length; position += 1) this.#join(position);
    return this.#drafts.filter((draft) => draft !== null);
  }

  /** The kernel at a position, unless it has been joined to another. */
  draft(position: number): Draft | null {
    return this.#drafts[position] ?? null;
  }

  /** Where a value is computed; undefined for inputs. */
  writerOf(value: number): number | undefined {
    return this.#writer.get(value);
  }

  readersOf(value: number): ReadonlySet<number> {
    return this.#readers.get(value) ?? new Set();
  }

  #join(position: number): void {
    for (const partner of this.#drafts[position] ? this.#rule.partners(position, this) : []) {
      const place = this.#meetingPlace(partner, position);
      const [earlier, later] = [this.#drafts[partner]!, this.#drafts[position]!];
      if (place === null || this.#lateness(earlier) !== this.#lateness(later)) continue;
      const joined = this.#rule.join(earlier, later, (value) => this.#isNeededBeside(value, position));
      if (joined === null) continue;
      for (const old of [partner, position]) {
        this.#unlink(old);
        this.#drafts[old] = null;
      }
      this.#drafts[place] = joined;
      this.#link(joined, place);
      this.#join(place);
      return;
    }
  }

  #lateness(draft: Draft): number | undefined {
    return this.#late.get(writesOf(draft)[0]!);
  }

  /** Where both kernels can run together: at the earlier's place, at the later's, or nowhere that is sure to do. */
  #meetingPlace(earlier: number, later: number): number | null {
    const readers = writesOf(this.#drafts[earlier]!).flatMap((value) => [...this.readersOf(value)]);
    if (readers.every((reader) => reader >= later)) return later;
    const sources = valuesRead(this.#drafts[later]!).map((value) => this.#writer.get(value) ?? -1);
    return sources.every((source) => source <= earlier) ? earlier : null;
  }

  /** Whether a value has readers but for one kernel. */
  #isNeededBeside(value: number, position: number): boolean {
    const readers = this.readersOf(value);
    return this.#outputs.has(value) || readers.size > (readers.has(position) ? 1 : 0);
  }

  #link(draft: Draft, position: number): void {
    for (const value of writesOf(draft)) this.#writer.set(value, position);
    for (const value of valuesRead(draft)) {
      const readers = this.#readers.get(value) ?? new Set();
      this.#readers.set(value, readers.add(position));
    }
  }

  #unlink(position: number): void {
    const draft = this.#drafts[position]!;
    for (const value of writesOf(draft)) this.#writer.delete(value);
    for (const value of valuesRead(draft)) this.#readers.get(value)!.delete(position);
  }
}
