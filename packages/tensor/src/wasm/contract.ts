/**
 * Code for contractions, after Goto and van de Geijn (2008): a chunk computes one or several blocks of the output.
 * For each block of k it packs a block of A and a block of B (small enough for the second-level cache), lets the
 * microkernel add their product to the block of C, and applies the epilogue when the last block of k is done.
 *
 * Blocks follow from the shapes alone, so results do not depend on the number of threads.
 */
import type { ContractKernel } from '../kernel.ts';
import { contiguousStrides, numel, type Shape } from '../shape.ts';
import type { Code, Local } from './assembler.ts';
import { Expressions, type LoopAxis, type Pointer } from './expressions.ts';
import { decompose, forRange, forRuns, vectorLoops } from './loops.ts';
import { microkernel, tileColumns, tileRowsOf } from './microkernel.ts';
import { type Operand, operandTables } from './operand.ts';
import { packFunction } from './pack.ts';
import { affineFunctions, mergeGroups } from './space.ts';
import { type KernelFunction, openKernel, type Target, type WrittenKernel } from './target.ts';

interface Blocking {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  /** Blocks down, across, and in all. */
  readonly down: number;
  readonly across: number;
  readonly count: number;
  /** Blocks that one chunk computes. */
  readonly perChunk: number;
}

const maxRows = 96;
const maxColumns = 256;
const maxDepth = 320;
/** Multiply-adds below which a chunk is not worth the handing out. */
const smallWork = 2 ** 18;

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** Splits an extent evenly into parts of at most `limit`, each a multiple of `unit`. */
function part(extent: number, limit: number, unit: number): number {
  return roundUp(Math.ceil(extent / Math.max(1, Math.ceil(extent / limit))), unit);
}

function blocking(batch: number, m: number, n: number, k: number, tileRows: number): Blocking {
  let rows = part(m, maxRows, tileRows);
  let columns = part(n, maxColumns, tileColumns);
  const count = () => batch * Math.ceil(m / rows) * Math.ceil(n / columns);
  // At least 8 blocks, so that threads that are slowed down hold nobody up; not smaller than packing them pays.
  while (count() < 8 && rows * columns * k > 4 * smallWork && (rows > 24 || columns > 32)) {
    if (columns >= rows && columns > 32) columns = part(columns, columns / 2, tileColumns);
    else rows = part(rows, rows / 2, tileRows);
  }
  const work = Math.max(1, rows * columns * k);
  const [down, across] = [Math.ceil(m / rows), Math.ceil(n / columns)];
  const perChunk = Math.max(1, Math.min(Math.floor(smallWork / work), count()));
  return { rows, columns, depth: part(k, maxDepth, 4), down, across, count: count(), perChunk };
}

/**
 * Whether the batch is counted along with n: where A is the same for all of it (the weights of a convolution), larger
 * blocks of columns need A packed less often.
 */
function foldsBatch({ a: { view }, batch }: ContractKernel): boolean {
  return batch.every(
    (extent, axis) => extent === 1 || [view, ...view.guards].every((f) => f.strides[axis] === 0),
  );
}

export function writeContract(target: Target, kernel: ContractKernel): WrittenKernel {
  const folds = foldsBatch(kernel);
  const [whole, m, inner, k] = [numel(kernel.batch), numel(kernel.m), numel(kernel.n), numel(kernel.k)];
  const [batch, n] = folds ? [1, whole * inner] : [whole, inner];
  const blocks = blocking(batch, m, n, k, tileRowsOf(target));
  const opened = openKernel(target, kernel);
  const { fn, body, chunk } = opened;
  const [block, end, index, down, across] = [0, 0, 0, 0, 0].map(() => fn.local('i32')) as [
    Local,
    Local,
    Local,
    Local,
    Local,
  ];
  const bounds = { m0: fn.local('i32'), m1: fn.local('i32'), n0: fn.local('i32'), n1: fn.local('i32') };
  const upTo = (start: Local, size: number, limit: number, into: Local) => {
    body.get(start).i32(size).op('i32.add').tee(into).i32(limit).get(into).i32(limit);
    body.op('i32.lt_u').op('select').set(into);
  };
  body.get(chunk).i32(blocks.perChunk).op('i32.mul').set(block);
  upTo(block, blocks.perChunk, blocks.count, end);
  const product = writeProduct(target, kernel, opened, blocks, folds);
  forRange(body, block, end, 1, () => {
    body.get(block).set(down);
    decompose(body, down, [
      { extent: batch, local: index },
      { extent: blocks.down, local: across },
      { extent: blocks.across, local: bounds.n0 },
    ]);
    body.get(across).i32(blocks.rows).op('i32.mul').set(bounds.m0);
    body.get(bounds.n0).i32(blocks.columns).op('i32.mul').set(bounds.n0);
    upTo(bounds.m0, blocks.rows, m, bounds.m1);
    upTo(bounds.n0, blocks.columns, n, bounds.n1);
    product(index, bounds);
    writeEpilogue(kernel, opened, blocks, folds ? null : index, bounds);
  });
  const phase = { index: target.module.add(fn), chunks: Math.ceil(blocks.count / blocks.perChunk) };
  return { phases: [phase], scratchBytes: scratchLayout(blocks).bytes, sharedBytes: 0 };
}

