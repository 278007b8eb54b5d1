/**
 * Contractions that read through copies: an operand that was copied because a reshape merged axes which are not evenly
 * spaced (heads beside channels) is read where it was, over the axes that were merged.
 */
import type { ContractKernel, Output } from '../kernel.ts';
import { permuteView, reshapeView, substitute, type View } from '../view.ts';
import { cutsOf, indicesOf } from './digits.ts';
import { type Draft, writesOf } from './drafts.ts';

/** The drafts with contractions cut into the axes of what their operands were copied from. */
export function readThroughCopies(drafts: readonly Draft[]): Draft[] {
  const writers = new Map(drafts.flatMap((draft) => writesOf(draft).map((value) => [value, draft] as const)));
  return drafts.map((draft) => {
    if (draft.kind !== 'contract') return draft;
    const left = leftThrough(draft, writers.get(draft.a.binding)) ?? draft;
    // The right factor of a product is the left one of its transpose.
    const right = leftThrough(transposed(left), writers.get(left.b.binding));
    return right ? transposed(right) : left;
  });
}

/** The contraction with its left operand read through the copy; null where it is no copy or cannot be cut so. */
function leftThrough(loop: ContractKernel, copy: Draft | undefined): ContractKernel | null {
  if (copy?.kind !== 'map' || copy.outputs.length > 1) return null;
  const [{ expr: load }] = copy.outputs as [Output];
  if (load.kind !== 'load' || loop.a.view.guards.length > 0) return null;
  const cuts = cutsOf(loop.a.view, copy.shape);
  const cut = reshapeView(loop.a.view, cuts.flat());
  const indices = cut && indicesOf(cut, copy.shape);
  if (!indices) return null;
  const [mStart, kStart] = [loop.batch.length, loop.batch.length + loop.m.length];
  const [batch, m, k] = [cuts.slice(0, mStart), cuts.slice(mStart, kStart), cuts.slice(kStart)].map((part) =>
    part.flat(),
  );
  const b = reshapeView(loop.b.view, [...batch!, ...k!, ...loop.n]);
  if (!b) return null;
  const a = { binding: load.binding, view: substitute(load.view, cuts.flat(), indices) };
  return { ...loop, batch: batch!, m: m!, k: k!, a, b: { ...loop.b, view: b } };
}

/** The contraction of the factors changed about, whose result has m and n exchanged. */
function transposed(loop: ContractKernel): ContractKernel {
  const { batch, m, n, k, a, b } = loop;
  const axes = (count: number, start: number): number[] => Array.from({ length: count }, (_, i) => start + i);
  const first = axes(batch.length, 0);
  const exchanged = (view: View, before: number, after: number): View => {
    const start = batch.length;
    return permuteView(view, [...first, ...axes(after, start + before), ...axes(before, start)]);
  };
  return {
    ...loop,
    m: n,
    n: m,
    a: { ...b, view: exchanged(b.view, k.length, n.length) },
    b: { ...a, view: exchanged(a.view, m.length, k.length) },
  };
}
