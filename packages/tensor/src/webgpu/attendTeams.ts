/**
 * Teams that hold rows of attention. Each invocation has some rows, and of each four of the items that the team sweeps
 * at a time, and four of every `width` columns of the results.
 *
 *   subgroupTeam   for adapters that compute on the CPU: a subgroup, which passes registers around (broadcastTile.ts)
 *   sharingTeam    for GPUs: 8 by 16 invocations that stage what they read, and weights, in workgroup memory
 */
import type { Attending, Gathered } from './attend.ts';
import { columnsOfB, rowsOfA } from './broadcastTile.ts';
import { COMPONENTS } from './contract.ts';
import { GROUP, LANE, loopStart } from './launch.ts';
import { Statements } from './module.ts';
import { addProducts, DOWN, Panel, rowOf, SIDE, STEPS, sweepPanels, TILE_LANES, WIDTH } from './panels.ts';

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
  /** Declares a vec4f `<name><r>` for each row: its products with items j + 4 place .... */
  product(body: Statements, sweep: Statements, product: Attending['products'][number]): void;
  /** Adds the weighted rows of the items at hand to the sums. */
  gather(body: Statements, sweep: Statements, result: Gathered): void;
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
    product: (_body, sweep, { name, a, b, depth }) => {
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
    },
    gather: (body, sweep, { weights, sums: prefix, rows: operand, columns }) => {
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
    },
    largest: (_body, block, values) => combined('Max')(block, values),
    total: (body, values) => combined('Add')(body, values),
  };
}

/** Vectors of scores and sums that an invocation of a sharing team keeps. */
const MOST_VECTORS = 32;

export function sharingTeam({ module, batch, held, swept, products, results }: Attending): Team {
  const { subgroupSize, maxWorkgroupStorageBytes } = module.capabilities;
  const groups = (columns: number): number => Math.ceil(columns / WIDTH);
  const perRow = products.length + results.reduce((count, { columns }) => count + groups(columns), 0);
  /** Quads from the weights of an item to those of the next: one more than a tile has (see panels.ts). */
  const quadsOf = (height: number): number => Math.ceil((DOWN * height) / 4) + 1;
  const fits = (height: number): boolean => {
    const quads = STEPS * (quadsOf(height) + WIDTH / 4 + 1) + WIDTH * quadsOf(height);
    return 16 * quads <= maxWorkgroupStorageBytes && height * perRow <= MOST_VECTORS;
  };
  const height = [8, 4, 2].find((own) => fits(own) && held > (DOWN * own) / 2) ?? 1;
  const tile = DOWN * height;
  const stride = quadsOf(height);
  const down = Math.ceil(held / tile);
  const rows = Array.from({ length: height }, (_, r) => r);
  module.declare(`var<workgroup> weights: array<vec4f, ${WIDTH * stride}>;`);
  const slice = 'slice';
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
  return {
    workgroupSize: TILE_LANES,
    workgroups: batch * down,
    width: WIDTH,
    height,
    rows: tile,
    slice,
    top: 'top',
    place: 'x',
    row: (r) => `own + ${rowOf(height, 'y', r)}`,
    groups,
    open: (body) => {
      body.line(`let wanted = ${GROUP} / ${down}u;`);
      // Workgroups that only round up the grid compute the last batch again and store nothing.
      body.line(`let slice = min(wanted, ${batch - 1}u);`);
      body.line(`let top = ${GROUP} % ${down}u * ${tile}u;`);
      body.line(`let x = ${LANE} % ${SIDE}u;`);
      body.line(`let y = ${LANE} / ${SIDE}u;`);
      body.line(`let own = select(${held}u, top, wanted < ${batch}u);`);
    },
    product: (body, sweep, { name, a, b, depth }) => {
      for (const r of rows) sweep.line(`var ${name}${r} = vec4f();`);
      if (depth === 0) return;
      const ofA = { slice, start: 'top', extent: held, tile, depth };
      const ofB = { slice, start: 'j', extent: swept, tile: WIDTH, depth };
      const left = new Panel(module, a, 'panelA', ofA, TILE_LANES, body);
      const right = new Panel(module, b, 'panelB', ofB, TILE_LANES, sweep);
      sweepPanels(module, sweep, depth, [left, right], (step) => {
        const rowsOfA = (q: string): string => left.quad('step', q);
        addProducts(step, height, 'y', rowsOfA, right.quad('step', 'x'), (r) => `${name}${r}`);
      });
    },
    gather: (body, sweep, { weights, sums, rows: operand, columns }) => {
      if (columns === 0) return;
      sweep.line('workgroupBarrier();');
      COMPONENTS.forEach((component, i) => {
        const item = `(x * 4u + ${i}u) * ${stride}u`;
        const own = rows.map((r) => `${weights}${r}.${component}`);
        if (height < 4) {
          own.forEach((value, r) => {
            const row = `(y * ${height}u + ${r}u)`;
            sweep.line(`weights[${item} + ${row} / 4u][${row} % 4u] = ${value};`);
          });
          return;
        }
        for (let r = 0; r < height; r += 4) {
          const quad = `y + ${(r / 4) * DOWN}u`;
          sweep.line(`weights[${item} + ${quad}] = vec4f(${own.slice(r, r + 4).join(', ')});`);
        }
      });
      for (let c = 0; c < groups(columns); c += 1) {
        const region = {
          slice,
          start: `${c * WIDTH}u`,
          extent: columns,
          tile: WIDTH,
          depth: swept,
          from: 'j',
        };
        const panel = new Panel(module, operand, 'panelB', region, TILE_LANES, body);
        sweepPanels(module, sweep, WIDTH, [panel], (step) => {
          const item = step.let('u32', `(k - ${STEPS}u + step) * ${stride}u`);
          const ofItem = (q: string): string => `weights[${item} + ${q}]`;
          addProducts(step, height, 'y', ofItem, panel.quad('step', 'x'), (r) => `${sums}${r}_${c}`);
        });
      }
    },
    largest: (_body, block, values) => folded(block, values, (x, y) => `max(${x}, ${y})`),
    total: (body, values) => folded(body, values, (x, y) => `(${x} + ${y})`),
  };
}
