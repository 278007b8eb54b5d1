/**
 * Contract kernels: C = A B with an expression of each result, in tiles.
 *
 * The operand with more rows or columns runs along the columns of the tile, which neighbouring invocations share out
 * in quads; where that is A, the roles are swapped: C^T = B^T A^T. How a tile is computed depends on the adapter:
 * broadcastTile.ts for software adapters, sharedTile.ts for GPUs, matrixTile.ts for halves on GPUs that multiply matrices.
 */
import { readsOf } from '../compiler/expression.ts';
import type { ContractKernel } from '../kernel.ts';
import { numel } from '../shape.ts';
import { storeOne, storeQuad } from './access.ts';
import { type Buffers, KernelBindings } from './bindings.ts';
import { broadcastHeight, broadcastTile } from './broadcastTile.ts';
import type { Capabilities } from './capabilities.ts';
import { Emitter, type Value } from './emitter.ts';
import { type Launch, launch, spaces } from './launch.ts';
import { functionsOf } from './map.ts';
import { matrixTile, matrixTiling } from './matrixTile.ts';
import { Module, Statements } from './module.ts';
import { Operand } from './operand.ts';
import { type Coordinate, coordinatesOf, decompose, isQuadView, Point } from './point.ts';
import { sharedTile, sharedTiles, sharedTiling } from './sharedTile.ts';
import type { Choose, Tiling } from './tune.ts';

export const COMPONENTS = ['x', 'y', 'z', 'w'] as const;

/** A contraction as tiles see it. */
export interface Contraction {
  readonly module: Module;
  readonly batch: number;
  /** Rows and columns of the output: m and n, or n and m where swapped. */
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  /** [batch, rows, depth]. */
  readonly a: Operand;
  /** [batch, depth, columns]. */
  readonly b: Operand;
}

/** Writes what is done with four columns of a row of the output: u32 names, and a vec4f of results. */
export type EachResult = (block: Statements, row: string, column: string, result: string) => void;

/** The code that computes results. */
export interface Tile {
  readonly workgroupSize: number;
  readonly workgroups: number;
  /** The slice that the invocation's results are in, a u32 name. */
  readonly slice: string;
  /** Writes a visit to all results of the invocation, those beyond the last row or column too. */
  visit(body: Statements, each: EachResult): void;
}

/** Whether m runs along the columns. */
function isSwapped(m: number, n: number): boolean {
  return n < 16 && m > n;
}

/** Tiles that a GPU computes the kernel's output in. */
export function tilesOf(kernel: ContractKernel): number {
  const [batch, m, n] = [kernel.batch, kernel.m, kernel.n].map(numel) as [number, number, number];
  const [rows, columns] = isSwapped(m, n) ? [n, m] : [m, n];
  return sharedTiles({ batch, rows, columns }, { kind: 'shared', height: 8 });
}

/** The launch of a contract kernel. */
export function emitContract(
  kernel: ContractKernel,
  buffers: Buffers,
  capabilities: Capabilities,
  choose: Choose,
): Launch {
  const module = new Module(capabilities);
  const bindings = new KernelBindings(module, buffers, kernel, [kernel.output]);
  const [batch, m, n, depth] = [kernel.batch, kernel.m, kernel.n, kernel.k].map(numel) as [
    number,
    number,
    number,
    number,
  ];
  const swapped = isSwapped(m, n);
  const [batchRank, mRank, nRank, kRank] = [kernel.batch, kernel.m, kernel.n, kernel.k].map(
    ({ length }) => length,
  ) as [number, number, number, number];
  const outer = [0, batchRank] as const;
  const left = new Operand(module, bindings.at(kernel.a.binding), kernel.a.view, {
    batch: outer,
    free: [batchRank, batchRank + mRank],
    k: [batchRank + mRank, batchRank + mRank + kRank],
  });
  const right = new Operand(module, bindings.at(kernel.b.binding), kernel.b.view, {
    batch: outer,
    free: [batchRank + kRank, batchRank + kRank + nRank],
    k: [batchRank, batchRank + kRank],
  });
  const [a, b] = swapped ? [right, left] : [left, right];
  const [rows, columns] = swapped ? [n, m] : [m, n];
  const contraction: Contraction = { module, batch, rows, columns, depth, a, b };
  const single = tilingOf(contraction, choose); // before results are planned: small tiles give up quads
  const parts = { kernel, bindings, swapped, contraction };
  const results = planResults(parts);
  const matrices = matrixTiling(contraction);
  const body = new Statements(module);
  const tile = (matrices === null ? single : matrixTile(contraction, matrices))(body);
  tile.visit(body, (block, row, column, result) => {
    storeResult(parts, results, tile.slice, block, row, column, result);
  });
  return launch(module, {
    label: kernel.label,
    description: `contract ${spaces(kernel.batch, kernel.m, kernel.n, kernel.k)}`,
    workgroupSize: tile.workgroupSize,
    workgroups: tile.workgroups,
    body,
  });
}

/** Tiles of single numbers. */
function tilingOf(contraction: Contraction, choose: Choose): (body: Statements) => Tile {
  const { kind, height } = choose(shapeClassOf(contraction)) ?? tilingFor(contraction);
  return kind === 'broadcast'
    ? broadcastTile(contraction, height)
    : sharedTile(contraction, { kind, height });
}

