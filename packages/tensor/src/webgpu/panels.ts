/**
 * Panels: what the invocations of a workgroup read of an operand for some steps along k, staged in workgroup memory,
 * where each row of invocations finds rows of A and each column quads of columns of B.
 *
 * While one panel is multiplied the next is already on its way from device memory into registers, and the steps of a
 * panel are written out one by one where the adapter's compiler leaves a loop a loop: on an H200 the one is worth a
 * seventh, the other a quarter (benchmarks/results/2026-11-27-h200.md); two panels in workgroup memory at once cost
 * more than they save.
 */
import { COMPONENTS } from './contract.ts';
import { LANE } from './launch.ts';
import { type Module, Statements } from './module.ts';
import type { Operand, Part } from './operand.ts';

/** Columns of invocations; each has quads of columns of the output, `COLUMNS` apart. */
export const SIDE = 16;
/** Columns that the quads side by side span. */
export const COLUMNS = 4 * SIDE;
/** Steps along k that are staged at a time. */
export const STEPS = 16;

/** Where a panel is: the part of an operand that a workgroup multiplies. */
export interface Region {
  readonly slice: string;
  /** The first row or column, u32. */
  readonly start: string;
  /** Rows or columns there are. */
  readonly extent: number;
  /** Rows or columns of the panel. */
  readonly tile: number;
  readonly depth: number;
  /** The step that the loop begins at, u32, for loops over COLUMNS steps at most; default: 0. */
  readonly from?: string;
}

/** What an invocation reads of each panel, one element or four at a time. */
interface Item {
  /** The step within the panel, and the row or column within the tile, u32. */
  readonly step: string;
  readonly place: string;
  readonly fixed: Part;
}

/** Quads from one step to the next: one more than a step has, so that stores of a column meet other banks. */
export const strideOf = (tile: number): number => Math.ceil(tile / 4) + 1;

/** Workgroup memory that a panel of so many rows or columns takes. */
export const panelBytes = (tile: number): number => 16 * STEPS * strideOf(tile);

export class Panel {
  readonly #operand: Operand;
  readonly #module: Module;
  readonly #name: string;
  /** Prefix of the names of the registers that hold what was fetched. */
  #fetched: string;
  readonly #from: string | null;
  /** The depth, where a panel may end beyond it. */
  readonly #end: number | null;
  /** Quads from one step to the next. */
  readonly #stride: number;
  readonly #items: readonly Item[];
  /** Invocations that read, where they are not all needed. */
  readonly #readers: number | null;
  readonly #region: Region;
  readonly #lanes: number;

