/**
 * Folds side by side: reductions near one another, over as many rows of as many elements, become one kernel. The
 * gradients of a norm's weight and bias and of the biases around it read the same values, and none is work for a device
 * on its own.
 */
import type { Expr, ReduceKernel, RowsKernel } from '../kernel.ts';
import { numel } from '../shape.ts';
import type { View } from '../view.ts';
import { type Draft, expressionsOf, maxBuffers, valuesRead, writesOf } from './drafts.ts';
import { Expressions, readsOf, walk } from './expression.ts';
import { Joiner } from './joiner.ts';
import { joinedLabel } from './merge.ts';
import { asRows, hasRows, maxKernelSize } from './rows.ts';

/** Kernels back to look for a partner: what a fold reads lives on until the last of those that it runs with. */
const nearby = 16;

/**
 * The drafts with folds joined that read nothing of one another.
 * @param late values whose kernels were put off, each with what it was put off for: only alike ones are joined
 */
export function joinFolds(
  drafts: readonly Draft[],
  outputs: readonly number[],
  expressions: Expressions,
  late: ReadonlyMap<number, number>,
): Draft[] {
  const wholes = new Map(
    drafts.flatMap((draft) =>
      draft.kind === 'whole' ? draft.parts.map((part) => [part, draft.output.buffer] as const) : [],
    ),
  );
  const buffersOf = (draft: Draft): number =>
    new Set([...valuesRead(draft), ...writesOf(draft).map((value) => wholes.get(value) ?? value)]).size;
  return new Joiner(drafts, outputs, late, {
    partners,
    join: (earlier, later) => {
      const together = joined(earlier, later, expressions);
      return together && buffersOf(together) <= maxBuffers ? together : null;
    },
  }).joined();
}

/** Whether all that a kernel does is to fold, each fold for an output of its own. */
export function isFolds(draft: Draft | null): draft is ReduceKernel | RowsKernel {
  if (!hasRows(draft)) return false;
  if (draft.kind === 'reduce') return true;
  const foldsIn = (...exprs: readonly Expr[]): (number | undefined)[] =>
    walk(...exprs).flatMap((expr) => (expr.kind === 'folded' ? [expr.fold] : []));
  const isFirst = foldsIn(...draft.folds.map(({ body }) => body)).length === 0;
  const isOwn = draft.outputs.every(
    ({ per, expr }, i) => per === 'row' && foldsIn(expr).every((fold) => fold === i),
  );
  return isFirst && isOwn && draft.outputs.length === draft.folds.length;
}

/** Earlier folds that this one reads nothing of, those that read something in common with it first. */
function partners(position: number, joiner: Joiner): readonly number[] {
  const later = joiner.draft(position);
  if (!isFolds(later)) return [];
  const read = new Set(valuesRead(later));
  const found: { readonly at: number; readonly inCommon: boolean }[] = [];
  for (let at = position - 1; at >= Math.max(0, position - nearby); at -= 1) {
    const earlier = joiner.draft(at);
    if (!isFolds(earlier) || !isAlike(earlier, later)) continue;
    if (writesOf(earlier).some((value) => read.has(value))) continue;
    found.push({ at, inCommon: valuesRead(earlier).some((value) => read.has(value)) });
  }
  return found.sort((a, b) => Number(b.inCommon) - Number(a.inCommon) || b.at - a.at).map(({ at }) => at);
}

function isAlike(a: ReduceKernel | RowsKernel, b: ReduceKernel | RowsKernel): boolean {
  const sameSize = numel(a.shape) === numel(b.shape) && numel(a.reduced) === numel(b.reduced);
  return sameSize && readsAlongRows(a) === readsAlongRows(b);
}

/** Whether neighbours in memory are neighbours in a row, not in different rows. */
function readsAlongRows(draft: ReduceKernel | RowsKernel): boolean {
  const bodies = draft.kind === 'reduce' ? [draft.body] : draft.folds.map(({ body }) => body);
  return readsOf(...bodies).some(
    ({ view }) => view.strides.findLast((_, axis) => view.shape[axis] !== 1) === 1,
  );
}

function joined(earlier: Draft, later: Draft, expressions: Expressions): RowsKernel | null {
  if (!isFolds(earlier) || !isFolds(later)) return null;
  const [first, second] = [earlier, later].map((draft) => asRows(draft, earlier, expressions));
  if (!first || !second) return null;
  const outputs = second.outputs.map((output) => {
    const expr = expressions.rewrite(output.expr, (part) =>
      part.kind === 'folded' ? expressions.of({ ...part, fold: part.fold! + first.folds.length }) : null,
    );
    return { ...output, expr };
  });
  const together: RowsKernel = {
    ...first,
    label: joinedLabel(earlier, later),
    folds: [...first.folds, ...second.folds],
    outputs: [...first.outputs, ...outputs],
  };
  return walk(...expressionsOf(together)).length <= maxKernelSize ? together : null;
}

/** The reductions that a kernel of nothing but folds (`isFolds`) does, one by one. */
export function foldsApart(kernel: RowsKernel): ReduceKernel[] {
  const expressions = new Expressions();
  const { label, bindings, shape, reduced } = kernel;
  const rank = shape.length;
  const ofRow = (view: View): View => ({
    ...view,
    shape,
    strides: view.strides.slice(0, rank),
    guards: view.guards.map((guard) => ({ ...guard, strides: guard.strides.slice(0, rank) })),
  });
  return kernel.folds.map(({ fold, body }, i) => {
    const { per: _, ...output } = kernel.outputs[i]!;
    const alone = expressions.rewrite(output.expr, (part) =>
      part.kind === 'folded' ? expressions.of({ ...part, fold: 0 }) : null,
    );
    const expr = expressions.through(alone, [...shape, ...reduced], ofRow)!;
    return { kind: 'reduce', label, bindings, shape, reduced, fold, body, output: { ...output, expr } };
  });
}