/** Where a thread keeps its block of C, of A and of B. */
function scratchLayout({ rows, columns, depth }: Blocking): { a: number; b: number; bytes: number } {
  const a = 4 * rows * columns;
  const b = a + roundUp(4 * rows * depth, 64);
  return { a, b, bytes: roundUp(b + 4 * columns * depth, 64) };
}

interface Bounds {
  readonly m0: Local;
  readonly m1: Local;
  readonly n0: Local;
  readonly n1: Local;
}

/** Writes code that leaves the product of a block in the thread's block of C. */
function writeProduct(
  target: Target,
  kernel: ContractKernel,
  { fn, body, scratch, bindings }: KernelFunction,
  blocks: Blocking,
  folds: boolean,
): (batch: Local, bounds: Bounds) => void {
  const depth = numel(kernel.k);
  const tileRows = tileRowsOf(target);
  const layout = scratchLayout(blocks);
  const [pointerA, pointerB] = [bindings[kernel.a.binding]!, bindings[kernel.b.binding]!];
  const bufferOf = (binding: number) => {
    const { buffer, dtype } = kernel.bindings[binding]!;
    return { dtype, length: target.lengthOf(buffer) };
  };
  const axes = (start: number, shape: Shape) => Array.from(shape, (_, axis) => start + axis);
  const lead = kernel.batch.length;
  const batch = axes(0, kernel.batch);
  const a = operandTables(kernel.a.view, bufferOf(kernel.a.binding), {
    batch: folds ? [] : batch,
    panel: axes(lead, kernel.m),
    k: axes(lead + kernel.m.length, kernel.k),
  });
  const columns = axes(lead + kernel.k.length, kernel.n);
  const b = operandTables(kernel.b.view, bufferOf(kernel.b.binding), {
    batch: folds ? [] : batch,
    panel: folds ? [...batch, ...columns] : columns,
    k: axes(lead, kernel.k),
  });
  const [m, n] = [a.panel.address.length, b.panel.address.length];
  const [k0, k1, length, panel, tile, addressA, addressB, to] = [0, 0, 0, 0, 0, 0, 0, 0].map(() =>
    fn.local('i32'),
  ) as [Local, Local, Local, Local, Local, Local, Local, Local];
  const startA = writeBatch(
    target,
    a,
    pointerA,
    fn.local('i32'),
    a.limits.map(() => fn.local('i32')),
  );
  const startB = writeBatch(
    target,
    b,
    pointerB,
    fn.local('i32'),
    b.limits.map(() => fn.local('i32')),
  );

  /** Runs `each` for full panels from start to end, then for the rest, whose width only the last block can have. */
  const panels = (start: Local, end: Local, extent: number, width: number, each: (width: number) => void) => {
    const rest = extent % width;
    const full = fn.local('i32');
    body.get(start).set(panel);
    body.get(end, start).op('i32.sub').i32(width).op('i32.div_u').i32(width).op('i32.mul');
    body.get(start).op('i32.add').set(full);
    if (extent >= width) forRange(body, panel, full, width, () => each(width));
    if (rest > 0)
      body
        .get(panel, end)
        .op('i32.lt_u')
        .if(() => each(rest));
  };
  const pack = (operand: Operand, pointer: Pointer, batchStart: BatchStart, width: number, unit: number) => {
    body.get(batchStart.address, panel, k0, k1, to, pointer.local, ...batchStart.guards);
    body.op('call', packFunction(target, operand, width, unit));
    body
      .get(length)
      .i32(4 * width)
      .op('i32.mul')
      .get(to)
      .op('i32.add')
      .set(to);
  };
  const columnsOf = (width: number) => roundUp(width, 4);

  return (index, { m0, m1, n0, n1 }) => {
    if (depth === 0) {
      body.get(scratch).set(to);
      const zero = fn.local('v128');
      const stop = fn.local('i32');
      body.get(scratch).i32(layout.a).op('i32.add').set(stop);
      forRange(body, to, stop, 16, () => body.get(to, zero).op('v128.store', 0));
      return;
    }
    startA.write(body, index);
    startB.write(body, index);
    body.i32(0).set(k0);
    const limit = fn.local('i32');
    body.i32(depth).set(limit);
    forRange(body, k0, limit, blocks.depth, () => {
      body.get(k0).i32(blocks.depth).op('i32.add').tee(k1).get(limit, k1, limit);
      body.op('i32.lt_u').op('select').tee(k1).get(k0).op('i32.sub').set(length);
      body.get(scratch).i32(layout.a).op('i32.add').set(to);
      panels(m0, m1, m, tileRows, (width) => pack(a, pointerA, startA, width, tileRows));
      body.get(scratch).i32(layout.b).op('i32.add').set(to);
      panels(n0, n1, n, tileColumns, (width) => {
        body.get(to).set(addressB);
        pack(b, pointerB, startB, columnsOf(width), tileColumns);
        multiply(columnsOf(width));
      });
    });

    /** All panels of A times the panel of B just packed, which is still in the first-level cache. */
    function multiply(columns: number): void {
      const column = fn.local('i32');
      body.get(panel).set(column);
      body.get(scratch).i32(layout.a).op('i32.add').set(addressA);
      body.get(column, n0).op('i32.sub').i32(4).op('i32.mul').get(scratch).op('i32.add').set(tile);
      panels(m0, m1, m, tileRows, (rows) => {
        body
          .get(addressA, addressB, length, tile)
          .i32(4 * blocks.columns)
          .get(k0);
        body.op('call', microkernel(target, rows, columns / 4));
        body
          .get(length)
          .i32(4 * rows)
          .op('i32.mul')
          .get(addressA)
          .op('i32.add')
          .set(addressA);
        body
          .get(tile)
          .i32(4 * rows * blocks.columns)
          .op('i32.add')
          .set(tile);
      });
      body.get(column).set(panel);
    }
  };
}

