/**
 * Teams that hold rows of attention. Each invocation has some rows, and of each four of the items that the team sweeps
 * at a time, and four of every `width` columns of the results.
 *
 *   subgroupTeam   for adapters that compute on the CPU: a subgroup, which passes registers around (broadcastTile.ts)
 *   sharingTeam    for GPUs: 8 or 16 by 16 invocations that stage what they read, and weights, in workgroup memory
 */
import type { Attending, Gathered } from './attend.ts';
import { columnsOfB, rowsOfA } from './broadcastTile.ts';
import { COMPONENTS } from './contract.ts';
import { GROUP, LANE, loopStart } from './launch.ts';
import { Statements } from './module.ts';
import {
  addProducts,
  alongRows,
  COLUMNS,
  fetchFirst,
  inBlocks,
  Panel,
  panelBytes,
  rowOf,
  SIDE,
  type Stretch,
  strideOf,
  sweepPanels,
} from './panels.ts';

type Product = Attending['products'][number];

export interface Team {
  readonly workgroupSize: number;
  readonly workgroups: number;
  /** Items swept at a time, and columns of a group. */
  readonly width: number;
  /** Rows of an invocation, and of the team or the teams that share a sweep. */
  readonly height: number;
  readonly rows: number;
  /** WGSL, u32: the batch, the first row of all, and the invocation's place in its team. */
  readonly slice: string;
  readonly top: string;
  readonly place: string;
  /** WGSL, u32: row `r` of this invocation; beyond the last row where there is none. */
  row(r: number): string;
  /** Groups of columns that there are. */
  groups(columns: number): number;
  /** Declares the names. */
  open(body: Statements): void;
  /**
   * Writes what is done with the items j + 4 place ..., where j begins at `first`: for each product and row a vec4f
   * `<name><r>`; then `weigh`, which makes weights of them; then the weighted rows of the items are added to the sums.
   */
  sweep(body: Statements, sweep: Statements, first: string, weigh: () => void): void;
  /** Of each row, the largest value of the team's invocations; and the sum. */
  largest(body: Statements, block: Statements, values: readonly string[]): string[];
  total(body: Statements, values: readonly string[]): string[];
}

/** Multiply-adds below which a kernel takes longer to compile than it will ever run. */
const SMALL = 2 ** 20;
/** Vectors of sums that an invocation keeps. */
const MOST_SUMS = 16;

function stepsOf(swept: number, width: number, item: string): string | null {
  return swept % width === 0 ? null : `(${item} < ${swept}u)`;
}

