/**
 * Contract kernels: teams of lanes compute tiles of the output in registers.
 *
 * A tile has `rows` rows and four columns for each lane. For four steps of k at a time, each lane reads four columns
 * of B for itself, and its share of the tile's rows of A, which the team passes around by subgroup broadcast: no
 * workgroup memory, no barrier. Without subgroups of known size a team is one lane that reads everything.
 *
 * The operand with more rows or columns is the one whose elements are spread over lanes; where that is A, the roles
 * are swapped: C^T = B^T A^T.
 */
import { readsOf, walk } from '../compiler/expression.ts';
import type { ContractKernel } from '../kernel.ts';
import { numel } from '../shape.ts';
import { storeOne, storeQuad } from './access.ts';
import { type Buffers, KernelBindings } from './bindings.ts';
import type { Capabilities } from './capabilities.ts';
import { Emitter, type Value } from './emitter.ts';
import { GROUP, LANE, type Launch, launch, spaces } from './launch.ts';
import { functionsOf } from './map.ts';
import { Module, Statements } from './module.ts';
import { type Axes, Operand, type Part } from './operand.ts';
import { type Coordinate, coordinatesOf, decompose, isQuadView, Point } from './point.ts';

const COMPONENTS = ['x', 'y', 'z', 'w'] as const;

interface Tile {
  /** Lanes of a team. */
  readonly lanes: number;
  readonly rows: number;
  /** Columns: four for each lane. */
  readonly columns: number;
}

interface Parts {
  readonly kernel: ContractKernel;
  readonly module: Module;
  readonly bindings: KernelBindings;
  readonly swapped: boolean;
  readonly batch: number;
  /** Rows and columns of the output as the tile sees it: m and n, or n and m where swapped. */
  readonly rows: number;
  readonly columns: number;
  readonly k: number;
  readonly tile: Tile;
  readonly a: Operand;
  readonly b: Operand;
}

/** The launch of a contract kernel. */
export function emitContract(kernel: ContractKernel, buffers: Buffers, capabilities: Capabilities): Launch {
  const module = new Module(capabilities);
  const bindings = new KernelBindings(module, buffers, kernel, [kernel.output]);
  const [batch, m, n, k] = [kernel.batch, kernel.m, kernel.n, kernel.k].map(numel) as [
    number,
    number,
    number,
    number,
  ];
  const swapped = n < 16 && m > n;
  const [rows, columns] = swapped ? [n, m] : [m, n];
  const ranks = [kernel.batch, kernel.m, kernel.n, kernel.k].map(({ length }) => length);
  const left = operand(module, bindings, kernel.a, ranks[0]!, ranks[1]!, ranks[3]!, true);
  const right = operand(module, bindings, kernel.b, ranks[0]!, ranks[2]!, ranks[3]!, false);
  const [a, b] = swapped ? [right, left] : [left, right];
  for (const side of [a, b]) side.requireFloat(kernel.label);
  const lanes =
    capabilities.subgroupSize >= 4 && capabilities.subgroupSize <= 32 ? capabilities.subgroupSize : 1;
  const height = rows <= 4 ? 4 : rows <= 8 || lanes === 1 ? 8 : 16;
  const tile = { lanes, rows: height, columns: 4 * lanes };
  return emit({ kernel, module, bindings, swapped, batch, rows, columns, k, tile, a, b });
}

function operand(
  module: Module,
  bindings: KernelBindings,
  { binding, view }: ContractKernel['a'],
  batchRank: number,
  freeRank: number,
  kRank: number,
  freeFirst: boolean,
): Operand {
  const [first, second] = freeFirst ? [freeRank, kRank] : [kRank, freeRank];
  const before: Axes = [batchRank, batchRank + first];
  const after: Axes = [batchRank + first, batchRank + first + second];
  const [free, k] = freeFirst ? [before, after] : [after, before];
  return new Operand(module, bindings.at(binding), view, [0, batchRank], free, k);
}

