/**
 * What the kernels of attention share. A panel is eight queries side by side in two vectors, and every score of theirs
 * is a row: S^T = K Q^T comes as [keys][8], so that sums over keys are sums of vectors, and is at once the packed right
 * factor of O^T = V^T P^T. All products are the microkernel's, with left factors packed as those of contractions.
 */
import type { AttendKernel, AttendOperands } from '../kernel.ts';
import type { Code, Local } from './assembler.ts';
import { writeBatch } from './contract.ts';
import type { Pointer } from './expressions.ts';
import { floatToHalf } from './half.ts';
import { Lanes } from './lanes.ts';
import { forRange } from './loops.ts';
import { naturalPower } from './math.ts';
import { microkernel, tileRowsOf } from './microkernel.ts';
import { operandTables } from './operand.ts';
import { packFunction } from './pack.ts';
import { type KernelFunction, openKernel, type Target } from './target.ts';

/** Queries (or keys) of a panel. */
export const panelWidth = 8;
/** Bytes from one row of a panel to the next. */
export const panelBytes = 4 * panelWidth;

/** Below it e^x counts as 0. */
const lowestExponent = -86;

/** A range [start, end) of an axis of the given extent. */
export interface Range {
  readonly start: Local;
  readonly end: Local;
  readonly extent: number;
}

/** An operand of which panels are packed. */
export interface Packed {
  /** Packs entries v ... v + width - 1 of the panel axis, k0 ... k1 - 1 of the other, as [k][width]. */
  pack(v: Local, k0: Local, k1: Local, to: Local, width: number): void;
  /** Packs all panels of a range, one after the other. */
  packAll(range: Range, k0: Local, k1: Local, to: Local): void;
}

export class Panels {
  readonly target: Target;
  readonly kernel: AttendKernel;
  readonly opened: KernelFunction;
  readonly body: Code;
  /** Rows of the microkernel's full tile. */
  readonly tileRows: number;
  readonly zero: Local;
  readonly one: Local;
  readonly #starts: ((index: Local) => void)[] = [];

  constructor(target: Target, kernel: AttendKernel) {
    this.target = target;
    this.kernel = kernel;
    this.opened = openKernel(target, kernel);
    this.body = this.opened.body;
    this.tileRows = tileRowsOf(target);
    this.zero = this.constant(0);
    this.one = this.constant(1);
  }

  local(): Local {
    return this.opened.fn.local('i32');
  }

  constant(value: number): Local {
    const local = this.local();
    this.opened.fn.entry.i32(value).set(local);
    return local;
  }

  /** A local that is `bytes` into the thread's scratch. */
  scratch(bytes: number): Local {
    const local = this.local();
    this.opened.fn.entry.get(this.opened.scratch).i32(bytes).op('i32.add').set(local);
    return local;
  }

  get lanes(): Lanes {
    return new Lanes(this.opened.context, this.body);
  }

  /** into = x + y * factor */
  step(into: Local, x: Local, y: Local, factor: number): void {
    this.body.get(x, y).i32(factor).op('i32.mul').op('i32.add').set(into);
  }

  /** into = min(x + add, limit) */
  upTo(into: Local, x: Local, add: number, limit: Local): void {
    this.body.get(x).i32(add).op('i32.add').tee(into).get(limit, into, limit);
    this.body.op('i32.lt_u').op('select').set(into);
  }