export interface BatchStart {
  readonly address: Local;
  readonly guards: readonly Local[];
}

/** Locals with the batch's share of an operand's address (the buffer's address included) and guards. */
export function writeBatch(
  target: Target,
  { batch }: Operand,
  pointer: Pointer,
  address: Local,
  guards: readonly Local[],
): BatchStart & { write(body: Code, index: Local): void } {
  const read = (body: Code, table: Int32Array, index: Local) =>
    target.tables.read(body.get(index).i32(2).op('i32.shl'), table);
  return {
    address,
    guards,
    write: (body, index) => {
      read(body, batch.address, index).get(pointer.local).op('i32.add').set(address);
      batch.guards.forEach((table, g) => {
        read(body, table, index).set(guards[g]!);
      });
    },
  };
}

/** Stores the epilogue of a block, row by row, four columns at a time. */
function writeEpilogue(
  kernel: ContractKernel,
  { context, fn, body, scratch, bindings, outputs }: KernelFunction,
  blocks: Blocking,
  batch: Local | null,
  { m0, m1, n0, n1 }: Bounds,
): void {
  const groups = [kernel.batch, kernel.m, kernel.n];
  const { expr } = kernel.output;
  const stored = { offset: 0, strides: contiguousStrides(groups.flat()) };
  const merged = mergeGroups(groups, [stored, ...affineFunctions([expr])]);
  // Where there is no batch, its axes count as columns, before those of n.
  const isColumn = ({ group }: { group: number }) => group === 2 || (group === 0 && batch === null);
  const inner = merged.filter(isColumn).at(-1);
  const innerExtent = inner?.extent ?? 1;
  const [m, position, rest, source] = [0, 0, 0, 0].map(() => fn.local('i32')) as [Local, Local, Local, Local];
  body.get(m0).set(m);
  forRange(body, m, m1, 1, () => {
    body.get(n0).set(position);
    body
      .get(m, m0)
      .op('i32.sub')
      .i32(4 * blocks.columns)
      .op('i32.mul')
      .get(scratch)
      .op('i32.add')
      .set(source);
    forRuns(fn, body, { position, end: n1, inner: innerExtent }, ({ row, i, stop }) => {
      const axes: (LoopAxis & { extent: number; group: number })[] = merged.map((axis) => {
        const vector = axis === inner;
        return { ...axis, local: vector ? i : fn.local('i32'), level: vector ? 2 : 1, vector };
      });
      const expressions = new Expressions(context, axes, bindings, 3);
      const emit = () => {
        const section = expressions.restart(2);
        const folded = fn.local('v128');
        section
          .get(source)
          .op(expressions.lanes === 4 ? 'v128.load' : 'v128.load32_splat', 0)
          .set(folded);
        expressions.folded = [{ local: folded, level: 2 }];
        expressions.store(expressions.value(expr).local, expr.type, outputs[0]!, stored);
        expressions
          .section(2)
          .get(source)
          .i32(4 * expressions.lanes)
          .op('i32.add')
          .set(source);
        return section;
      };
      vectorLoops(fn, body, expressions, { i, stop, extent: innerExtent }, emit, () => {
        const outer = (group: number) => axes.filter((axis) => axis.group === group);
        if (batch !== null) {
          body.get(batch).set(rest);
          decompose(body, rest, outer(0));
        }
        body.get(m).set(rest);
        decompose(body, rest, outer(1));
        decompose(
          body,
          row,
          axes.filter((axis) => isColumn(axis) && !axis.vector),
        );
        body.append(expressions.section(1));
      });
    });
  });
}
