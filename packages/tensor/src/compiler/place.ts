/**
 * Where outputs live: each in a buffer of its own, which may be the storage of a donated input.
 *
 * Writing into a donated input is safe when every other kernel that reads the input runs before, and the writing
 * kernel reads it, if at all, only at the very element that it writes. What cannot be so is computed elsewhere first
 * and copied into the donated storage by a kernel that nothing depends on.
 */

import type { Aval } from '../op.ts';
import { scalarOf } from '../ops/elementwise.ts';
import { numel } from '../shape.ts';
import { copyDraft, type Draft, expressionsOf, shapeOf, valuesRead, writesOf } from './drafts.ts';
import { isWhole, readsOf } from './expression.ts';
import type { Fusion } from './fuse.ts';
import type { Ir } from './ir.ts';

export interface Placement {
  readonly drafts: readonly Draft[];
  /** The value that each output is; no two are the same, and none is an input. */
  readonly outputs: readonly number[];
  /** Kernels (by position in `drafts`) that must run before a kernel although it reads nothing from them. */
  readonly before: ReadonlyMap<number, readonly number[]>;
  /** Shape and type of every value: the nodes, then the copies. */
  readonly avals: readonly Aval[];
}

/** The copies that outputs and donations need, and the order that donations force. */
export function placeOutputs(
  ir: Ir,
  { drafts, outputs: values, expressions, avals: known }: Fusion,
): Placement {
  const avals = [...known];
  const order = new Order(drafts, avals);
  const fresh = (like: number): number => avals.push(avals[like]!) - 1;
  const copy = (value: number): number => {
    const { shape, dtype } = avals[value]!;
    const to = fresh(value);
    const load = expressions.load(value, scalarOf(dtype), shape);
    if (numel(shape) > 0) order.add(copyDraft(load, shape, to, dtype));
    return to;
  };
  const taken = new Set<number>();
  const outputs = values.map((value, position) => {
    // The storage of an input that is donated to itself holds the output already.
    if (ir.donations.get(position) === value) return fresh(value);
    if (value < ir.inputCount || taken.has(value)) return copy(value);
    taken.add(value);
    return value;
  });
  for (const [position, input] of ir.donations) {
    if (values[position] === input) continue;
    if (!order.canOverwrite(outputs[position]!, input)) outputs[position] = copy(outputs[position]!);
    order.overwrite(outputs[position]!, input);
  }
  return { drafts: order.drafts, outputs, before: order.before, avals };
}

/** Which kernel has to run after which. */
class Order {
  readonly drafts: Draft[] = [];
  readonly before = new Map<number, number[]>();
  readonly #after = new Map<number, number[]>();
  readonly #writers = new Map<number, number>();
  readonly #readers = new Map<number, number[]>();

  readonly #avals: readonly Aval[];

  constructor(drafts: readonly Draft[], avals: readonly Aval[]) {
    this.#avals = avals;
    for (const draft of drafts) this.add(draft);
  }

  add(draft: Draft): void {
    const position = this.drafts.push(draft) - 1;
    for (const value of writesOf(draft)) this.#writers.set(value, position);
    for (const value of valuesRead(draft)) append(this.#readers, value, position);
  }

  /** Whether the kernel that computes `output` may write it over `input`. */
  canOverwrite(output: number, input: number): boolean {
    const writer = this.#writers.get(output);
    if (writer === undefined) return true; // no elements
    if (this.drafts[writer]!.kind === 'whole') return false;
    const length = numel(this.#avals[input]!.shape);
    const inPlace = readsOnlyWhatItWrites(this.drafts[writer]!, input, length);
    return inPlace && !this.#leadsTo(writer, this.#others(writer, input));
  }

  /** From now on the kernel that computes `output` runs after every other reader of `input`. */
  overwrite(output: number, input: number): void {
    const writer = this.#writers.get(output);
    if (writer === undefined) return;
    for (const reader of this.#others(writer, input)) {
      append(this.before, writer, reader);
      append(this.#after, reader, writer);
    }
  }

  #others(writer: number, input: number): number[] {
    return (this.#readers.get(input) ?? []).filter((reader) => reader !== writer);
  }

  #leadsTo(from: number, to: readonly number[]): boolean {
    const targets = new Set(to);
    const seen = new Set([from]);
    for (const position of seen) {
      const readers = writesOf(this.drafts[position]!).flatMap((value) => this.#readers.get(value) ?? []);
      for (const next of [...readers, ...(this.#after.get(position) ?? [])]) {
        if (targets.has(next)) return true;
        seen.add(next); // a set in iteration visits what is added
      }
    }
    return false;
  }
}

/** Whether the kernel reads the value of `length` elements, if at all, at each point only where it writes. */
export function readsOnlyWhatItWrites(draft: Draft, value: number, length: number): boolean {
  if (!valuesRead(draft).includes(value)) return true;
  if ((draft.kind !== 'map' && draft.kind !== 'rows') || numel(shapeOf(draft)) !== length) return false;
  return readsOf(...expressionsOf(draft))
    .filter(({ binding }) => binding === value)
    .every((read) => read.kind === 'load' && isWhole(read, length));
}

function append(lists: Map<number, number[]>, key: number, item: number): void {
  const list = lists.get(key);
  if (list) list.push(item);
  else lists.set(key, [item]);
}