function emit(parts: Parts): Launch {
  const { kernel, module, batch, rows, columns, k, tile } = parts;
  const down = Math.ceil(rows / tile.rows);
  const across = Math.ceil(columns / tile.columns);
  const teams = batch * down * across;
  const workgroupSize = tile.lanes === 1 ? 32 : tile.lanes;
  const body = new Statements(module);
  if (tile.lanes === 1) body.line(`let team = ${GROUP} * ${workgroupSize}u + ${LANE};`);
  else body.line(`let team = ${GROUP};`);
  body.line(`if (team >= ${teams}u) { return; }`);
  if (tile.lanes > 1) module.useSubgroups();
  const across4 = body.let('u32', `team % ${across}u * ${tile.columns}u`);
  const column = tile.lanes === 1 ? across4 : body.let('u32', `${across4} + ${LANE} * 4u`);
  const row = body.let('u32', `team / ${across}u % ${down}u * ${tile.rows}u`);
  const slice = body.let('u32', `team / ${across * down}u`);
  const epilogue = planEpilogue(parts);
  for (let r = 0; r < tile.rows; r += 1) body.line(`var c${r} = vec4f();`);
  if (k > 0) emitLoop(parts, body, slice, row, column);
  emitStores(parts, body, epilogue, slice, row, column);
  return launch(module, {
    label: kernel.label,
    description: `contract ${spaces(kernel.batch, kernel.m, kernel.n, kernel.k)}`,
    workgroupSize,
    workgroups: Math.ceil(teams / (workgroupSize / tile.lanes)),
    body,
  });
}

function emitLoop(parts: Parts, body: Statements, slice: string, row: string, column: string): void {
  const { module, tile, k } = parts;
  const loop = new Statements(module, body);
  const step = (j: number) => (j === 0 ? 'k' : loop.let('u32', `k + ${j}u`));
  const steps = [0, 1, 2, 3].map(step);
  const conditions = steps.map((at) => (k % 4 === 0 ? null : `(${at} < ${k}u)`));
  const quads = columnsOfB(parts, body, loop, slice, column, steps, conditions);
  const rowsOf = rowsOfA(parts, body, loop, slice, row, steps, conditions);
  for (let r = 0; r < tile.rows; r += 1) {
    rowsOf(r).forEach((a, j) => {
      loop.line(`c${r} = fma(vec4f(${a}), ${quads[j]}, c${r});`);
    });
  }
  body.nest(`for (var k = 0u; k < ${k}u; k += 4u)`, loop);
}

/** For each of four steps along k, a lane's four columns of B. */
function columnsOfB(
  { b, columns }: Parts,
  body: Statements,
  loop: Statements,
  slice: string,
  column: string,
  steps: readonly string[],
  conditions: readonly (string | null)[],
): string[] {
  if (b.quads === 'free') {
    const fixed = b.fixed(body, slice, body.let('u32', `min(${column}, ${columns - 4}u)`));
    return steps.map((k, j) => b.read(loop, fixed, b.step(loop, k), true, conditions[j]!));
  }
  const fixed = COMPONENTS.map((_, i) =>
    b.fixed(body, slice, body.let('u32', `min(${column} + ${i}u, ${columns - 1}u)`)),
  );
  if (b.quads === 'k') {
    const step = b.step(loop, 'k');
    const along = fixed.map((own) => b.read(loop, own, step, true));
    return COMPONENTS.map((c) =>
      loop.let('vec4f', `vec4f(${along.map((quad) => `${quad}.${c}`).join(', ')})`),
    );
  }
  return steps.map((k, j) => {
    const step = b.step(loop, k);
    return loop.let(
      'vec4f',
      `vec4f(${fixed.map((own) => b.read(loop, own, step, false, conditions[j]!)).join(', ')})`,
    );
  });
}

