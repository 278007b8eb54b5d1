/**
 * Rows: folds over the same rows, and the maps of their elements, as one kernel. Softmax is two folds and a map, a norm
 * too; read by one kernel, a row comes from memory once and from a cache after that.
 *
 * Everything is told over the index space [...rows, ...row]. A map belongs to it when its own space has as many
 * elements in the same row-major order, so that pixels and channels of a group norm need not be axes of their own.
 */
import type { Expr, ReduceKernel, RowsKernel, RowsOutput } from '../kernel.ts';
import { contiguousStrides, numel, type Shape, sameShape } from '../shape.ts';
import { type Affine, isContiguous, reshapeView, type View } from '../view.ts';
import { arithmeticOf, trafficOf } from './cost.ts';
import {
  type Draft,
  expressionsOf,
  fitsBindings,
  mayFitBindings,
  shapeOf,
  valuesRead,
  writesOf,
} from './drafts.ts';
import { type Expressions, readsOf, walk } from './expression.ts';
import { Joiner } from './joiner.ts';
import { joinedLabel } from './merge.ts';

/** Larger kernels spill registers. */
export const maxKernelSize = 160;

/** Rows that keep a device busy although each is the work of one thread or workgroup. */
const manyRows = 32;
/** Elements of a row that a single thread or workgroup may fold, however few rows there are. */
const shortRow = 8192;
/** Elements of a row beyond which the whole device should share it. */
const longRow = 2 ** 19;

/** What an element read by several folds may cost to compute again for each of them. */
const cheapTraffic = 2;
const cheapArithmetic = 1;

/**
 * The drafts with folds joined to the folds and maps over the same rows.
 * @param late values whose kernels were put off, each with what it was put off for: only alike ones are joined
 */
export function joinRows(
  drafts: readonly Draft[],
  outputs: readonly number[],
  expressions: Expressions,
  late: ReadonlyMap<number, number>,
): Draft[] {
  return new Joiner(drafts, outputs, late, {
    partners,
    join: (earlier, later, isNeeded) => joined(earlier, later, isNeeded, expressions),
  }).joined();
}

interface Space {
  readonly shape: Shape;
  readonly reduced: Shape;
}

/** Whether the kernel folds rows of a length that one thread or workgroup may fold. */
export function hasRows(draft: Draft | null): draft is ReduceKernel | RowsKernel {
  if (draft?.kind !== 'rows' && !(draft?.kind === 'reduce' && draft.fold !== 'argmax')) return false;
  const [rows, length] = [numel(draft.shape), numel(draft.reduced)];
  return length > 1 && (length <= shortRow || (rows >= manyRows && length <= longRow));
}

/** The kernels that compute what this one reads, the latest first, where one of the two folds rows. */
function partners(position: number, joiner: Joiner): readonly number[] {
  const later = joiner.draft(position)!;
  if (later.kind !== 'map' && !hasRows(later)) return [];
  const writers = new Set(valuesRead(later).map((value) => joiner.writerOf(value) ?? -1));
  return [...writers]
    .filter((at) => {
      const earlier = joiner.draft(at);
      if (earlier?.kind === 'map') return hasRows(later) && isPartOf(earlier, at, later, joiner);
      return hasRows(earlier) && isPartOf(later, position, earlier, joiner);
    })
    .sort((a, b) => b - a);
}

/** Whether a kernel folds the same rows, or is a map of their elements, or of the rows on the way to their elements. */
function isPartOf(draft: Draft, position: number, { shape, reduced }: Space, joiner: Joiner): boolean {
  const [rows, elements] = [numel(shape), numel(shape) * numel(reduced)];
  if (draft.kind !== 'map')
    return hasRows(draft) && numel(draft.shape) === rows && sizeOf(draft) === elements;
  if (numel(draft.shape) === elements) return true;
  const readers = writesOf(draft).flatMap((value) => [...joiner.readersOf(value)]);
  const isOnTheWay = readers.some((at) => at !== position && sizeOf(joiner.draft(at)!) === elements);
  return numel(draft.shape) === rows && isOnTheWay;
}

/** Elements of the kernel's index space. */
function sizeOf(draft: Draft): number {
  return numel(shapeOf(draft)) * (draft.kind === 'reduce' ? numel(draft.reduced) : 1);
}

/** One kernel for both; null where they do not meet row by row, or it would be too large. */
function joined(
  earlier: Draft,
  later: Draft,
  isNeeded: (value: number) => boolean,
  expressions: Expressions,
): RowsKernel | null {
  const space = hasRows(earlier) ? earlier : later;
  if (!hasRows(space) || !mayFitBindings(earlier, later)) return null;
  if (space === later && !readsByRow(later, outputsPer(earlier, space), space)) return null;
  const first = asRows(earlier, space, expressions);
  const second = asRows(later, space, expressions);
  if (!first || !second) return null;
  if (first.folds.length === 0 && !isCheapToRepeat(first)) return null;

  const folds = [...first.folds];
  const written = new Map(first.outputs.map((output) => [output.buffer, output]));
  if (!readsByRow(second, outputsPer(first, space), space)) return null;
  /** The places among the folds of both that the second's own get. */
  const places: number[] = [];
  const moved = (expr: Expr): Expr =>
    expressions.rewrite(expr, (part) => {
      if (part.kind === 'folded') return expressions.of({ ...part, fold: places[part.fold!]! });
      return part.kind === 'load' ? (written.get(part.binding)?.expr ?? null) : null;
    });
  for (const { fold, body } of second.folds) {
    const own = { fold, body: moved(body) };
    const known = folds.findIndex((other) => other.fold === fold && other.body === own.body);
    places.push(known < 0 ? folds.push(own) - 1 : known);
  }
  const outputs = [
    ...first.outputs.filter(({ buffer }) => isNeeded(buffer)),
    ...second.outputs.map((output) => ({ ...output, expr: moved(output.expr) })),
  ];
  const together: RowsKernel = { ...first, label: joinedLabel(earlier, later), folds, outputs };
  const size = walk(...expressionsOf(together)).length;
  return fitsBindings(together) && size <= maxKernelSize ? together : null;
}