  /** An operand [..., rows, columns] packed along its rows, or along its columns; sums of rows have no columns. */
  packed(name: keyof AttendOperands, along: 'rows' | 'columns', unit: number): Packed {
    const { target, kernel, body, opened } = this;
    const { binding, view } = kernel.operands[name]!;
    const { buffer, dtype } = kernel.bindings[binding]!;
    const lead = kernel.batch.length;
    const [rows, columns] = [[lead], view.shape.length > lead + 1 ? [lead + 1] : []];
    const operand = operandTables(
      view,
      { dtype, length: target.lengthOf(buffer) },
      {
        batch: kernel.batch.map((_, axis) => axis),
        panel: along === 'rows' ? rows : columns,
        k: along === 'rows' ? columns : rows,
      },
    );
    const pointer = opened.bindings[binding]!;
    const guards = operand.limits.map(() => this.local());
    const start = writeBatch(target, operand, pointer, this.local(), guards);
    this.#starts.push((index) => start.write(body, index));
    const pack = (v: Local, k0: Local, k1: Local, to: Local, width: number): void => {
      body.get(start.address, v, k0, k1, to, pointer.local, ...start.guards);
      body.op('call', packFunction(target, operand, width, unit));
    };
    const packAll = (range: Range, k0: Local, k1: Local, to: Local): void => {
      const at = this.local();
      const bytes = this.local();
      body.get(to).set(at).get(k1, k0).op('i32.sub').i32(4).op('i32.mul').set(bytes);
      this.#tiles(range, unit, (v, width) => {
        pack(v, k0, k1, at, width);
        this.step(at, at, bytes, width);
      });
    };
    return { pack, packAll };
  }

  /** Finds where the batch begins in every operand that is packed. */
  startBatch(index: Local): void {
    for (const start of this.#starts) start(index);
  }

  /** Runs `each` for full tiles of a range, then for what is left of the axis. */
  #tiles({ start, end, extent }: Range, width: number, each: (v: Local, width: number) => void): void {
    const { body } = this;
    const [v, full] = [this.local(), this.local()];
    const rest = extent % width;
    body.get(start).set(v).get(end, start).op('i32.sub').i32(width).op('i32.div_u').i32(width);
    body.op('i32.mul').get(start).op('i32.add').set(full);
    if (extent >= width) forRange(body, v, full, width, () => each(v, width));
    if (rest === 0) return;
    body
      .get(v, end)
      .op('i32.lt_u')
      .if(() => each(v, rest));
  }

  /** c [range][8] = (c where `add` +) A b, with A packed in panels [depth][tile rows] and b [depth][8]. */
  product(range: Range, a: Local, depth: Local, b: Local, c: Local, add: Local): void {
    const { body } = this;
    const [left, to, bytes] = [this.local(), this.local(), this.local()];
    body.get(a).set(left).get(c).set(to).get(depth).i32(4).op('i32.mul').set(bytes);
    this.#tiles(range, this.tileRows, (_, rows) => {
      body.get(left, b, depth, to).i32(panelBytes).get(add);
      body.op('call', microkernel(this.target, rows, 2));
      this.step(left, left, bytes, rows);
      body
        .get(to)
        .i32(panelBytes * rows)
        .op('i32.add')
        .set(to);
    });
  }

  /** Runs `each` with the address of every row [8] from `start`, and the number of the row. */
  eachRow(start: Local, rows: Local, each: (at: Local) => void): void {
    const [at, end] = [this.local(), this.local()];
    this.step(end, start, rows, panelBytes);
    this.body.get(start).set(at);
    forRange(this.body, at, end, panelBytes, () => each(at));
  }

  /** The two vectors of a row. */
  load(at: Local, offset = 0): [Local, Local] {
    return [0, 16].map((part) => {
      this.body.get(at).op('v128.load', offset + part);
      return this.lanes.keep();
    }) as [Local, Local];
  }

  store(at: Local, values: readonly Local[], offset = 0): void {
    values.forEach((value, half) => {
      this.body.get(at, value).op('v128.store', offset + 16 * half);
    });
  }

  clear(start: Local, rows: Local): void {
    const none = this.lanes.f32(0);
    this.eachRow(start, rows, (at) => this.store(at, [none, none]));
  }

  /** Multiplies rows by a vector for each half. */
  scale(start: Local, rows: Local, factors: readonly Local[]): void {
    this.eachRow(start, rows, (at) => {
      const m = this.lanes;
      this.store(
        at,
        this.load(at).map((x, half) => m.op('f32x4.mul', x, factors[half]!)),
      );
    });
  }

  /**
   * Scores of a panel as they come from the product of scaled queries and keys, masked: what key `key` (at the row at
   * hand) is to queries query ... query + 7. `mask` is the address of the mask's row.
   */
  masked(scores: readonly Local[], mask: Local | null, key: Local, query: Local): Local[] {
    const { kernel, body } = this;
    const m = this.lanes;
    const hidden = m.f32(Number.NEGATIVE_INFINITY);
    let result = [...scores];
    if (mask !== null) {
      const isBool = kernel.bindings[kernel.operands.mask!.binding]!.dtype === 'bool';
      const bias = this.load(mask);
      result = result.map((s, half) =>
        isBool
          ? m.select(m.op('i32x4.ne', bias[half]!, m.i32(0)), s, hidden)
          : m.op('f32x4.add', s, bias[half]!),
      );
    }
    if (!kernel.causal) return result;
    body.get(key).op('i32x4.splat');
    const keys = m.keep();
    return result.map((s, half) => {
      body.get(query).op('i32x4.splat');
      const queries = m.op('i32x4.add', m.keep(), m.constant([0, 1, 2, 3].map((lane) => lane + 4 * half)));
      return m.select(m.op('i32x4.gt_s', keys, queries), hidden, s);
    });
  }

  /**
   * e^x, the weight of a score less a sum or a maximum: 0 below -86, and no overflow is expected. In half the
   * instructions of `exp`: 2^n is added to the exponent, and n is rounded by adding a number whose last bit is 1.
   */
  weight(x: Local): Local {
    const m = this.lanes;
    const clamped = m.op('f32x4.min', m.op('f32x4.max', x, m.f32(lowestExponent)), m.f32(88));
    const whole = 1.5 * 2 ** 23;
    const shifted = m.madd(clamped, m.f32(Math.LOG2E), m.f32(whole));
    const n = m.op('f32x4.sub', shifted, m.f32(whole));
    const power = naturalPower(m, clamped, n);
    const value = m.op('i32x4.add', power, m.shift('i32x4.shl', shifted, 23));
    return m.op('v128.andnot', value, m.op('f32x4.lt', x, m.f32(lowestExponent)));
  }

  /**
   * Stores a panel [count][8] as rows first ... of an output [rows][count]; those of the panel's columns that the axis
   * has: `left` of them.
   */
  storeColumns(panel: Local, count: number, to: Pointer, first: Local, left: Local): void {
    const { body } = this;
    const size = to.dtype === 'f16' ? 2 : 4;
    const [lane, lanes, from, end, at] = [0, 0, 0, 0, 0].map(() => this.local()) as [
      Local,
      Local,
      Local,
      Local,
      Local,
    ];
    this.upTo(lanes, this.zero, panelWidth, left);
    body
      .get(to.local, first)
      .i32(count * size)
      .op('i32.mul')
      .op('i32.add')
      .set(at);
    body.i32(0).set(lane);
    forRange(body, lane, lanes, 1, () => {
      this.step(from, panel, lane, 4);
      body
        .get(from)
        .i32(count * panelBytes)
        .op('i32.add')
        .set(end);
      forRange(body, from, end, panelBytes, () => {
        if (size === 4) body.get(at, from).op('i32.load', 0).op('i32.store', 0);
        else {
          body.get(from).op('v128.load32_splat', 0);
          const half = floatToHalf(this.lanes, this.lanes.keep());
          body.get(at, half).op('v128.store16_lane', 0, 0);
        }
        body.get(at).i32(size).op('i32.add').set(at);
      });
    });
  }
}

/** Places in a thread's scratch, one after the other, in floats. */
export function layout<Name extends string>(
  floats: Readonly<Record<Name, number>>,
): { readonly at: Readonly<Record<Name, number>>; readonly bytes: number } {
  let bytes = 0;
  const at = {} as Record<Name, number>;
  for (const [name, count] of Object.entries(floats) as [Name, number][]) {
    at[name] = bytes;
    bytes += Math.ceil((4 * count) / 64) * 64;
  }
  return { at, bytes };
}

/** Keys that are taken up at a time: whole tiles and whole panels. More would not fit the second-level cache. */
export function keysAtOnce(target: Target, { width, valueWidth }: AttendKernel): number {
  return (
    tileRowsOf(target) * panelWidth * (width + valueWidth <= 128 ? 6 : width + valueWidth <= 256 ? 3 : 1)
  );
}