/** For a row of the tile, its elements of A at four steps along k. */
function rowsOfA(
  { a, rows, k: depth, tile }: Parts,
  body: Statements,
  loop: Statements,
  slice: string,
  row: string,
  steps: readonly string[],
  conditions: readonly (string | null)[],
): (r: number) => string[] {
  const { lanes } = tile;
  const pass = (type: string, value: string, lane: number) =>
    lanes === 1 ? value : loop.let(type, `subgroupBroadcast(${value}, ${lane}u)`);
  const within = (offset: string, last: number) => body.let('u32', `min(${row} + ${offset}, ${last}u)`);
  if (a.quads === 'free') {
    // A quad holds four rows at one step; lane l of a team has step l % 4 and every (lanes / 4)-th quad of rows.
    const groups = Math.max(1, lanes / 4);
    const rowQuads = tile.rows / 4;
    const own = Math.max(1, rowQuads / groups);
    const quadRow = (i: number) =>
      within(lanes === 1 ? `${i * 4}u` : `(${LANE} / 4u + ${i * groups}u) % ${rowQuads}u * 4u`, rows - 4);
    const fixed = Array.from({ length: own }, (_, i) => a.fixed(body, slice, quadRow(i)));
    const read = (part: Part, k: string, condition: string | null) =>
      a.read(loop, part, a.step(loop, k), true, condition);
    if (lanes === 1) {
      const quads = fixed.map((part) => steps.map((k, j) => read(part, k, conditions[j]!)));
      return (r) => steps.map((_, j) => `${quads[r >> 2]![j]}.${COMPONENTS[r & 3]}`);
    }
    const k = loop.let('u32', `k + ${LANE} % 4u`);
    const condition = depth % 4 === 0 ? null : `(${k} < ${depth}u)`;
    const quads = fixed.map((part) => read(part, k, condition));
    return (r) => {
      const quad = r >> 2;
      const register = `${quads[Math.floor(quad / groups)]}.${COMPONENTS[r & 3]}`;
      return steps.map((_, j) => pass('f32', register, (quad % groups) * 4 + j));
    };
  }
  // A register holds one row at four steps; lane l has every lanes-th row from l.
  const own = Math.max(1, tile.rows / lanes);
  const rowOf = (i: number) =>
    within(
      lanes === 1 ? `${i}u` : lanes > tile.rows ? `${LANE} % ${tile.rows}u` : `${LANE} + ${i * lanes}u`,
      rows - 1,
    );
  const fixed = Array.from({ length: own }, (_, i) => a.fixed(body, slice, rowOf(i)));
  const registers = fixed.map((part) => {
    if (a.quads === 'k') return a.read(loop, part, a.step(loop, 'k'), true);
    const elements = steps.map((k, j) => a.read(loop, part, a.step(loop, k), false, conditions[j]!));
    return loop.let('vec4f', `vec4f(${elements.join(', ')})`);
  });
  return (r) => {
    const quad = pass('vec4f', registers[Math.floor(r / lanes)]!, r % lanes);
    return COMPONENTS.map((c) => `${quad}.${c}`);
  };
}

/** How results leave the tile. */
interface Epilogue {
  /** Coordinates of the batch, the rows and the columns as the epilogue's loads see them. */
  readonly batch: readonly Coordinate[];
  readonly rows: readonly Coordinate[];
  readonly columns: readonly Coordinate[];
  /** Whether four neighbouring columns are computed at once. */
  readonly wide: boolean;
}

/** Decides it, and which of the kernel's bindings are declared as quads. */
function planEpilogue({ kernel, bindings, swapped, a, b }: Parts): Epilogue {
  const { output } = kernel;
  const space = [...kernel.batch, ...kernel.m, ...kernel.n];
  const functions = functionsOf(output.expr);
  const [mStart, nStart] = [kernel.batch.length, kernel.batch.length + kernel.m.length];
  const batch = coordinatesOf(space, functions, 0, mStart);
  const m = coordinatesOf(space, functions, mStart, nStart);
  const n = coordinatesOf(space, functions, nStart);
  const [rowsOf, columnsOf] = swapped ? [n, m] : [m, n];
  const last = columnsOf.at(-1);
  const wide = last !== undefined && last.extent % 4 === 0;
  const outputBinding = bindings.output(output).binding;
  const quadOutput = wide && !swapped;
  const reads = readsOf(output.expr);
  // A binding is declared as quads if everything that touches it takes aligned quads.
  const quadSides = [a, b].filter((side) => side.quads !== 'none').map((side) => side.access.binding);
  const single = new Set([a, b].filter((side) => side.quads === 'none').map((side) => side.access.binding));
  const all = [...batch, ...m, ...n];
  for (const read of reads) {
    const binding = bindings.at(read.binding).binding;
    const together = wide && read.kind === 'load' && isQuadView(read.view, all, last);
    if (!together) single.add(binding);
  }
  if (!quadOutput) single.add(outputBinding);
  const touched = [...quadSides, outputBinding, ...reads.map((read) => bindings.at(read.binding).binding)];
  for (const binding of touched) binding.quads = !single.has(binding);
  a.settle();
  b.settle();
  return { batch, rows: rowsOf, columns: columnsOf, wide };
}