/** For each value that a kernel computes, whether rows have one of it each, or their elements. */
function outputsPer(draft: Draft, { shape, reduced }: Space): Map<number, RowsOutput['per']> {
  if (draft.kind === 'rows') return new Map(draft.outputs.map(({ buffer, per }) => [buffer, per]));
  const perElement = numel(shapeOf(draft)) === numel(shape) * numel(reduced);
  return new Map(writesOf(draft).map((value) => [value, perElement ? 'element' : 'row']));
}

/** Whether a kernel over the space reads values only at the very row, or element, where it is. */
function readsByRow(draft: Draft, per: ReadonlyMap<number, RowsOutput['per']>, { shape }: Space): boolean {
  const reads = readsOf(...expressionsOf(draft)).filter(({ binding }) => per.has(binding));
  return reads.every(({ kind, binding, view }) => {
    if (kind !== 'load') return false;
    return per.get(binding) === 'element' ? isContiguous(view) : isRowOf(view, shape);
  });
}

/** Whether the elements that a map computes may be computed again for each fold that reads them. */
function isCheapToRepeat({ outputs }: RowsKernel): boolean {
  return outputs.every(
    ({ expr }) => trafficOf(expr) <= cheapTraffic && arithmeticOf(expr) <= cheapArithmetic,
  );
}

/** The kernel told over the given rows; null where its elements are not theirs in the same order. */
export function asRows(draft: Draft, { shape, reduced }: Space, expressions: Expressions): RowsKernel | null {
  const full = [...shape, ...reduced];
  const base = { kind: 'rows', label: draft.label, bindings: [], shape, reduced } as const;
  const rowsOnly = (expr: Expr, from: Shape): Expr | null =>
    expressions.through(expr, from, (view) => {
      const rows = reshapeView(view, shape);
      return rows && alongRows(rows, full);
    });
  switch (draft.kind) {
    case 'rows': {
      if (sameShape(draft.shape, shape) && sameShape(draft.reduced, reduced)) return draft;
      return withSpace(draft, { shape, reduced }, expressions);
    }
    case 'reduce': {
      const { fold, body, output } = draft;
      if (fold === 'argmax' || body.type === 'bool') return null;
      const moved = expressions.reshaped(body, [...draft.shape, ...draft.reduced], full);
      const lifted = rowsOnly(output.expr, draft.shape);
      if (!moved || !lifted) return null;
      const expr = expressions.rewrite(lifted, (part) =>
        part.kind === 'folded' ? expressions.of({ ...part, fold: 0 }) : null,
      );
      return { ...base, folds: [{ fold, body: moved }], outputs: [{ ...output, expr, per: 'row' }] };
    }
    case 'map': {
      const per = numel(draft.shape) === numel(full) ? 'element' : 'row';
      const outputs: RowsOutput[] = [];
      for (const output of draft.outputs) {
        const expr =
          per === 'row'
            ? rowsOnly(output.expr, draft.shape)
            : expressions.reshaped(output.expr, draft.shape, full);
        if (!expr) return null;
        outputs.push({ ...output, expr, per });
      }
      return { ...base, folds: [], outputs };
    }
    default:
      return null;
  }
}

/** Rows told over other axes of the same rows. */
function withSpace(
  draft: RowsKernel,
  { shape, reduced }: Space,
  expressions: Expressions,
): RowsKernel | null {
  const full = [...shape, ...reduced];
  const move = (expr: Expr): Expr | null => expressions.reshaped(expr, shapeOf(draft), full);
  const folds = draft.folds.map(({ fold, body }) => ({ fold, body: move(body) }));
  const outputs = draft.outputs.map((output) => ({ ...output, expr: move(output.expr) }));
  if (folds.some(({ body }) => !body) || outputs.some(({ expr }) => !expr)) return null;
  return { ...draft, shape, reduced, folds, outputs } as RowsKernel;
}

/** A view of rows repeated along each of them. */
function alongRows(view: View, full: Shape): View {
  const repeated = <T extends Affine>(f: T): T => ({
    ...f,
    strides: [...f.strides, ...full.slice(f.strides.length).map(() => 0)],
  });
  return { ...repeated(view), shape: full, guards: view.guards.map(repeated) };
}

/** Whether a view reads, all along a row, the row's own element of a value that has one for each. */
function isRowOf(view: View, rows: Shape): boolean {
  if (view.offset !== 0 || view.guards.length > 0) return false;
  const strides = contiguousStrides(rows);
  return view.strides.every(
    (stride, axis) => view.shape[axis] === 1 || stride === (axis < rows.length ? strides[axis] : 0),
  );
}
