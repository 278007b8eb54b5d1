/**
 * How a contraction reads an operand: the address of an element, and of its guards, is a part that the row (or
 * column) fixes plus a part that the step along k fixes, so the loop over k only adds.
 */
import type { DType } from '../dtype.ts';
import type { Affine, View } from '../view.ts';
import { loadOne, loadQuad, zero } from './access.ts';
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
    const sums = fixed.map((own, i) => (step[i] === '0' ? own : `${own} + ${step[i]}`));
    const conditions = this.#view.guards.map((guard, i) => Point.within(sums[i + 1]!, guard.limit));
    if (condition !== null) conditions.push(condition);
    const load = quad ? loadQuad : loadOne;
    const { binding, dtype } = this.access;
    const type = registerType(scalarOf(dtype), quad);
    if (conditions.length === 0) return block.let(type, load(this.#module, binding, dtype, sums[0]!));
    const ok = block.let('bool', conditions.join(' & '));
    const safe = block.let('i32', `select(0, ${sums[0]!}, ${ok})`);
    return block.let(
      type,
      `select(${zero(dtype, quad)}, ${load(this.#module, binding, dtype, safe)}, ${ok})`,
    );
  }

  /** @throws Error when the operand holds no floats */
  requireFloat(label: string): void {
    if (scalarOf(this.dtype) !== 'f32') throw new Error(`internal: ${label} contracts ${this.dtype}`);
  }
}