  /**
   * @param lanes invocations of the workgroup, a multiple of STEPS
   * @param body where what does not depend on the step is computed
   */
  constructor(
    module: Module,
    operand: Operand,
    name: string,
    region: Region,
    lanes: number,
    body: Statements,
  ) {
    const { slice, start, extent, tile, depth, from } = region;
    this.#region = region;
    this.#lanes = lanes;
    this.#module = module;
    this.#operand = operand;
    this.#name = name;
    this.#fetched = module.fresh('fetched');
    this.#from = from ?? null;
    this.#end = depth % (from === undefined ? STEPS : COLUMNS) === 0 ? null : depth;
    this.#stride = strideOf(tile);
    module.declare(`var<workgroup> ${name}: array<vec4f, ${STEPS * this.#stride}>;`);
    const { quads } = operand;
    const count = (STEPS * tile) / (quads === 'none' ? 1 : 4);
    this.#readers = count < lanes ? count : null;
    // Neighbouring invocations read neighbouring steps, or rows where those lie closer in memory.
    const stepsFirst = quads === 'k' || (quads === 'none' && !operand.isCloserAlongFree());
    const along = stepsFirst ? STEPS / (quads === 'k' ? 4 : 1) : tile / (quads === 'free' ? 4 : 1);
    const inRow = along === 1 ? '0u' : body.let('u32', `${LANE} % ${along}u`);
    const row = body.let('u32', `${LANE} / ${along}u`);
    const rowsAtOnce = lanes / along;
    const last = extent - (quads === 'free' ? 4 : 1);
    this.#items = Array.from({ length: Math.ceil(count / lanes) }, (_, i) => {
      const other = i === 0 ? row : body.let('u32', `${row} + ${i * rowsAtOnce}u`);
      const scaled = (text: string, quad: boolean) => (quad ? body.let('u32', `${text} * 4u`) : text);
      const step = stepsFirst ? scaled(inRow, quads === 'k') : other;
      const place = stepsFirst ? other : scaled(inRow, quads === 'free');
      const fixed = operand.fixed(body, slice, body.let('u32', `min(${start} + ${place}, ${last}u)`));
      return { step, place, fixed };
    });
  }

  /** Declares registers for a panel. */
  declare(block: Statements): void {
    this.#items.forEach((_, i) => {
      this.#operand.declare(block, `${this.#fetched}_${i}`, this.#end !== null);
    });
  }

  /** Sets off for the panel that begins at the step, u32; steps beyond the depth are zeros. */
  fetch(block: Statements, first: string): void {
    const start = this.#from === null ? first : `${this.#from} + ${first}`;
    this.#byReaders(block, (inner) => {
      this.#items.forEach(({ step, fixed }, i) => {
        const k = inner.let('u32', `${start} + ${step}`);
        const inDepth = this.#end === null ? null : `(${k} < ${this.#end}u)`;
        this.#operand.fetch(inner, `${this.#fetched}_${i}`, fixed, this.#operand.step(inner, k), inDepth);
      });
    });
  }

  /** The panel of the rows or columns from another start, fetched into the same registers. */
  movedTo(start: string, body: Statements): Panel {
    const region = { ...this.#region, start };
    const moved = new Panel(this.#module, this.#operand, this.#name, region, this.#lanes, body);
    moved.#fetched = this.#fetched;
    return moved;
  }

  /** Stages what was fetched as [step][row or column]. */
  store(block: Statements): void {
    const stride = this.#stride;
    this.#byReaders(block, (inner) => {
      this.#items.forEach(({ step, place }, i) => {
        const value = this.#operand.fetched(inner, `${this.#fetched}_${i}`, this.#end !== null);
        if (this.#operand.quads === 'free') {
          inner.line(`${this.#name}[${step} * ${stride}u + ${place} / 4u] = ${value};`);
          return;
        }
        const elements = this.#operand.quads === 'k' ? COMPONENTS.map((c) => `${value}.${c}`) : [value];
        elements.forEach((element, j) => {
          const at = `(${step} + ${j}u) * ${stride}u + ${place} / 4u`;
          inner.line(`${this.#name}[${at}][${place} % 4u] = ${element};`);
        });
      });
    });
  }

  #byReaders(block: Statements, write: (inner: Statements) => void): void {
    if (this.#readers === null) {
      write(block);
      return;
    }
    const inner = new Statements(this.#module, block);
    write(inner);
    block.nest(`if (${LANE} < ${this.#readers}u)`, inner);
  }

  /** WGSL of the quad of rows or columns at a step of the panel, both u32. */
  quad(step: string, quad: string): string {
    return `${this.#name}[${step} * ${this.#stride}u + ${quad}]`;
  }
}

/** Steps along k: the panels that are staged for them, and what a step of a panel, u32, does with those. */
export interface Stretch {
  readonly panels: readonly Panel[];
  readonly depth: number;
  readonly multiply: (block: Statements, step: string) => void;
  /** Whether the steps of a panel are written one by one, rather than as a loop. */
  readonly isWrittenOut: boolean;
}

/** Sets off for the first panels of a stretch, as `sweepPanels` expects. */
export function fetchFirst(block: Statements, { panels }: Pick<Stretch, 'panels'>): void {
  for (const panel of panels) panel.fetch(block, '0u');
}

/**
 * The panels of a stretch one after the other, the first of which have been fetched: those at steps k, u32, of the
 * depth. While the last ones are multiplied, those that `next` begins with are on their way. All invocations of the
 * workgroup must take part.
 */
export function sweepPanels(
  module: Module,
  body: Statements,
  stretch: Stretch,
  next: Pick<Stretch, 'panels'> | null,
): void {
  const { panels, depth } = stretch;
  const last = (Math.ceil(depth / STEPS) - 1) * STEPS;
  const ahead = (block: Statements): void => {
    for (const panel of panels) panel.fetch(block, `k + ${STEPS}u`);
  };
  if (next === null) {
    const turn = turnOf(module, body, stretch, (block) => {
      const inner = new Statements(module, block);
      ahead(inner);
      block.nest(`if (k < ${last}u)`, inner);
    });
    body.nest(`for (var k = 0u; k <= ${last}u; k += ${STEPS}u)`, turn);
    return;
  }
  if (last > 0) {
    body.nest(`for (var k = 0u; k < ${last}u; k += ${STEPS}u)`, turnOf(module, body, stretch, ahead));
  }
  // Apart from the loop, or the registers of the next panels would be occupied all through it.
  const end = turnOf(module, body, stretch, (block) => fetchFirst(block, next));
  end.lines.unshift(`const k = ${last}u;`);
  body.nest('', end);
}

