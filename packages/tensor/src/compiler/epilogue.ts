/**
 * Epilogues: a map kernel that is the only reader of a fold's or a contraction's result becomes the expression that
 * kernel stores, so that the result never goes through memory on its own.
 */

import { numel } from '../shape.ts';
import { type Draft, fitsBindings, shapeOf, valuesRead, writesOf } from './drafts.ts';
import { type Expressions, isWhole, readsOf } from './expression.ts';

/** The drafts with map kernels folded into the loops before them, except where a loop's own result is an output. */
export function foldEpilogues(
  drafts: readonly Draft[],
  outputs: readonly number[],
  expressions: Expressions,
): Draft[] {
  const readers = new Map<number, number>();
  for (const value of drafts.flatMap(valuesRead)) readers.set(value, (readers.get(value) ?? 0) + 1);
  const isOutput = new Set(outputs);
  const writer = new Map<number, number>();
  const folded: (Draft | null)[] = [...drafts];
  drafts.forEach((draft, position) => {
    for (const value of writesOf(draft)) writer.set(value, position);
    // Of several loops the last takes the expression: the others have run by then.
    const loops = valuesRead(draft)
      .filter((value) => readers.get(value) === 1 && !isOutput.has(value) && writer.has(value))
      .sort((a, b) => writer.get(b)! - writer.get(a)!);
    for (const value of loops) {
      const together = withEpilogue(folded[writer.get(value)!]!, draft, value, expressions);
      if (!together) continue;
      folded[writer.get(value)!] = null;
      folded[position] = together;
      return;
    }
  });
  return folded.filter((draft) => draft !== null);
}

/** One kernel that computes the loop and then the map of its result; null where there is none. */
function withEpilogue(loop: Draft, map: Draft, value: number, expressions: Expressions): Draft | null {
  if (map.kind !== 'map' || map.outputs.length > 1) return null;
  if ((loop.kind !== 'reduce' && loop.kind !== 'contract') || loop.output.expr.kind !== 'folded') return null;
  const [output] = map.outputs;
  const shape = shapeOf(loop);
  const reads = readsOf(output!.expr).filter(({ binding }) => binding === value);
  if (!reads.every((read) => read.kind === 'load' && isWhole(read, numel(shape)))) return null;
  const moved = expressions.reshaped(output!.expr, map.shape, shape);
  if (moved === null) return null;
  const { expr: result } = loop.output;
  const expr = expressions.replace(moved, (load) => (load.binding === value ? result : null));
  const label = map.label === 'copy' ? loop.label : `${loop.label}+${map.label}`;
  const together = { ...loop, label, output: { ...output!, expr } };
  return fitsBindings(together) ? together : null;
}