export function subgroupTeam({ module, batch, held, swept, products, results }: Attending): Team {
  const size = module.capabilities.subgroupSize;
  const lanes = size >= 4 && size <= 32 ? size : 1;
  const width = 4 * lanes;
  const groups = (columns: number): number => Math.ceil(columns / width);
  const sums = results.reduce((count, { columns }) => count + groups(columns), 0);
  const work = batch * held * swept * products.reduce((sum, { depth }) => sum + depth, 0);
  const height = [16, 8, 4, 2, 1].find(
    (own) => own === 1 || (own * sums <= MOST_SUMS && own < 2 * held && (own <= 2 || work > SMALL)),
  )!;
  const down = Math.ceil(held / height);
  const teams = batch * down;
  const workgroupSize = lanes === 1 ? 32 : lanes;
  const place = lanes === 1 ? '0u' : LANE;
  const pass = (block: Statements, type: string, x: string, lane: string): string =>
    lanes === 1 ? x : block.let(type, `subgroupShuffle(${x}, ${lane})`);
  const rows = Array.from({ length: height }, (_, r) => r);
  const product = (sweep: Statements, { name, a, b, depth }: Product): void => {
    for (const r of rows) sweep.line(`var ${name}${r} = vec4f();`);
    if (depth === 0) return;
    const loop = new Statements(module, sweep);
    const at = [0, 1, 2, 3].map((i) => (i === 0 ? 'k' : loop.let('u32', `k + ${i}u`)));
    const column = sweep.let('u32', `j + ${place} * 4u`);
    const tile = { slice: 'slice', row: 'row', column, height };
    const part = {
      contraction: { a, b, rows: held, columns: swept, depth },
      lanes,
      tile,
      body: sweep,
      loop,
      at,
    };
    const quads = columnsOfB(part);
    const elements = rowsOfA(part);
    for (const r of rows) {
      elements(r).forEach((element, i) => {
        loop.line(`${name}${r} = fma(vec4f(${element}), ${quads[i]}, ${name}${r});`);
      });
    }
    sweep.nest(`for (var k = ${loopStart(module.capabilities)}; k < ${depth}u; k += 4u)`, loop);
  };
  const gather = (body: Statements, sweep: Statements, result: Gathered): void => {
    const { weights, sums: prefix, rows: operand, columns } = result;
    if (columns === 0) return;
    const loop = new Statements(module, sweep);
    const perRow = rows.map((r) => pass(loop, 'vec4f', `${weights}${r}`, 't'));
    const starts = Array.from({ length: groups(columns) }, (_, c) => {
      const column = body.let('u32', `${c * width}u + ${place} * 4u`);
      return operand.quads === 'free'
        ? [operand.fixed(body, 'slice', body.let('u32', `min(${column}, ${columns - 4}u)`))]
        : [0, 1, 2, 3].map((i) =>
            operand.fixed(body, 'slice', body.let('u32', `min(${column} + ${i}u, ${columns - 1}u)`)),
          );
    });
    COMPONENTS.forEach((component, i) => {
      const item = loop.let('u32', lanes === 1 ? `j + ${i}u` : `j + t * 4u + ${i}u`);
      const step = operand.step(loop, item);
      starts.forEach((fixed, c) => {
        const read = fixed.map((own) =>
          operand.read(loop, own, step, operand.quads === 'free', stepsOf(swept, width, item)),
        );
        const row = read.length === 1 ? read[0]! : loop.let('vec4f', `vec4f(${read.join(', ')})`);
        for (const r of rows) {
          const sum = `${prefix}${r}_${c}`;
          loop.line(`${sum} = fma(vec4f(${perRow[r]}.${component}), ${row}, ${sum});`);
        }
      });
    });
    const start = loopStart(module.capabilities);
    sweep.nest(lanes === 1 ? '' : `for (var t = ${start}; t < ${lanes}u; t += 1u)`, loop);
  };
  const combined = (name: 'Max' | 'Add') => (block: Statements, values: readonly string[]) =>
    values.map((x) => (lanes === 1 ? x : block.let('f32', `subgroup${name}(${x})`)));
  return {
    workgroupSize,
    workgroups: Math.ceil((teams * lanes) / workgroupSize),
    width,
    height,
    rows: height,
    slice: 'slice',
    top: 'row',
    place,
    row: (r) => `row + ${r}u`,
    groups,
    open: (body) => {
      if (lanes > 1) module.useSubgroups();
      body.line(`let team = ${lanes === 1 ? `${GROUP} * ${workgroupSize}u + ${LANE}` : GROUP};`);
      body.line(`if (team >= ${teams}u) { return; }`);
      body.line(`let slice = team / ${down}u;`);
      body.line(`let row = team % ${down}u * ${height}u;`);
    },
    sweep: (body, sweep, _first, weigh) => {
      for (const item of products) product(sweep, item);
      weigh();
      for (const result of results) gather(body, sweep, result);
    },
    largest: (_body, block, values) => combined('Max')(block, values),
    total: (body, values) => combined('Add')(body, values),
  };
}

/** Vectors of scores and sums that an invocation of a sharing team keeps. */
const MOST_VECTORS = 32;
/** Rows of invocations of a sharing team, or half of them. */
const DOWN = 8;
/** Teams that keep a device busy: rather than fewer, they get smaller. */
const ENOUGH_TEAMS = 96;

