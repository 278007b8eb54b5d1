/**
 * The order in which kernels store their results.
 *
 * Where all readers take a loop's result in one other order (a weight's gradient, transposed), the loop stores it in
 * that order. Where only a map kernel takes it, in an order that the loop cannot store (attention's heads, scaled),
 * the map keeps the loop's order and its readers look elsewhere. Either way the map can become the loop's epilogue.
 */
import type { ContractKernel, MapKernel, Operand, ReduceKernel } from '../kernel.ts';
import type { Shape } from '../shape.ts';
import {
  contiguousView,
  isContiguous,
  mergeAxes,
  permuteView,
  reshapeView,
  substitute,
  type View,
} from '../view.ts';
import { type Digits, digitsOf, indicesOf } from './digits.ts';
import { type Draft, expressionsOf, mapOperands, shapeOf, valuesRead, withExpressions } from './drafts.ts';
import { type Expressions, readsOf } from './expression.ts';

/** The drafts with results reordered; those that are outputs, or operands of loops, stay as they are. */
export function orderLoops(
  drafts: readonly Draft[],
  outputs: readonly number[],
  expressions: Expressions,
): Draft[] {
  const ordered = [...drafts];
  const readers = readersOf(drafts);
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

/** The drafts with maps of loop results kept in the loops' order; those that are outputs stay as they are. */
export function orderMaps(
  drafts: readonly Draft[],
  outputs: readonly number[],
  expressions: Expressions,
): Draft[] {
  const ordered = [...drafts];
  const readers = readersOf(drafts);
  const isOutput = new Set(outputs);
  drafts.forEach((loop, position) => {
    if (loop.kind !== 'reduce' && loop.kind !== 'contract') return;
    const { buffer } = loop.output;
    const [at, ...others] = readers.get(buffer) ?? [];
    const map = at === undefined ? undefined : ordered[at];
    if (map?.kind !== 'map' || map.outputs.length > 1 || others.length > 0 || isOutput.has(buffer)) return;
    const [output] = map.outputs;
    const order = commonOrder([map], buffer);
    if (!order || isOutput.has(output!.buffer)) return;
    const kept = keepOrder(map, order, shapeOf(ordered[position]!), expressions);
    if (!kept) return;
    const users = readers.get(output!.buffer) ?? [];
    const moved = users.map((user) => rereading(ordered[user]!, output!.buffer, kept.digits, expressions));
    if (moved.includes(null)) return;
    ordered[at!] = kept.map;
    users.forEach((user, i) => {
      ordered[user] = moved[i]!;
    });
  });
  return ordered;
}

/** The map with its result in the order of the loop's that it reads; null where another of its reads cannot follow. */
function keepOrder(
  map: MapKernel,
  order: View,
  shape: Shape,
  expressions: Expressions,
): { readonly map: MapKernel; readonly digits: Digits } | null {
  const digits = digitsOf(order, shape);
  if (!digits) return null;
  const { own, read, base } = digits;
  const kept = own.flat();
  const [output] = map.outputs;
  const expr = expressions.through(output!.expr, map.shape, (view) => {
    const cut = reshapeView(view, read.map(base));
    return (
      cut &&
      permuteView(
        cut,
        kept.map((weight) => read.indexOf(weight)),
      )
    );
  });
  return expr && { map: { ...map, shape: kept.map(base), outputs: [{ ...output!, expr }] }, digits };
}

/** The kernel when the value that it reads lies in the order of the digits' weights; null where it cannot be told. */
function rereading(
  draft: Draft,
  value: number,
  { read, base }: Digits,
  expressions: Expressions,
): Draft | null {
  const before = read.map(base);
  const now: View = { shape: before, offset: 0, strides: read, guards: [] };
  const reread = (view: View): View | null => {
    const indices = indicesOf(view, before);
    return indices && { ...substitute(now, view.shape, indices), guards: view.guards };
  };
  if (draft.kind === 'whole') return null;
  if (draft.kind === 'scatter' && (draft.index.binding === value || draft.values.binding === value))
    return null;
  const loads = readsOf(...expressionsOf(draft)).filter(({ binding }) => binding === value);
  if (!loads.every(({ kind, view }) => kind === 'load' && reread(view))) return null;
  const moved = withExpressions(draft, (expr) =>
    expressions.replace(expr, (load) =>
      load.binding === value ? expressions.of({ ...load, view: reread(load.view)! }) : null,
    ),
  );
  const rereadOperand = (operand: Operand): Operand | null => {
    const view = operand.binding === value ? reread(operand.view) : operand.view;
    return view && { ...operand, view };
  };
  if (moved.kind === 'attend') {
    const operands = mapOperands(moved.operands, rereadOperand);
    return operands && { ...moved, operands };
  }
  if (moved.kind !== 'contract') return moved;
  const [a, b] = [moved.a, moved.b].map(rereadOperand);
  return a && b ? { ...moved, a, b } : null;
}

function readersOf(drafts: readonly Draft[]): Map<number, number[]> {
  const readers = new Map<number, number[]>();
  drafts.forEach((draft, position) => {
    for (const value of valuesRead(draft)) readers.set(value, [...(readers.get(value) ?? []), position]);
  });
  return readers;
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
