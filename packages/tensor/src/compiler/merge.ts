/**
 * Map kernels side by side: two of as many elements become one with several outputs, where one reads what the other
 * writes or both read the same full-size value. The new m, v and parameter of an optimizer are one kernel.
 */

import type { MapKernel, Output } from '../kernel.ts';
import { numel } from '../shape.ts';
import { reshapeView } from '../view.ts';
import { type Draft, expressionsOf, fitsBindings, valuesRead, writesOf } from './drafts.ts';
import { type Expressions, isWhole, readsOf, walk } from './expression.ts';

/** Larger kernels spill registers. */
const maxKernelSize = 128;
/** Partners that are tried for each kernel, the nearest first. */
const maxTries = 6;

/**
 * The drafts with map kernels merged, values still before their readers.
 * @param late values whose kernels were put off, each with what it was put off for: only alike ones merge
 */
export function mergeMaps(
  drafts: readonly Draft[],
  outputs: readonly number[],
  expressions: Expressions,
  late: ReadonlyMap<number, number>,
): Draft[] {
  const merger = new Merger(drafts, outputs, expressions, late);
  for (let position = 0; position < drafts.length; position += 1) merger.join(position);
  return merger.drafts();
}

class Merger {
  readonly #drafts: (Draft | null)[];
  readonly #outputs: ReadonlySet<number>;
  readonly #expressions: Expressions;
  readonly #late: ReadonlyMap<number, number>;
  readonly #writer = new Map<number, number>();
  readonly #readers = new Map<number, Set<number>>();

  constructor(
    drafts: readonly Draft[],
    outputs: readonly number[],
    expressions: Expressions,
    late: ReadonlyMap<number, number>,
  ) {
    this.#late = late;
    this.#drafts = [...drafts];
    this.#outputs = new Set(outputs);
    this.#expressions = expressions;
    drafts.forEach((draft, position) => {
      this.#link(draft, position);
    });
  }

  drafts(): Draft[] {
    return this.#drafts.filter((draft) => draft !== null);
  }

  /** Merges the kernel with earlier ones as long as there is one that fits. */
  join(position: number): void {
    for (const partner of this.#partners(position)) {
      const place = this.#meetingPlace(partner, position);
      const merged = place === null ? null : this.#merged(partner, position);
      if (place === null || merged === null) continue;
      for (const old of [partner, position]) {
        this.#unlink(old);
        this.#drafts[old] = null;
      }
      this.#drafts[place] = merged;
      this.#link(merged, place);
      this.join(place);
      return;
    }
  }

  /** Where both kernels can run together: at the earlier's place, at the later's, or nowhere that is sure to do. */
  #meetingPlace(earlier: number, later: number): number | null {
    const readers = writesOf(this.#drafts[earlier]!).flatMap((value) => [
      ...(this.#readers.get(value) ?? []),
    ]);
    if (readers.every((reader) => reader >= later)) return later;
    const sources = valuesRead(this.#drafts[later]!).map((value) => this.#writer.get(value) ?? -1);
    return sources.every((source) => source <= earlier) ? earlier : null;
  }

  /** Earlier map kernels of as many elements that have a value in common with this one. */
  #partners(position: number): number[] {
    const draft = this.#drafts[position];
    if (draft?.kind !== 'map') return [];
    const length = numel(draft.shape);
    const near = new Set<number>();
    for (const read of readsOf(...expressionsOf(draft))) {
      const writer = this.#writer.get(read.binding);
      if (writer !== undefined) near.add(writer);
      const fullSize = read.view.strides.every((stride, axis) => stride !== 0 || read.view.shape[axis] === 1);
      if (fullSize) for (const reader of this.#readers.get(read.binding) ?? []) near.add(reader);
    }
    const fits = (other: number): boolean => {
      const partner = this.#drafts[other];
      const alike = partner?.kind === 'map' && numel(partner.shape) === length;
      return other < position && alike && this.#lateness(partner) === this.#lateness(draft);
    };
    return [...near]
      .filter(fits)
      .sort((a, b) => b - a)
      .slice(0, maxTries);
  }

  #lateness(draft: Draft): number | undefined {
    return this.#late.get(writesOf(draft)[0]!);
  }

  /** One kernel for both; null where the later reads the earlier elsewhere than it writes, or it would be too large. */
  #merged(first: number, second: number): MapKernel | null {
    const [a, b] = [this.#drafts[first], this.#drafts[second]];
    if (a?.kind !== 'map' || b?.kind !== 'map') return null;
    const written = new Map(a.outputs.map((output) => [output.buffer, output]));
    const between = readsOf(...expressionsOf(b)).filter(({ binding }) => written.has(binding));
    const length = numel(a.shape);
    if (!between.every((read) => read.kind === 'load' && isWhole(read, length))) return null;
    const moved: Output[] = [];
    for (const output of b.outputs) {
      const expr = this.#expressions.through(output.expr, b.shape, (view) => reshapeView(view, a.shape));
      if (expr === null) return null;
      const inlined = this.#expressions.replace(expr, (load) => written.get(load.binding)?.expr ?? null);
      moved.push({ ...output, expr: inlined });
    }
    const label = [...new Set([...a.label.split('+'), ...b.label.split('+')])].join('+');
    const needed = a.outputs.filter(({ buffer }) => this.#isNeededBeside(buffer, second));
    const merged: MapKernel = { ...a, label, outputs: [...needed, ...moved] };
    const size = walk(...expressionsOf(merged)).length;
    return fitsBindings(merged) && size <= maxKernelSize ? merged : null;
  }

  /** Whether a value has readers but for one kernel. */
  #isNeededBeside(value: number, position: number): boolean {
    const readers = this.#readers.get(value) ?? new Set();
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