/** Stages what was fetched, sets off for what comes next, and multiplies. */
function turnOf(
  module: Module,
  body: Statements,
  { panels, multiply, isWrittenOut }: Stretch,
  ahead: (block: Statements) => void,
): Statements {
  const turn = new Statements(module, body);
  for (const panel of panels) panel.store(turn);
  turn.line('workgroupBarrier();');
  ahead(turn);
  if (isWrittenOut) {
    for (let step = 0; step < STEPS; step += 1) multiply(turn, `${step}u`);
  } else {
    const step = new Statements(module, turn);
    multiply(step, 'step');
    turn.nest(`for (var step = 0u; step < ${STEPS}u; step += 1u)`, step);
  }
  turn.line('workgroupBarrier();');
  return turn;
}

/** WGSL of an invocation's place, in a workgroup of SIDE columns, where a subgroup's lanes have as few rows as possible. */
export const alongRows = { x: `${LANE} % ${SIDE}u`, y: `${LANE} / ${SIDE}u` };
/** And where they have eight columns and four rows: so they read the least from panels. */
export const inBlocks = inBlocksOf(8, 4);

function inBlocksOf(across: number, down: number): typeof alongRows {
  const block = `${LANE} / ${across * down}u`;
  return {
    x: `${block} % ${SIDE / across}u * ${across}u + ${LANE} % ${across}u`,
    y: `${block} / ${SIDE / across}u * ${down}u + ${LANE} / ${across}u % ${down}u`,
  };
}

/** The part of a tile that an invocation has, in a workgroup of `down` rows of invocations. */
export interface Share {
  /** Its rows, and its quads of columns. */
  readonly height: number;
  readonly wide: number;
  readonly down: number;
  /** Its place among the columns and the rows of invocations, u32. */
  readonly x: string;
  readonly y: string;
}

/**
 * WGSL of the place in the tile of an invocation's row `r`. Rows go to invocations in quads, and those of an
 * invocation lie a quad of each of the others apart: measured a tenth faster than side by side.
 */
export function rowOf({ height, down, y }: Share, r: number): string {
  if (height < 4) return `(${y} * ${height}u + ${r}u)`;
  return `(${y} * 4u + ${(r >> 2) * 4 * down + (r & 3)}u)`;
}

/** WGSL of an invocation's rows at a step, from the step's quads of rows. */
function rowsAt(block: Statements, { height, down, y }: Share, quad: (quad: string) => string): string[] {
  if (height < 4) {
    // In place: a vector in registers has no component by number.
    const first = block.let('u32', `${y} * ${height}u`);
    const four = quad(`${first} / 4u`);
    return Array.from({ length: height }, (_, r) => block.let('f32', `${four}[${first} % 4u + ${r}u]`));
  }
  const quads = Array.from({ length: height / 4 }, (_, i) => block.let('vec4f', quad(`${y} + ${i * down}u`)));
  return Array.from({ length: height }, (_, r) => `${quads[r >> 2]}.${COMPONENTS[r & 3]}`);
}

/**
 * Adds, at a step, the products of an invocation's rows and columns to sums: `rows` and `columns` read a quad of the
 * step's, and `sum` names a vec4f for each row and quad of columns.
 */
export function addProducts(
  block: Statements,
  share: Share,
  rows: (quad: string) => string,
  columns: (quad: string) => string,
  sum: (r: number, c: number) => string,
): void {
  const quads = Array.from({ length: share.wide }, (_, c) =>
    block.let('vec4f', columns(`${share.x} + ${c * SIDE}u`)),
  );
  rowsAt(block, share, rows).forEach((element, r) => {
    quads.forEach((quad, c) => {
      block.line(`${sum(r, c)} = fma(vec4f(${element}), ${quad}, ${sum(r, c)});`);
    });
  });
}