export function sharingTeam({ module, batch, held, swept, products, results, folds }: Attending): Team {
  const { subgroupSize, maxWorkgroupStorageBytes, unrolls: isWrittenOut } = module.capabilities;
  const down = batch * Math.ceil(held / (2 * DOWN * 8)) >= ENOUGH_TEAMS ? 2 * DOWN : DOWN;
  const lanes = down * SIDE;
  const groups = (columns: number): number => Math.ceil(columns / COLUMNS);
  const perRow = products.length + results.reduce((count, { columns }) => count + groups(columns), 0);
  const fits = (height: number): boolean => {
    const bytes = panelBytes(down * height) + panelBytes(COLUMNS) + 16 * COLUMNS * strideOf(down * height);
    return bytes <= maxWorkgroupStorageBytes && height * perRow <= MOST_VECTORS;
  };
  const height = [8, 4, 2].find((own) => fits(own) && held > (down * own) / 2) ?? 1;
  const tile = down * height;
  const stride = strideOf(tile);
  const tilesDown = Math.ceil(held / tile);
  const rows = Array.from({ length: height }, (_, r) => r);
  module.declare(`var<workgroup> weights: array<vec4f, ${COLUMNS * stride}>;`);
  const slice = 'slice';
  const share = { height, wide: 1, down, x: 'x', y: 'y' };
  /** Folds values of the invocations with the same rows, which all of them get. */
  const folded = (
    block: Statements,
    values: readonly string[],
    fold: (x: string, y: string) => string,
  ): string[] => {
    if (subgroupSize >= SIDE) {
      module.useSubgroups();
      return values.map((value) => {
        let all = block.let('f32', value);
        for (let far = SIDE / 2; far >= 1; far /= 2) {
          all = block.let('f32', fold(all, `subgroupShuffleXor(${all}, ${far}u)`));
        }
        return all;
      });
    }
    const at = (r: number) => `(y * ${height}u + ${r}u) * ${SIDE / 4}u`;
    block.line('workgroupBarrier();');
    values.forEach((value, r) => {
      block.line(`weights[${at(r)} + x / 4u][x % 4u] = ${value};`);
    });
    block.line('workgroupBarrier();');
    return rows.map((r) => {
      const quads = Array.from({ length: SIDE / 4 }, (_, i) =>
        block.let('vec4f', `weights[${at(r)} + ${i}u]`),
      );
      const [one, two, three, four] = COMPONENTS.map((c) =>
        quads.map((quad) => `${quad}.${c}`).reduce(fold),
      ) as [string, string, string, string];
      return block.let('f32', fold(fold(one, two), fold(three, four)));
    });
  };
  /** The products with the items at hand. */
  const productOf = (body: Statements, sweep: Statements, { name, a, b, depth }: Product): Stretch => {
    const ofA = { slice, start: 'top', extent: held, tile, depth };
    const ofB = { slice, start: 'j', extent: swept, tile: COLUMNS, depth };
    const left = new Panel(module, a, 'panelA', ofA, lanes, body);
    const right = new Panel(module, b, 'panelB', ofB, lanes, sweep);
    const multiply: Stretch['multiply'] = (block, step) => {
      const [ofHeld, ofSwept] = [left, right].map((panel) => (quad: string) => panel.quad(step, quad));
      addProducts(block, share, ofHeld!, ofSwept!, (r) => `${name}${r}`);
    };
    return { panels: [left, right], depth, multiply, isWrittenOut };
  };
  /** The weighted rows of the items at hand, for each group of columns. */
  const gathersOf = (body: Statements, { sums, rows: operand, columns }: Gathered): Stretch[] =>
    Array.from({ length: groups(columns) }, (_, c) => {
      const start = `${c * COLUMNS}u`;
      const region = { slice, start, extent: columns, tile: COLUMNS, depth: swept, from: 'j' };
      const panel = new Panel(module, operand, 'panelB', region, lanes, body);
      const multiply: Stretch['multiply'] = (block, step) => {
        const item = block.let('u32', `(k + ${step}) * ${stride}u`);
        const ofItem = (quad: string): string => `weights[${item} + ${quad}]`;
        addProducts(
          block,
          share,
          ofItem,
          (quad) => panel.quad(step, quad),
          (r) => `${sums}${r}_${c}`,
        );
      };
      return { panels: [panel], depth: COLUMNS, multiply, isWrittenOut };
    });
  /** Stores weights as [item][row]. The barrier after the first panel of their stretch is theirs too. */
  const storeWeights = (block: Statements, weights: string): void => {
    if (subgroupSize < SIDE) block.line('workgroupBarrier();'); // maxima may still be read from there
    COMPONENTS.forEach((component, i) => {
      const item = `(x * 4u + ${i}u) * ${stride}u`;
      const own = rows.map((r) => `${weights}${r}.${component}`);
      if (height < 4) {
        own.forEach((value, r) => {
          const row = `(y * ${height}u + ${r}u)`;
          block.line(`weights[${item} + ${row} / 4u][${row} % 4u] = ${value};`);
        });
        return;
      }
      for (let r = 0; r < height; r += 4) {
        const quad = `y + ${(r / 4) * down}u`;
        block.line(`weights[${item} + ${quad}] = vec4f(${own.slice(r, r + 4).join(', ')});`);
      }
    });
  };
  return {
    workgroupSize: lanes,
    workgroups: batch * tilesDown,
    width: COLUMNS,
    height,
    rows: tile,
    slice,
    top: 'top',
    place: 'x',
    row: (r) => `own + ${rowOf(share, r)}`,
    groups,
    open: (body) => {
      body.line(`let wanted = ${GROUP} / ${tilesDown}u;`);
      // Workgroups that only round up the grid compute the last batch again and store nothing.
      body.line(`let slice = min(wanted, ${batch - 1}u);`);
      body.line(`let top = ${GROUP} % ${tilesDown}u * ${tile}u;`);
      const { x, y } = folds ? alongRows : inBlocks;
      body.line(`let x = ${x};`);
      body.line(`let y = ${y};`);
      body.line(`let own = select(${held}u, top, wanted < ${batch}u);`);
    },
    sweep: (body, sweep, first, weigh) => {
      const stretches = products
        .filter(({ depth }) => depth > 0)
        .map((product) => productOf(body, sweep, product));
      const gathers = results.map((result) => gathersOf(body, result));
      const all = [...stretches, ...gathers.flat()];
      all.forEach(({ panels }, i) => {
        for (const panel of panels) panel.declare(i === 0 ? body : sweep);
      });
      // The first panels of a turn are fetched at the end of the turn before.
      const firstAt = (start: string, block: Statements): Pick<Stretch, 'panels'> => ({
        panels: stretches[0]!.panels.map((panel, i) => (i === 0 ? panel : panel.movedTo(start, block))),
      });
      const last = stretches.length > 0 ? firstAt(sweep.let('u32', `j + ${COLUMNS}u`), sweep) : null;
      if (stretches.length > 0) fetchFirst(body, firstAt(first, body));
      else if (all.length > 0) fetchFirst(sweep, all[0]!);
      const run = (stretch: Stretch): void =>
        sweepPanels(module, sweep, stretch, all[all.indexOf(stretch) + 1] ?? last);
      for (const { name } of products) for (const r of rows) sweep.line(`var ${name}${r} = vec4f();`);
      for (const stretch of stretches) run(stretch);
      weigh();
      gathers.forEach((own, i) => {
        if (own.length > 0) storeWeights(sweep, results[i]!.weights);
        for (const stretch of own) run(stretch);
      });
    },
    largest: (_body, block, values) => folded(block, values, (x, y) => `max(${x}, ${y})`),
    total: (body, values) => folded(body, values, (x, y) => `(${x} + ${y})`),
  };
}
