/**
 * Teams that hold rows of attention. Each invocation has some rows, and of each four of the items that the team sweeps
 * at a time, and four of every `width` columns of the results.
 *
 *   subgroupTeam   for adapters that compute on the CPU: a subgroup, which passes registers around (broadcastTile.ts)
 *   sharingTeam    for GPUs: 16 by 16 invocations that stage what they read, and weights, in workgroup memory
 */
import type { Attending, Gathered } from './attend.ts';
import { columnsOfB, rowsOfA } from './broadcastTile.ts';
import { COMPONENTS } from './contract.ts';
import { GROUP, LANE, loopStart } from './launch.ts';
import { Statements } from './module.ts';
import { SIDE, STEPS, stage } from './sharedTile.ts';

export interface Team {
  readonly workgroupSize: number;
  readonly workgroups: number;
  /** Items swept at a time, and columns of a group. */
  readonly width: number;
  /** Rows of an invocation, and of the team or the teams that share a sweep. */
  readonly height: number;
  readonly rows: number;
  /** WGSL, u32: the batch, the first row of all and of this invocation, and the invocation's place in its team. */
  readonly slice: string;
  readonly top: string;
  readonly row: string;
  readonly place: string;
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
    row: 'row',
    place,
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

export function sharingTeam({ module, batch, held, swept }: Attending): Team {
  const width = 4 * SIDE;
  const fits = (height: number): boolean =>
    4 * SIDE * (STEPS * height + STEPS * 4 + width * height) <= module.capabilities.maxWorkgroupStorageBytes;
  const height = [4, 2].find((own) => fits(own) && held > (SIDE * own) / 2) ?? 1;
  const tile = SIDE * height;
  const down = Math.ceil(held / tile);
  const rows = Array.from({ length: height }, (_, r) => r);
  const groups = (columns: number): number => Math.ceil(columns / width);
  const shared = `weights`;
  module.declare(`var<workgroup> ${shared}: array<f32, ${width * tile}>;`);
  /** Folds values of the invocations with the same rows, which all of them get. */
  const folded = (
    block: Statements,
    values: readonly string[],
    fold: (x: string, y: string) => string,
  ): string[] => {
    block.line('workgroupBarrier();');
    values.forEach((value, r) => {
      block.line(`${shared}[(y * ${height}u + ${r}u) * ${SIDE}u + x] = ${value};`);
    });
    block.line('workgroupBarrier();');
    const names = rows.map((r) => {
      const name = module.fresh('f');
      block.line(`var ${name} = ${shared}[(y * ${height}u + ${r}u) * ${SIDE}u];`);
      return name;
    });
    const loop = new Statements(module, block);
    names.forEach((name, r) => {
      loop.line(`${name} = ${fold(name, `${shared}[(y * ${height}u + ${r}u) * ${SIDE}u + i]`)};`);
    });
    block.nest(`for (var i = 1u; i < ${SIDE}u; i += 1u)`, loop);
    return names;
  };
  return {
    workgroupSize: SIDE * SIDE,
    workgroups: batch * down,
    width,
    height,
    rows: tile,
    slice: 'slice',
    top: 'top',
    row: 'row',
    place: 'x',
    groups,
    open: (body) => {
      body.line(`let wanted = ${GROUP} / ${down}u;`);
      // Workgroups that only round up the grid compute the last batch again and store nothing.
      body.line(`let slice = min(wanted, ${batch - 1}u);`);
      body.line(`let top = ${GROUP} % ${down}u * ${tile}u;`);
      body.line(`let x = ${LANE} % ${SIDE}u;`);
      body.line(`let y = ${LANE} / ${SIDE}u;`);
      body.line(`let row = select(${held}u, top + y * ${height}u, wanted < ${batch}u);`);
    },
    product: (_body, sweep, { name, a, b, depth }) => {
      for (const r of rows) sweep.line(`var ${name}${r} = vec4f();`);
      if (depth === 0) return;
      const loop = new Statements(module, sweep);
      const region = { slice: 'slice', depth };
      const quadsA = stage(
        module,
        a,
        'stagedA',
        { ...region, start: 'top', extent: held, tile },
        sweep,
        loop,
      );
      const quadsB = stage(
        module,
        b,
        'stagedB',
        { ...region, start: 'j', extent: swept, tile: width },
        sweep,
        loop,
      );
      loop.line('workgroupBarrier();');
      const inner = new Statements(module, loop);
      const quad = inner.let('vec4f', `stagedB[step * ${quadsB}u + x]`);
      for (const r of rows) {
        const at = `(y * ${height}u + ${r}u)`;
        inner.line(
          `${name}${r} = fma(vec4f(stagedA[step * ${quadsA}u + ${at} / 4u][${at} % 4u]), ${quad}, ${name}${r});`,
        );
      }
      loop.nest(`for (var step = 0u; step < ${STEPS}u; step += 1u)`, inner);
      loop.line('workgroupBarrier();');
      sweep.nest(`for (var k = 0u; k < ${depth}u; k += ${STEPS}u)`, loop);
    },
    gather: (_body, sweep, { weights, sums, rows: operand, columns }) => {
      if (columns === 0) return;
      sweep.line('workgroupBarrier();');
      for (const r of rows) {
        COMPONENTS.forEach((component, i) => {
          sweep.line(
            `${shared}[(x * 4u + ${i}u) * ${tile}u + y * ${height}u + ${r}u] = ${weights}${r}.${component};`,
          );
        });
      }
      for (let c = 0; c < groups(columns); c += 1) {
        const loop = new Statements(module, sweep);
        loop.line('let k = j + t;');
        const region = { slice: 'slice', start: `${c * width}u`, extent: columns, tile: width, depth: swept };
        const quads = stage(module, operand, 'stagedB', region, sweep, loop);
        loop.line('workgroupBarrier();');
        const inner = new Statements(module, loop);
        const quad = inner.let('vec4f', `stagedB[step * ${quads}u + x]`);
        for (const r of rows) {
          const weight = `${shared}[(t + step) * ${tile}u + y * ${height}u + ${r}u]`;
          inner.line(`${sums}${r}_${c} = fma(vec4f(${weight}), ${quad}, ${sums}${r}_${c});`);
        }
        loop.nest(`for (var step = 0u; step < ${STEPS}u; step += 1u)`, inner);
        loop.line('workgroupBarrier();');
        sweep.nest(`for (var t = 0u; t < ${width}u; t += ${STEPS}u)`, loop);
      }
    },
    largest: (_body, block, values) => folded(block, values, (x, y) => `max(${x}, ${y})`),
    total: (body, values) => folded(body, values, (x, y) => `${x} + ${y}`),
  };
}
