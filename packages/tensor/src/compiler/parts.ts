/**
 * Parts written by those who compute them: a copy into a part of a whole (drafts.ts), of a value that nobody else reads,
 * is left out, and the value's kernel writes the part. A concatenation of gradients then costs nothing.
 */
import type { Aval } from '../op.ts';
import { numel } from '../shape.ts';
import { type Draft, outputsOf, shapeOf, valuesRead, writesOf } from './drafts.ts';
import { isWhole } from './expression.ts';

/** The drafts without copies into parts that other kernels can write themselves. */
export function writeParts(drafts: readonly Draft[], outputs: readonly number[]): Draft[] {
  const readers = new Map<number, number>();
  for (const value of drafts.flatMap(valuesRead)) readers.set(value, (readers.get(value) ?? 0) + 1);
  const writer = new Map(drafts.flatMap((draft, at) => writesOf(draft).map((value) => [value, at] as const)));
  const parts = new Set(drafts.flatMap((draft) => (draft.kind === 'whole' ? draft.parts : [])));
  const isOutput = new Set(outputs);
  const kept: (Draft | null)[] = [...drafts];
  drafts.forEach((copy, at) => {
    const value = copiedBy(copy);
    if (value === null || !parts.has(writesOf(copy)[0]!)) return;
    const from = writer.get(value);
    if (from === undefined || isOutput.has(value) || readers.get(value) !== 1) return;
    const rewritten = writingElsewhere(kept[from]!, value, outputsOf(copy)[0]!);
    if (!rewritten) return;
    kept[from] = rewritten;
    kept[at] = null;
  });
  return kept.filter((draft) => draft !== null);
}

/** The value that a kernel does nothing but copy, element by element; null where it does more. */
function copiedBy(draft: Draft): number | null {
  if (draft.kind !== 'map' || draft.outputs.length > 1) return null;
  const { expr } = draft.outputs[0]!;
  return expr.kind === 'load' && isWhole(expr, numel(shapeOf(draft))) ? expr.binding : null;
}

/** The kernel with one of its outputs in another place, if it can be anywhere. */
function writingElsewhere(draft: Draft, value: number, to: { buffer: number; dtype: string }): Draft | null {
  const moved = <T extends { readonly buffer: number }>(output: T): T =>
    output.buffer === value ? { ...output, buffer: to.buffer } : output;
  if (!outputsOf(draft).some(({ buffer, dtype }) => buffer === value && dtype === to.dtype)) return null;
  switch (draft.kind) {
    case 'map':
      return { ...draft, outputs: draft.outputs.map(moved) };
    case 'rows':
      return { ...draft, outputs: draft.outputs.map(moved) };
    case 'reduce':
    case 'contract':
      return { ...draft, output: moved(draft.output) };
    default:
      return null;
  }
}

/** A range of a whole's buffer. */
export interface Part {
  readonly whole: number;
  readonly start: number;
}

/** Where each part lies. */
export function partsOf(drafts: readonly Draft[], avals: readonly Aval[]): Map<number, Part> {
  const places = new Map<number, Part>();
  for (const draft of drafts) {
    if (draft.kind !== 'whole') continue;
    let start = 0;
    for (const part of draft.parts) {
      places.set(part, { whole: draft.output.buffer, start });
      start += numel(avals[part]!.shape);
    }
  }
  return places;
}
