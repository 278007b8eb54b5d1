/**
 * Tiles for adapters that compute on the CPU, where loads are dear, barriers dearer and registers plenty.
 *
 * A team of lanes, one subgroup, computes up to 16 rows of four columns for each lane. For four steps along k at a
 * time, each lane reads four columns of B for itself and its share of the rows of A, which the team passes around by
 * subgroup broadcast: no workgroup memory, no barrier. Without subgroups of known size a team is one lane.
 */
import { COMPONENTS, type Contraction, type EachResult, type Tile } from './contract.ts';
import { GROUP, LANE, loopStart } from './launch.ts';
import { Statements } from './module.ts';

/** Multiply-adds below which a kernel takes longer to compile than it will ever run: small tiles compile fast. */
const SMALL = 2 ** 20;

function isSmall({ batch, rows, columns, depth }: Contraction): boolean {
  return batch * rows * columns * depth <= SMALL;
}

/** Lanes of a team: those of a subgroup, where its size is known. */
function lanesOf({ module }: Contraction): number {
  const size = module.capabilities.subgroupSize;
  return size >= 4 && size <= 32 ? size : 1;
}

/** Rows of a team, by rule. */
export function broadcastHeight(contraction: Contraction): number {
  const { rows } = contraction;
  if (isSmall(contraction) || rows <= 4) return 4;
  return rows <= 8 || lanesOf(contraction) === 1 ? 8 : 16;
}

/** A function that writes tiles of so many rows (4, 8 or 16) to a team. */
export function broadcastTile(contraction: Contraction, height: number): (body: Statements) => Tile {
  const { module, batch, rows, columns, depth, a, b } = contraction;
  const lanes = lanesOf(contraction);
  /** Steps along k in one turn of the loop. */
  const steps = isSmall(contraction) ? 1 : 4;
  if (steps === 1) {
    // One step at a time there are no quads along k, and rows of A go one to a lane.
    a.readSingly();
    if (b.quads === 'k') b.readSingly();
  }
  return (body) => {
    const down = Math.ceil(rows / height);
    const width = 4 * lanes;
    const across = Math.ceil(columns / width);
    const teams = batch * down * across;
    const workgroupSize = lanes === 1 ? 32 : lanes;
    const start = loopStart(module.capabilities);
    body.line(`let team = ${lanes === 1 ? `${GROUP} * ${workgroupSize}u + ${LANE}` : GROUP};`);
    body.line(`if (team >= ${teams}u) { return; }`);
    if (lanes > 1) module.useSubgroups();
    // Down the rows first: the columns of B, strided in memory, stay in the caches while rows of A pass by.
    const first = body.let('u32', `team / ${down}u % ${across}u * ${width}u`);
    const column = lanes === 1 ? first : body.let('u32', `${first} + ${LANE} * 4u`);
    const row = body.let('u32', `team % ${down}u * ${height}u`);
    const slice = body.let('u32', `team / ${across * down}u`);
    const tile = {
      workgroupSize,
      workgroups: Math.ceil((teams * lanes) / workgroupSize),
      slice,
      row,
      column,
      height,
      // A loop over the rows, not a copy of what is done for each, nor one that the driver unrolls: software's compilers
      // take seconds for those.
      visit: (block: Statements, each: EachResult): void => {
        const names = Array.from({ length: height }, (_, r) => `c${r}`).join(', ');
        block.line(`var results = array<vec4f, ${height}>(${names});`);
        const inner = new Statements(module, block);
        const at = inner.let('u32', `${row} + r`);
        each(inner, at, column, inner.let('vec4f', 'results[r]'));
        block.nest(`for (var r = ${start}; r < ${height}u && ${row} + r < ${rows}u; r += 1u)`, inner);
      },
    };
    for (let r = 0; r < height; r += 1) body.line(`var c${r} = vec4f();`);
    if (depth === 0) return tile;
    const loop = new Statements(module, body);
    const at = Array.from({ length: steps }, (_, j) => (j === 0 ? 'k' : loop.let('u32', `k + ${j}u`)));
    const place = { contraction, lanes, tile, body, loop, at };
    const quads = columnsOfB(place);
    const elements = rowsOfA(place);
    for (let r = 0; r < height; r += 1) {
      elements(r).forEach((element, j) => {
        loop.line(`c${r} = fma(vec4f(${element}), ${quads[j]}, c${r});`);
      });
    }
    body.nest(`for (var k = ${start}; k < ${depth}u; k += ${steps}u)`, loop);
    return tile;
  };
}

export interface Place {
  readonly contraction: Pick<Contraction, 'a' | 'b' | 'rows' | 'columns' | 'depth'>;
  readonly lanes: number;
  /** The slice, the team's first row and the lane's first column (u32 names), and the rows of the team. */
  readonly tile: {
    readonly slice: string;
    readonly row: string;
    readonly column: string;
    readonly height: number;
  };
  readonly body: Statements;
  readonly loop: Statements;
  /** The steps of a turn, u32 names. */
  readonly at: readonly string[];
}