function emitStores(
  parts: Parts,
  body: Statements,
  epilogue: Epilogue,
  slice: string,
  row: string,
  column: string,
): void {
  const { kernel, module, rows, tile } = parts;
  const trivial = walk(kernel.output.expr).length <= 4;
  if (trivial) {
    for (let r = 0; r < tile.rows; r += 1) {
      const block = new Statements(module, body);
      emitRow(parts, block, epilogue, slice, block.let('u32', `${row} + ${r}u`), column, `c${r}`);
      body.nest(`if (${row} + ${r}u < ${rows}u)`, block);
    }
    return;
  }
  // A loop, not 16 copies of the epilogue: compilers take seconds for those.
  const results = Array.from({ length: tile.rows }, (_, r) => `c${r}`).join(', ');
  body.line(`var results = array<vec4f, ${tile.rows}>(${results});`);
  const block = new Statements(module, body);
  const at = block.let('u32', `${row} + r`);
  emitRow(parts, block, epilogue, slice, at, column, block.let('vec4f', 'results[r]'));
  body.nest(`for (var r = 0u; r < min(${tile.rows}u, ${rows}u - ${row}); r += 1u)`, block);
}

function emitRow(
  parts: Parts,
  block: Statements,
  epilogue: Epilogue,
  slice: string,
  row: string,
  column: string,
  result: string,
): void {
  const { kernel, module, bindings, swapped, rows, columns } = parts;
  const { binding, dtype } = bindings.output(kernel.output);
  const address = (c: string) =>
    swapped
      ? `(${slice} * ${columns}u + ${c}) * ${rows}u + ${row}`
      : `(${slice} * ${rows}u + ${row}) * ${columns}u + ${c}`;
  const at = (inner: Statements, c: string, folded: Value): Value => {
    const named = [
      ...decompose(inner, 0, epilogue.batch, slice),
      ...decompose(inner, 0, epilogue.rows, row),
      ...decompose(inner, 0, epilogue.columns, c),
    ];
    const last = epilogue.columns.at(-1);
    const quad = folded.wide ? named.find(({ axis }) => axis === last!.axis)! : null;
    const emitter = new Emitter(module, bindings, new Point([inner], named, quad), folded);
    const value = emitter.value(kernel.output.expr);
    return folded.wide ? { ...value, name: emitter.wide(value), wide: true } : value;
  };
  if (epilogue.wide) {
    const inner = new Statements(module, block);
    const value = at(inner, column, { name: result, type: 'f32', wide: true, level: 0 });
    if (binding.quads) inner.line(storeQuad(module, binding, dtype, address(column), value.name));
    else
      COMPONENTS.forEach((c, j) => {
        inner.line(storeOne(module, binding, dtype, address(`(${column} + ${j}u)`), `${value.name}.${c}`));
      });
    block.nest(`if (${column} < ${columns}u)`, inner);
    return;
  }
  COMPONENTS.forEach((c, j) => {
    const inner = new Statements(module, block);
    const own = inner.let('u32', `${column} + ${j}u`);
    const value = at(inner, own, { name: `${result}.${c}`, type: 'f32', wide: false, level: 0 });
    inner.line(storeOne(module, binding, dtype, address(own), value.name));
    block.nest(`if (${column} + ${j}u < ${columns}u)`, inner);
  });
}
