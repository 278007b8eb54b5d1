/**
 * Panels: what the invocations of a workgroup read of an operand for some steps along k, staged in workgroup memory,
 * where each row of invocations finds rows of A and each column four columns of B.
 *
 * While one panel is multiplied the next is already on its way from device memory into registers: on an H200 that is
 * worth a seventh (benchmarks/results/2026-11-27-h200.md), and two panels in workgroup memory at once cost more
 * than they save.
 */
import { COMPONENTS } from './contract.ts';
import { LANE } from './launch.ts';
import { type Module, Statements } from './module.ts';
import type { Operand, Part } from './operand.ts';

/** Columns of invocations; each has four columns of the output side by side. */
export const SIDE = 16;
/** Rows of invocations. */
export const DOWN = 8;
export const TILE_LANES = DOWN * SIDE;
/** Columns of a tile. */
export const WIDTH = 4 * SIDE;
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
  /** The step that the loop begins at, u32, for loops over WIDTH steps at most; default: 0. */
  readonly from?: string;
}

/** What an invocation reads of each panel, one element or four at a time. */
interface Item {
  /** The step within the panel, and the row or column within the tile, u32. */
  readonly step: string;
  readonly place: string;
  readonly fixed: Part;
}

export class Panel {
  readonly #operand: Operand;
  readonly #module: Module;
  readonly #name: string;
  readonly #from: string;
  /** The depth, where a panel may end beyond it. */
  readonly #end: number | null;
  /** Quads from one step to the next: one more than a step has, so that stores of a column meet other banks. */
  readonly #stride: number;
  readonly #items: readonly Item[];
  /** Invocations that read, where they are not all needed. */
  readonly #readers: number | null;

  /**
   * @param lanes invocations of the workgroup, a multiple of STEPS
   * @param body where what does not depend on the step is computed
   */
  constructor(
    module: Module,
    operand: Operand,
    name: string,
    { slice, start, extent, tile, depth, from }: Region,
    lanes: number,
    body: Statements,
  ) {
    this.#module = module;
    this.#operand = operand;
    this.#name = name;
    this.#from = from === undefined ? 'k' : `${from} + k`;
    this.#end = depth % (from === undefined ? STEPS : WIDTH) === 0 ? null : depth;
    this.#stride = tile / 4 + 1;
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
      this.#operand.declare(block, `${this.#name}${i}`, this.#end !== null);
    });
  }

  /** Sets off for the panel that begins at step `k`; steps beyond the depth are zeros. */
  fetch(block: Statements): void {
    this.#byReaders(block, (inner) => {
      this.#items.forEach(({ step, fixed }, i) => {
        const k = inner.let('u32', `${this.#from} + ${step}`);
        const inDepth = this.#end === null ? null : `(${k} < ${this.#end}u)`;
        this.#operand.fetch(inner, `${this.#name}${i}`, fixed, this.#operand.step(inner, k), inDepth);
      });
    });
  }

  /** Stages what was fetched as [step][row or column]. */
  store(block: Statements): void {
    const stride = this.#stride;
    this.#byReaders(block, (inner) => {
      this.#items.forEach(({ step, place }, i) => {
        const value = this.#operand.fetched(inner, `${this.#name}${i}`, this.#end !== null);
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

/**
 * A loop over panels: `multiply` writes what one step, named `step`, does with the staged panels. All invocations of
 * the workgroup must take part.
 */
export function sweepPanels(
  module: Module,
  body: Statements,
  depth: number,
  panels: readonly Panel[],
  multiply: (step: Statements) => void,
): void {
  const turn = new Statements(module, body);
  const fetch = new Statements(module, turn);
  const product = new Statements(module, turn);
  const store = new Statements(module, turn);
  for (const panel of panels) {
    panel.declare(turn);
    panel.fetch(fetch);
    panel.store(store);
  }
  const step = new Statements(module, product);
  multiply(step);
  product.nest(`for (var step = 0u; step < ${STEPS}u; step += 1u)`, step);
  turn.nest(`if (k < ${depth}u)`, fetch);
  turn.nest('if (k > 0u)', product);
  turn.line('workgroupBarrier();');
  turn.nest(`if (k < ${depth}u)`, store);
  turn.line('workgroupBarrier();');
  body.nest(`for (var k = 0u; k < ${depth + STEPS}u; k += ${STEPS}u)`, turn);
}

/**
 * WGSL of the place in the tile of an invocation's row `r` of `height`. Rows go to invocations in quads, and those of
 * an invocation lie a quad of each of the others apart: measured a tenth faster than side by side.
 */
export function rowOf(height: number, y: string, r: number): string {
  if (height < 4) return `(${y} * ${height}u + ${r}u)`;
  return `(${y} * 4u + ${(r >> 2) * 4 * DOWN + (r & 3)}u)`;
}

/** WGSL of an invocation's rows at a step, from the step's quads of rows. */
function rowsAt(step: Statements, height: number, y: string, quad: (quad: string) => string): string[] {
  if (height < 4) {
    // In place: a vector in registers has no component by number.
    const first = step.let('u32', `${y} * ${height}u`);
    const four = quad(`${first} / 4u`);
    return Array.from({ length: height }, (_, r) => step.let('f32', `${four}[${first} % 4u + ${r}u]`));
  }
  const quads = Array.from({ length: height / 4 }, (_, i) => step.let('vec4f', quad(`${y} + ${i * DOWN}u`)));
  return Array.from({ length: height }, (_, r) => `${quads[r >> 2]}.${COMPONENTS[r & 3]}`);
}

/** Adds, at a step, each of an invocation's rows times four columns to that row's sums: `sum` names a vec4f. */
export function addProducts(
  step: Statements,
  height: number,
  y: string,
  rows: (quad: string) => string,
  columns: string,
  sum: (r: number) => string,
): void {
  const quad = step.let('vec4f', columns);
  rowsAt(step, height, y, rows).forEach((element, r) => {
    step.line(`${sum(r)} = fma(vec4f(${element}), ${quad}, ${sum(r)});`);
  });
}