/** The tiling by rule. */
function tilingFor(contraction: Contraction): Tiling {
  const { software, maxWorkgroupStorageBytes } = contraction.module.capabilities;
  return software
    ? { kind: 'broadcast', height: broadcastHeight(contraction) }
    : sharedTiling(contraction, maxWorkgroupStorageBytes);
}

/** What contractions have in common that one tiling suits: sizes up to a factor of two, and how operands are read. */
function shapeClassOf({ batch, rows, columns, depth, a, b }: Contraction): string {
  const sizes = [batch, rows, columns, depth].map((size) => 2 ** Math.ceil(Math.log2(Math.max(1, size))));
  return `${sizes.join('x')} ${a.dtype}:${a.quads} ${b.dtype}:${b.quads}`;
}

interface Parts {
  readonly kernel: ContractKernel;
  readonly bindings: KernelBindings;
  readonly swapped: boolean;
  readonly contraction: Contraction;
}

/** How results are turned into outputs. */
interface Results {
  readonly batch: readonly Coordinate[];
  readonly rows: readonly Coordinate[];
  readonly columns: readonly Coordinate[];
  /** The coordinate along which four neighbouring columns are computed at once, if they can be. */
  readonly quad: Coordinate | null;
}

/** Decides it, and which of the kernel's bindings are declared as quads. */
function planResults({ kernel, bindings, swapped, contraction: { a, b } }: Parts): Results {
  const { output } = kernel;
  const space = [...kernel.batch, ...kernel.m, ...kernel.n];
  const functions = functionsOf(output.expr);
  const [mStart, nStart] = [kernel.batch.length, kernel.batch.length + kernel.m.length];
  const batch = coordinatesOf(space, functions, 0, mStart);
  const m = coordinatesOf(space, functions, mStart, nStart);
  const n = coordinatesOf(space, functions, nStart);
  const [rows, columns] = swapped ? [n, m] : [m, n];
  const last = columns.at(-1);
  const quad = last !== undefined && last.extent % 4 === 0 ? last : null;
  // A binding is declared as quads if everything that touches it takes aligned quads.
  const touched = [a, b].map((side) => ({ binding: side.access.binding, quads: side.quads !== 'none' }));
  touched.push({ binding: bindings.output(output).binding, quads: quad !== null && !swapped });
  for (const read of readsOf(output.expr)) {
    const together =
      quad !== null && read.kind === 'load' && isQuadView(read.view, [...batch, ...m, ...n], quad);
    touched.push({ binding: bindings.at(read.binding).binding, quads: together });
  }
  for (const { binding } of touched) {
    binding.quads = touched.every((access) => access.binding !== binding || access.quads);
  }
  a.settle();
  b.settle();
  return { batch, rows, columns, quad };
}

/** Stores four columns of a row, as far as there are such a row and columns. */
function storeResult(
  parts: Parts,
  results: Results,
  slice: string,
  block: Statements,
  row: string,
  column: string,
  result: string,
): void {
  const { module, rows, columns } = parts.contraction;
  const inside = new Statements(module, block);
  if (results.quad !== null) {
    const folded = { name: result, type: 'f32', wide: true, level: 0 } as const;
    storeColumns(parts, results, slice, inside, row, column, folded);
    block.nest(`if (${row} < ${rows}u && ${column} < ${columns}u)`, inside);
    return;
  }
  COMPONENTS.forEach((c, j) => {
    const inner = new Statements(module, inside);
    const own = inner.let('u32', `${column} + ${j}u`);
    const folded = { name: `${result}.${c}`, type: 'f32', wide: false, level: 0 } as const;
    storeColumns(parts, results, slice, inner, row, own, folded);
    inside.nest(`if (${column} + ${j}u < ${columns}u)`, inner);
  });
  block.nest(`if (${row} < ${rows}u)`, inside);
}

/** Stores one column or four of a row. */
function storeColumns(
  { kernel, bindings, swapped, contraction: { module, rows, columns } }: Parts,
  results: Results,
  slice: string,
  block: Statements,
  row: string,
  column: string,
  folded: Value,
): void {
  const named = [
    ...decompose(block, 0, results.batch, slice),
    ...decompose(block, 0, results.rows, row),
    ...decompose(block, 0, results.columns, column),
  ];
  const quad = folded.wide ? named.at(-1)! : null;
  const emitter = new Emitter(module, bindings, new Point([block], named, quad), [folded]);
  const value = emitter.value(kernel.output.expr);
  const access = bindings.output(kernel.output);
  const address = (c: string) =>
    swapped
      ? `(${slice} * ${columns}u + ${c}) * ${rows}u + ${row}`
      : `(${slice} * ${rows}u + ${row}) * ${columns}u + ${c}`;
  if (!folded.wide) {
    block.line(storeOne(module, access, address(column), value.name));
    return;
  }
  const wide = emitter.wide(value);
  if (access.binding.quads) {
    block.line(storeQuad(module, access, address(column), wide));
    return;
  }
  COMPONENTS.forEach((c, j) => {
    block.line(storeOne(module, access, address(`(${column} + ${j}u)`), `${wide}.${c}`));
  });
}
