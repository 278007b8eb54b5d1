/**
 * The order in which loops store their results: where all readers take a result in one other order (a weight's
 * gradient, transposed), the loop stores it in that order, and the readers have it as it is.
 */
import type { ContractKernel, ReduceKernel } from '../kernel.ts';
import { contiguousView, isContiguous, mergeAxes, permuteView, reshapeView, type View } from '../view.ts';
import { type Digits, digitsOf } from './digits.ts';
import { type Draft, expressionsOf, shapeOf, valuesRead, withExpressions } from './drafts.ts';
import { type Expressions, readsOf } from './expression.ts';

/** The drafts with results reordered; those that are outputs, or operands of loops, stay as they are. */
export function orderLoops(
  drafts: readonly Draft[],
  outputs: readonly number[],
  expressions: Expressions,
): Draft[] {
  const ordered = [...drafts];
  const readers = new Map<number, number[]>();
  drafts.forEach((draft, position) => {
    for (const value of valuesRead(draft)) readers.set(value, [...(readers.get(value) ?? []), position]);
  });
  drafts.forEach((_, position) => {
    const loop = ordered[position]!;
    if (loop.kind !== 'reduce' && loop.kind !== 'contract') return;
    const value = loop.output.buffer;
    const positions = readers.get(value) ?? [];
    const order = outputs.includes(value)
      ? null
      : commonOrder(
          positions.map((at) => ordered[at]!),
          value,
        );
    const inOrder = order && inOrderOf(loop, order, expressions);
    if (!inOrder) return;
    ordered[position] = inOrder;
    for (const at of positions) {
      ordered[at] = withExpressions(ordered[at]!, (expr) =>
        expressions.replace(expr, (load) =>
          load.binding === value ? expressions.of({ ...load, view: contiguousView(load.view.shape) }) : null,
        ),
      );
    }
  });
  return ordered;
}

/** A view that reads the value in the order that all readers read it in; null where it is the order it has. */
function commonOrder(readers: readonly Draft[], value: number): View | null {
  let order: View | null = null;
  for (const reader of readers) {
    const reads = readsOf(...expressionsOf(reader)).filter(({ binding }) => binding === value);
    if (reads.length === 0) return null; // an operand of a loop
    for (const { kind, view } of reads) {
      if (kind !== 'load' || isContiguous(view) || view.guards.length > 0) return null;
      const { shape, kept } = mergeAxes(view.shape, [view]);
      const merged = { ...view, shape, strides: kept.map((axes) => view.strides[axes.at(-1)!]!) };
      if (order && JSON.stringify(order) !== JSON.stringify(merged)) return null;
      order = merged;
    }
  }
  return order;
}

/**
 * The loop with its results in the order in which a view reads them, each once; null where the order mixes axes that
 * a contraction keeps apart. Axes are cut into the digits that the order is made of (digits.ts).
 */
function inOrderOf(
  loop: ReduceKernel | ContractKernel,
  order: View,
  expressions: Expressions,
): ReduceKernel | ContractKernel | null {
  const digits = digitsOf(order, shapeOf(loop));
  if (digits === null) return null;
  return loop.kind === 'reduce' ? reduceInOrder(loop, digits, expressions) : contractInOrder(loop, digits);
}

function reduceInOrder(
  loop: ReduceKernel,
  { own, read, base }: Digits,
  expressions: Expressions,
): ReduceKernel | null {
  const given = own.flat();
  const { reduced } = loop;
  const inner = reduced.map((_, axis) => given.length + axis);
  const body = expressions.through(loop.body, [...loop.shape, ...reduced], (view) => {
    const cut = reshapeView(view, [...given.map(base), ...reduced]);
    return cut && permuteView(cut, [...read.map((weight) => given.indexOf(weight)), ...inner]);
  });
  return body && { ...loop, shape: read.map(base), body };
}

function contractInOrder(loop: ContractKernel, { own, read, base }: Digits): ContractKernel | null {
  const { k, a, b } = loop;
  const [mStart, nStart] = [loop.batch.length, loop.batch.length + loop.m.length];
  const groups = [own.slice(0, mStart).flat(), own.slice(mStart, nStart).flat(), own.slice(nStart).flat()];
  const [batch, m, n] = groups.map((group) => read.filter((weight) => group.includes(weight)));
  const swapped = [...batch!, ...n!, ...m!];
  const straight = [...batch!, ...m!, ...n!].every((weight, i) => weight === read[i]);
  if (!straight && !swapped.every((weight, i) => weight === read[i])) return null;

  /** The operand over [...batch, ...rows, ...k], or with k before the rows; its axes so far are `from`. */
  const over = (
    view: View,
    from: readonly (readonly number[] | null)[],
    to: readonly (readonly number[] | null)[],
  ) => {
    const axes = from.flatMap((group) => group ?? k.map((_, i) => -1 - i));
    const extents = axes.map((axis) => (axis < 0 ? k[-1 - axis]! : base(axis)));
    const cut = reshapeView(view, extents);
    const order = to.flatMap((group) => group ?? k.map((_, i) => -1 - i)).map((axis) => axes.indexOf(axis));
    return cut && permuteView(cut, order);
  };
  const [ownBatch, ownM, ownN] = groups;
  const left = over(a.view, [ownBatch!, ownM!, null], straight ? [batch!, m!, null] : [batch!, null, m!]);
  const right = over(b.view, [ownBatch!, null, ownN!], straight ? [batch!, null, n!] : [batch!, n!, null]);
  if (!left || !right) return null;
  const extents = { batch: batch!.map(base), m: m!.map(base), n: n!.map(base) };
  const operands = { a: { ...a, view: left }, b: { ...b, view: right } };
  if (straight) return { ...loop, ...extents, ...operands };
  return { ...loop, ...extents, m: extents.n, n: extents.m, a: operands.b, b: operands.a };
}
