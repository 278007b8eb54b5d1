/**
 * Where in an index space the code at hand is: WGSL names for the coordinates, and affine functions of them.
 *
 * Neighbouring axes through which every function steps evenly count as one coordinate, so that a contiguous tensor
 * of any rank costs no division. In code for four neighbouring elements at once, the named coordinate is that of the
 * first, a multiple of 4, and one axis, the quad axis, tells the four apart.
 */
import { numel, type Shape } from '../shape.ts';
import { type Affine, type Guard, mergeAxes, type View } from '../view.ts';
import type { Statements } from './module.ts';

/** Several axes counted as one: functions step through it by their stride along `axis`. */
export interface Coordinate {
  readonly axis: number;
  readonly extent: number;
}

/** The coordinates of axes [start, end) that all the functions step through evenly. */
export function coordinatesOf(
  shape: Shape,
  functions: readonly Affine[],
  start = 0,
  end = shape.length,
): Coordinate[] {
  const restricted = functions.map(({ strides }) => ({ offset: 0, strides: strides.slice(start, end) }));
  const { shape: extents, kept } = mergeAxes(shape.slice(start, end), restricted);
  return kept.map((axes, i) => ({ axis: start + axes.at(-1)!, extent: extents[i]! }));
}

/** A coordinate with the i32 name it has in the code, in the block where that name is known. */
export interface NamedCoordinate extends Coordinate {
  readonly name: string;
  /** How deep in the point's blocks: 0 is the outermost. */
  readonly level: number;
}

/** Names for the coordinates that a row-major position (a u32 expression) has. */
export function decompose(
  statements: Statements,
  level: number,
  coordinates: readonly Coordinate[],
  position: string,
): NamedCoordinate[] {
  let rest = position;
  return coordinates
    .toReversed()
    .map((coordinate, i) => {
      const last = i === coordinates.length - 1;
      const own = last ? rest : `${rest} % ${coordinate.extent}u`;
      const name = statements.let('i32', `i32(${own})`);
      if (!last) rest = statements.let('u32', `${rest} / ${coordinate.extent}u`);
      return { ...coordinate, name, level };
    })
    .reverse();
}

/**
 * Names for the coordinates of the first of `length` neighbours along the last one: those of the `position`-th such
 * run (a u32 expression) in row-major order.
 */
export function decomposeRuns(
  statements: Statements,
  level: number,
  coordinates: readonly Coordinate[],
  position: string,
  length: number,
): NamedCoordinate[] {
  const last = coordinates.at(-1)!;
  const counted = coordinates.with(-1, { ...last, extent: Math.ceil(last.extent / length) });
  const named = decompose(statements, level, counted, position);
  const name = statements.let('i32', `${named.at(-1)!.name} * ${length}`);
  return named.with(-1, { ...last, level, name });
}

export class Point {
  /** Blocks from the outermost in; a value is computed in the outermost block that knows its coordinates. */
  readonly blocks: readonly Statements[];
  readonly coordinates: readonly NamedCoordinate[];
  /** The coordinate whose four neighbours are computed at once, if any. */
  readonly quad: NamedCoordinate | null;

  constructor(
    blocks: readonly Statements[],
    coordinates: readonly NamedCoordinate[],
    quad: NamedCoordinate | null = null,
  ) {
    this.blocks = blocks;
    this.coordinates = coordinates;
    this.quad = quad;
  }

  /** The i32 value of an affine function at the (first) element, and the block that it is known in. */
  affine(f: Affine): { readonly text: string; readonly level: number } {
    let text = String(f.offset);
    let reached = 0;
    for (let level = 0; level < this.blocks.length; level += 1) {
      const terms = this.coordinates
        .filter((coordinate) => coordinate.level === level && f.strides[coordinate.axis] !== 0)
        .map(({ name, axis }) => (f.strides[axis] === 1 ? name : `${name} * ${f.strides[axis]}`));
      if (terms.length === 0) continue;
      if (text !== '0') terms.push(text);
      reached = level;
      text =
        terms.length === 1 && !terms[0]!.includes(' ')
          ? terms[0]!
          : this.#let(level, 'i32', terms.join(' + '));
    }
    return { text, level: reached };
  }

  #let(level: number, type: string, text: string): string {
    return this.blocks[level]!.let(type, text);
  }

  /** How far element `j` of the four is from the first along the quad axis; the last element repeats at the end. */
  component(j: number): string {
    const { name, extent, level } = this.quad!;
    if (j === 0 || extent % 4 === 0) return String(j);
    return this.#let(level, 'i32', `min(${j}, ${extent - 1} - ${name})`);
  }

  /** Stride along the quad axis. */
  quadStride(f: Affine): number {
    return this.quad === null ? 0 : f.strides[this.quad.axis]!;
  }

  /** Whether the value of the function is the same for all four. */
  isUniform(...functions: readonly Affine[]): boolean {
    return functions.every((f) => this.quadStride(f) === 0);
  }

  /** WGSL: whether an affine function's value lies in [0, limit). */
  static within(value: string, limit: number): string {
    return `(u32(${value}) < ${limit}u)`;
  }
}

/** Whether four neighbours along the quad axis are four aligned neighbours in memory, all inside or all outside. */
export function isQuadView(view: View, coordinates: readonly Coordinate[], quad: Coordinate): boolean {
  const aligned = (f: Affine) =>
    f.offset % 4 === 0 && coordinates.every(({ axis }) => axis === quad.axis || f.strides[axis]! % 4 === 0);
  const together = (guard: Guard) =>
    guard.strides[quad.axis] === 0 ||
    (guard.strides[quad.axis] === 1 && guard.limit % 4 === 0 && aligned(guard));
  return view.strides[quad.axis] === 1 && aligned(view) && view.guards.every(together);
}

/** How many groups of four neighbours along the last coordinate a space has, counting an unfinished one. */
export function quadsIn(coordinates: readonly Coordinate[]): number {
  const last = coordinates.at(-1);
  const outer = numel(coordinates.slice(0, -1).map(({ extent }) => extent));
  return outer * Math.ceil((last?.extent ?? 1) / 4);
}
