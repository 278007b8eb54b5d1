/**
 * How a contraction reads an operand: the address of an element, and of its guards, is a part that the row (or
 * column) fixes plus a part that the step along k fixes, so the loop over k only adds.
 */
import type { DType } from '../dtype.ts';
import type { Affine, View } from '../view.ts';
import { cellAt, fromCell, loadOne, loadQuad, zero } from './access.ts';
import type { Access } from './bindings.ts';
import { type Module, registerType, type Statements, scalarOf } from './module.ts';
import { type Coordinate, coordinatesOf, decompose, isQuadView, Point } from './point.ts';

/** Values of the view's address and of each guard, as far as they are known: i32 expressions. */
export type Part = readonly string[];

/** Axes [start, end) of an operand's view. */
type Axes = readonly [number, number];

interface OperandAxes {
  readonly batch: Axes;
  /** Those that the other operand lacks: m or n. */
  readonly free: Axes;
  readonly k: Axes;
}

export class Operand {
  readonly #module: Module;
  readonly access: Access;
  readonly #view: View;
  readonly #functions: readonly Affine[];
  readonly #batch: readonly Coordinate[];
  readonly #free: readonly Coordinate[];
  readonly #k: readonly Coordinate[];
  /** Along which axis four neighbours can be read at once. */
  quads: 'k' | 'free' | 'none';

  constructor(module: Module, access: Access, view: View, { batch, free, k }: OperandAxes) {
    this.#module = module;
    this.access = access;
    this.#view = view;
    this.#functions = [view, ...view.guards];
    this.#batch = coordinatesOf(view.shape, this.#functions, ...batch);
    this.#free = coordinatesOf(view.shape, this.#functions, ...free);
    this.#k = coordinatesOf(view.shape, this.#functions, ...k);
    const all = [...this.#batch, ...this.#free, ...this.#k];
    const allows = (coordinate: Coordinate | undefined) =>
      coordinate !== undefined && coordinate.extent % 4 === 0 && isQuadView(view, all, coordinate);
    this.quads = allows(this.#k.at(-1)) ? 'k' : allows(this.#free.at(-1)) ? 'free' : 'none';
  }

  get dtype(): DType {
    return this.access.dtype;
  }

  /** Gives up quads. */
  readSingly(): void {
    this.quads = 'none';
  }

  /** Gives up quads if the binding was not declared so. */
  settle(): void {
    if (!this.access.binding.quads) this.quads = 'none';
  }

  /** Whether a step along the last free coordinate is shorter in memory than one along k. */
  isCloserAlongFree(): boolean {
    const stride = (coordinates: readonly Coordinate[]) =>
      Math.abs(this.#view.strides[coordinates.at(-1)?.axis ?? -1] ?? 0) || Number.POSITIVE_INFINITY;
    return stride(this.#free) < stride(this.#k);
  }

  /** The part of a batch and of a row or column (u32 expressions). */
  fixed(block: Statements, batch: string, row: string): Part {
    const coordinates = [...decompose(block, 0, this.#batch, batch), ...decompose(block, 0, this.#free, row)];
    const point = new Point([block], coordinates);
    return this.#functions.map((f) => block.let('i32', point.affine(f).text));
  }

  /** The part of a step along k (a u32 expression). */
  step(block: Statements, k: string): Part {
    const point = new Point([block], decompose(block, 0, this.#k, k));
    return this.#functions.map(({ strides }) => point.affine({ offset: 0, strides }).text);
  }

  /**
   * The element, or the four along `quads`, where two parts meet; zero where a guard or the condition fails.
   * @param condition a bool expression, or none
   */
  read(block: Statements, fixed: Part, step: Part, quad: boolean, condition: string | null = null): string {
    const load = quad ? loadQuad : loadOne;
    const { binding, dtype } = this.access;
    const type = registerType(scalarOf(dtype), quad);
    const { address, ok } = this.#locate(block, fixed, step, condition);
    const value = load(this.#module, binding, dtype, address);
    return block.let(type, ok === null ? value : `select(${zero(dtype, quad)}, ${value}, ${ok})`);
  }

  /** The address where two parts meet, and whether there is an element: 0 where there is none. */
  #locate(block: Statements, fixed: Part, step: Part, condition: string | null) {
    const sums = fixed.map((own, i) => (step[i] === '0' ? own : `${own} + ${step[i]}`));
    const conditions = this.#view.guards.map((guard, i) => Point.within(sums[i + 1]!, guard.limit));
    if (condition !== null) conditions.push(condition);
    if (conditions.length === 0) return { address: sums[0]!, ok: null };
    const ok = block.let('bool', conditions.join(' & '));
    return { address: block.let('i32', `select(0, ${sums[0]!}, ${ok})`), ok };
  }

  /**
   * Declares registers for what `fetch` gets.
   * @param misses whether the condition of `fetch` may fail
   */
  declare(block: Statements, register: string, misses: boolean): void {
    const type = this.#isConverted
      ? registerType(scalarOf(this.dtype), false)
      : this.#module.cellType(this.access.binding);
    block.line(`var ${register}: ${type};`);
    if (this.#mayMiss(misses)) block.line(`var ${register}Ok: bool;`);
  }

  /** Sets off for what `read` reads along `quads`, and waits for nothing: `fetched` makes it the value. */
  fetch(block: Statements, register: string, fixed: Part, step: Part, condition: string | null): void {
    const quad = this.quads !== 'none';
    const { binding, dtype } = this.access;
    const { address, ok } = this.#locate(block, fixed, step, condition);
    const cell = this.#isConverted ? loadOne : cellAt;
    block.line(`${register} = ${cell(this.#module, binding, dtype, address, quad)};`);
    if (ok !== null) block.line(`${register}Ok = ${ok};`);
  }

  /** The value of a register that was fetched. */
  fetched(block: Statements, register: string, misses: boolean): string {
    const quad = this.quads !== 'none';
    const { binding, dtype } = this.access;
    const value = this.#isConverted ? register : fromCell(this.#module, binding, dtype, register, quad);
    const own = this.#mayMiss(misses) ? `select(${zero(dtype, quad)}, ${value}, ${register}Ok)` : value;
    return own === register ? own : block.let(registerType(scalarOf(dtype), quad), own);
  }

  /** The same as it is stored, a quad of halves that shaders may hold. */
  fetchedHalves(block: Statements, register: string, misses: boolean): string {
    if (!this.#mayMiss(misses)) return register;
    return block.let('vec4<f16>', `select(vec4<f16>(), ${register}, ${register}Ok)`);
  }

  /** Whether it is read as quads of halves that shaders may hold. */
  get isHalfQuads(): boolean {
    const { f16 } = this.#module.capabilities;
    return f16 && this.dtype === 'f16' && this.quads !== 'none' && !this.access.binding.words;
  }

  #mayMiss(misses: boolean): boolean {
    return misses || this.#view.guards.length > 0;
  }

  /** Whether what is fetched is converted at once: single halves packed in pairs have no cell of their own. */
  get #isConverted(): boolean {
    return this.quads === 'none' && this.dtype === 'f16' && !this.#module.capabilities.f16;
  }

  /** @throws Error when the operand holds no floats */
  requireFloat(label: string): void {
    if (scalarOf(this.dtype) !== 'f32') throw new Error(`internal: ${label} contracts ${this.dtype}`);
  }
}
