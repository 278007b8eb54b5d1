/**
 * Map kernels side by side: two of as many elements become one with several outputs, where one reads what the other
 * writes or both read the same full-size value. The new m, v and parameter of an optimizer are one kernel.
 */

import type { MapKernel, Output } from '../kernel.ts';
import { numel } from '../shape.ts';
import { type Donated, type Draft, expressionsOf, fitsBindings, mayFitBindings } from './drafts.ts';
import { type Expressions, isWhole, readsOf, walk } from './expression.ts';
import { Joiner } from './joiner.ts';

/** Larger kernels spill registers. */
const maxKernelSize = 128;
/** Partners that are tried for each kernel, the nearest first. */
const maxTries = 6;

/**
 * The drafts with map kernels merged, values still before their readers.
 * @param late values whose kernels were put off, each with what it was put off for: only alike ones merge
 * @param donated inputs whose storages outputs take over
 */
export function mergeMaps(
  drafts: readonly Draft[],
  outputs: readonly number[],
  expressions: Expressions,
  late: ReadonlyMap<number, number>,
  donated: Donated,
): Draft[] {
  return new Joiner(drafts, outputs, late, {
    partners,
    join: (earlier, later, isNeeded) => merged(earlier, later, isNeeded, expressions, donated),
  }).joined();
}

/** Earlier map kernels of as many elements that have a value in common with this one. */
function partners(position: number, joiner: Joiner): readonly number[] {
  const draft = joiner.draft(position);
  if (draft?.kind !== 'map') return [];
  const length = numel(draft.shape);
  const near = new Set<number>();
  for (const read of readsOf(...expressionsOf(draft))) {
    const writer = joiner.writerOf(read.binding);
    if (writer !== undefined) near.add(writer);
    const fullSize = read.view.strides.every((stride, axis) => stride !== 0 || read.view.shape[axis] === 1);
    if (fullSize) for (const reader of joiner.readersOf(read.binding)) near.add(reader);
  }
  const fits = (other: number): boolean => {
    const partner = joiner.draft(other);
    return other < position && partner?.kind === 'map' && numel(partner.shape) === length;
  };
  return [...near]
    .filter(fits)
    .sort((a, b) => b - a)
    .slice(0, maxTries);
}

/** One kernel for both; null where the later reads the earlier elsewhere than it writes, or it would be too large. */
function merged(
  a: Draft,
  b: Draft,
  isNeeded: (value: number) => boolean,
  expressions: Expressions,
  donated: Donated,
): MapKernel | null {
  if (a.kind !== 'map' || b.kind !== 'map' || !mayFitBindings(a, b, donated)) return null;
  const written = new Map(a.outputs.map((output) => [output.buffer, output]));
  const between = readsOf(...expressionsOf(b)).filter(({ binding }) => written.has(binding));
  const length = numel(a.shape);
  if (!between.every((read) => read.kind === 'load' && isWhole(read, length))) return null;
  const moved: Output[] = [];
  for (const output of b.outputs) {
    const expr = expressions.reshaped(output.expr, b.shape, a.shape);
    if (expr === null) return null;
    const inlined = expressions.replace(expr, (load) => written.get(load.binding)?.expr ?? null);
    moved.push({ ...output, expr: inlined });
  }
  const needed = a.outputs.filter(({ buffer }) => isNeeded(buffer));
  const together: MapKernel = { ...a, label: joinedLabel(a, b), outputs: [...needed, ...moved] };
  const size = walk(...expressionsOf(together)).length;
  return fitsBindings(together, donated) && size <= maxKernelSize ? together : null;
}

/** The ops of both, each once. */
export function joinedLabel(a: Draft, b: Draft): string {
  return [...new Set([...a.label.split('+'), ...b.label.split('+')])].join('+');
}