/** What must hold for a step to be one of the contraction's, if it may not. */
function inDepth(k: string, depth: number, steps: number): string | null {
  return depth % steps === 0 ? null : `(${k} < ${depth}u)`;
}

/** For each step, a lane's four columns of B. */
export function columnsOfB({ contraction: { b, columns, depth }, tile, body, loop, at }: Place): string[] {
  const { slice, column } = tile;
  const condition = (k: string) => inDepth(k, depth, at.length);
  if (b.quads === 'free') {
    const fixed = b.fixed(body, slice, body.let('u32', `min(${column}, ${columns - 4}u)`));
    return at.map((k) => b.read(loop, fixed, b.step(loop, k), true, condition(k)));
  }
  const fixed = COMPONENTS.map((_, i) =>
    b.fixed(body, slice, body.let('u32', `min(${column} + ${i}u, ${columns - 1}u)`)),
  );
  if (b.quads === 'k') {
    const along = fixed.map((own) => b.read(loop, own, b.step(loop, 'k'), true));
    return COMPONENTS.map((c) =>
      loop.let('vec4f', `vec4f(${along.map((quad) => `${quad}.${c}`).join(', ')})`),
    );
  }
  return at.map((k) => {
    const read = fixed.map((own) => b.read(loop, own, b.step(loop, k), false, condition(k)));
    return loop.let('vec4f', `vec4f(${read.join(', ')})`);
  });
}

/** For a row of the tile, its element of A at each step. */
export function rowsOfA(place: Place): (r: number) => string[] {
  return place.contraction.a.quads === 'free' ? quadsOfRows(place) : rowsByLane(place);
}

function pass({ lanes, loop }: Place, type: string, register: string, lane: number): string {
  return lanes === 1 ? register : loop.let(type, `subgroupBroadcast(${register}, ${lane}u)`);
}

/** A register holds one row at all steps; lane l has every lanes-th row from l. */
function rowsByLane(place: Place): (r: number) => string[] {
  const { contraction, lanes, tile, body, loop, at } = place;
  const { a, rows, depth } = contraction;
  const { slice, row, height } = tile;
  const own = (i: number) =>
    lanes === 1 ? `${i}u` : lanes > height ? `${LANE} % ${height}u` : `${LANE} + ${i * lanes}u`;
  const registers = Array.from({ length: Math.max(1, height / lanes) }, (_, i) => {
    const fixed = a.fixed(body, slice, body.let('u32', `min(${row} + ${own(i)}, ${rows - 1}u)`));
    if (a.quads === 'k') return a.read(loop, fixed, a.step(loop, 'k'), true);
    const elements = at.map((k) => a.read(loop, fixed, a.step(loop, k), false, inDepth(k, depth, at.length)));
    return at.length === 1 ? elements[0]! : loop.let('vec4f', `vec4f(${elements.join(', ')})`);
  });
  return (r) => {
    const type = at.length === 1 ? 'f32' : 'vec4f';
    const register = pass(place, type, registers[Math.floor(r / lanes)]!, r % lanes);
    return at.length === 1 ? [register] : COMPONENTS.map((c) => `${register}.${c}`);
  };
}

/** A register holds four rows at one step; lane l has step l % 4 and every (lanes / 4)-th quad of rows. */
function quadsOfRows(place: Place): (r: number) => string[] {
  const { contraction, lanes, tile, body, loop, at } = place;
  const { a, rows, depth } = contraction;
  const { slice, row, height } = tile;
  const quads = height / 4;
  const groups = Math.max(1, lanes / 4);
  const fixed = Array.from({ length: Math.max(1, quads / groups) }, (_, i) => {
    const quad = lanes === 1 ? `${i}u` : `(${LANE} / 4u + ${i * groups}u) % ${quads}u`;
    return a.fixed(body, slice, body.let('u32', `min(${row} + ${quad} * 4u, ${rows - 4}u)`));
  });
  const read = (k: string) =>
    fixed.map((part) => a.read(loop, part, a.step(loop, k), true, inDepth(k, depth, at.length)));
  if (lanes === 1) {
    const bySteps = at.map(read);
    return (r) => bySteps.map((registers) => `${registers[r >> 2]}.${COMPONENTS[r & 3]}`);
  }
  const registers = read(loop.let('u32', `k + ${LANE} % 4u`));
  return (r) => {
    const quad = r >> 2;
    const element = `${registers[Math.floor(quad / groups)]}.${COMPONENTS[r & 3]}`;
    return at.map((_, j) => pass(place, 'f32', element, (quad % groups) * 4 + j));
  };
}
