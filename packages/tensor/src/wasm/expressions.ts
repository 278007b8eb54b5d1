/**
 * Code for expressions: one v128 for each value, computed once, as far out of the loops as it can be.
 *
 * The body of a kernel is written in sections, one for each level of its loop nest: level 0 is run once, the last
 * level once for each vector of four elements. A value goes into the section of the deepest axis that it depends
 * on. One axis is the vector axis: lane l holds its index plus l. The tail of a loop is the same code with one lane
 * in use (`lanes` = 1), so that a value does not depend on where the vectors begin.
 */
import { bytesPerElement, type DType } from '../dtype.ts';
import type { Expr, Scalar } from '../kernel.ts';
import type { Affine, Guard } from '../view.ts';
import { Code, type Local } from './assembler.ts';
import { arithmetic, castLanes, unaryLanes } from './functions.ts';
import { floatToHalf, halfToFloat } from './half.ts';
import { type Context, Lanes } from './lanes.ts';
import { threefry } from './math.ts';

/** An axis of the loop nest. */
export interface LoopAxis {
  /** The original axis whose strides it has. */
  readonly source: number;
  /** i32 local that holds its index. */
  readonly local: Local;
  readonly level: number;
  readonly vector: boolean;
}

/** A buffer that a kernel reads or writes: the local that holds its address, and what it stores. */
export interface Pointer {
  readonly local: Local;
  readonly dtype: DType;
}

/** A vector (or an i32) and the level of the section that computes it. */
export interface Value {
  readonly local: Local;
  readonly level: number;
}

/** Beyond this many bytes between lanes, lanes that a guard excludes must not be read: buffers have margins so wide. */
const marginBytes = 16384;

export class Expressions {
  /** Lanes in use: 4, or 1 in the tail of a loop. */
  lanes: 1 | 4 = 4;
  /** What 'folded' stands for, by fold. */
  folded: readonly Value[] = [];
  readonly context: Context;
  private readonly axes: readonly LoopAxis[];
  private readonly bindings: readonly Pointer[];
  private readonly sections: Code[];
  private readonly memo: Map<Expr | string, Value>[];

  constructor(context: Context, axes: readonly LoopAxis[], bindings: readonly Pointer[], levels: number) {
    this.context = context;
    this.axes = axes;
    this.bindings = bindings;
    this.sections = Array.from({ length: levels }, () => new Code());
    this.sections[0] = context.fn.entry;
    this.memo = this.sections.map(() => new Map());
  }

  /** The section of a level. */
  section(level: number): Code {
    return this.sections[level]!;
  }

  /** Starts the section of a level, and of all deeper ones, again: what they had computed is computed anew. */
  restart(level: number): Code {
    for (let i = level; i < this.sections.length; i += 1) {
      this.sections[i] = new Code();
      this.memo[i]!.clear();
    }
    return this.sections[level]!;
  }

  /** The value of an expression; bool is a mask of all ones or zeros in each lane. */
  value(expr: Expr): Value {
    for (const known of this.memo) {
      const value = known.get(expr);
      if (value) return value;
    }
    const value = this.compute(expr);
    this.memo[value.level]!.set(expr, value);
    return value;
  }

  /** Stores a value at f(index) of a buffer: all lanes in use along the vector axis. */
  store(value: Local, type: Scalar, to: Pointer, f: Affine): void {
    const level = this.sections.length - 1;
    const m = this.at(level);
    const size = bytesPerElement(to.dtype);
    const stride = this.vectorStride(f);
    const base = this.byteAddress(to, f, level);
    const bytes = type === 'bool' ? m.op('v128.and', value, m.i32(1)) : value;
    if (to.dtype === 'f16') {
      const halves = floatToHalf(m, bytes);
      m.code.get(halves, halves).op('i16x8.narrow_i32x4_u');
      const packed = m.keep();
      if (this.lanes === 4 && stride === 1) m.code.get(base, packed).op('v128.store64_lane', 0, 0);
      else this.storeLanes(m, packed, base, stride * size, 'v128.store16_lane');
    } else if (this.lanes === 4 && stride === 1) m.code.get(base, bytes).op('v128.store', 0);
    else this.storeLanes(m, bytes, base, stride * size, 'v128.store32_lane');
  }

  private storeLanes(
    m: Lanes,
    value: Local,
    base: Local,
    step: number,
    op: 'v128.store16_lane' | 'v128.store32_lane',
  ) {
    for (let lane = 0; lane < this.lanes; lane += 1) {
      m.code
        .get(base)
        .i32(step * lane)
        .op('i32.add')
        .get(value)
        .op(op, 0, lane);
    }
  }

  private at(level: number): Lanes {
    return new Lanes(this.context, this.sections[level]!);
  }

  private get vectorAxis(): LoopAxis | undefined {
    return this.axes.find(({ vector }) => vector);
  }

  private vectorStride(f: Affine): number {
    const axis = this.vectorAxis;
    return axis ? f.strides[axis.source]! : 0;
  }

  /** Computes a value once and remembers it under a key. */
  private once(key: string, level: number, type: 'i32' | 'v128', compute: (m: Lanes) => void): Value {
    const known = this.memo[level]!.get(key);
    if (known) return known;
    const m = this.at(level);
    compute(m);
    const local = this.context.fn.local(type);
    m.code.set(local);
    const value = { local, level };
    this.memo[level]!.set(key, value);
    return value;
  }

  /** i32: start + scale (offset + sum_i strides_i x_i) over the axes up to a level, without the vector axis. */
  private partial(f: Affine, scale: number, start: Local | null, level: number): Value {
    if (level === 0) {
      const key = `base ${start} ${f.offset * scale}`;
      return this.once(key, 0, 'i32', ({ code }) => {
        code.i32(f.offset * scale);
        if (start !== null) code.get(start).op('i32.add');
      });
    }
    const below = this.partial(f, scale, start, level - 1);
    const own = this.axes.filter(
      (axis) => axis.level === level && !axis.vector && f.strides[axis.source] !== 0,
    );
    if (own.length === 0) return below;
    const key = `sum ${below.local} ${own.map(({ source }) => `${source}:${f.strides[source]! * scale}`)}`;
    return this.once(key, level, 'i32', ({ code }) => {
      code.get(below.local);
      for (const { source, local } of own) {
        code
          .get(local)
          .i32(f.strides[source]! * scale)
          .op('i32.mul')
          .op('i32.add');
      }
    });
  }

  /** i32: index of the vector axis times a factor. */
  private scaledIndex(factor: number): Value {
    const axis = this.vectorAxis!;
    if (factor === 1) return { local: axis.local, level: axis.level };
    return this.once(`index * ${factor}`, axis.level, 'i32', ({ code }) => {
      code.get(axis.local).i32(factor).op('i32.mul');
    });
  }

  /** i32x4: index of the vector axis in each lane. */
  private laneIndex(): Value {
    const axis = this.vectorAxis!;
    return this.once('lanes', axis.level, 'v128', (m) => {
      m.code.get(axis.local).op('i32x4.splat');
      if (this.lanes === 4) m.code.get(m.constant([0, 1, 2, 3])).op('i32x4.add');
    });
  }

  private get top(): number {
    return this.sections.length - 1;
  }

  /** i32 local, at the given level or above: the address of element f(index). */
  private byteAddress(pointer: Pointer, f: Affine, level: number): Local {
    return this.addressValue(pointer, f, level).local;
  }

  private addressValue(pointer: Pointer, f: Affine, level = this.top): Value {
    const size = bytesPerElement(pointer.dtype);
    const base = this.partial(f, size, pointer.local, level);
    const stride = this.vectorStride(f);
    if (stride === 0) return base;
    const index = this.scaledIndex(stride * size);
    const at = Math.max(base.level, index.level);
    return this.once(`address ${base.local} ${index.local}`, at, 'i32', ({ code }) => {
      code.get(base.local, index.local).op('i32.add');
    });
  }

  /** i32x4: f(index) in each lane. */
  private affineLanes(f: Affine): Value {
    const base = this.partial(f, 1, null, this.top);
    const splat = this.once(`splat ${base.local}`, base.level, 'v128', ({ code }) => {
      code.get(base.local).op('i32x4.splat');
    });
    const stride = this.vectorStride(f);
    if (stride === 0) return splat;
    const lanes = this.laneIndex();
    const level = Math.max(splat.level, lanes.level);
    return this.once(`lanes ${splat.local} ${stride}`, level, 'v128', (m) => {
      m.code.get(splat.local, lanes.local);
      if (stride !== 1) m.code.get(m.i32(stride)).op('i32x4.mul');
      m.code.op('i32x4.add');
    });
  }

  /** Mask of the lanes in which every guard holds; null where there is none. */
  private inside(guards: readonly Guard[]): Value | null {
    let mask: Value | null = null;
    for (const guard of guards) {
      const index = this.affineLanes(guard);
      const key = `guard ${index.local} ${guard.limit}`;
      // As unsigned numbers, negative indices lie beyond any limit.
      const holds = this.once(key, index.level, 'v128', (m) => {
        m.code.get(index.local, m.i32(guard.limit)).op('i32x4.lt_u');
      });
      mask = mask === null ? holds : this.combine('v128.and', mask, holds);
    }
    return mask;
  }

  private combine(op: 'v128.and', x: Value, y: Value): Value {
    return this.once(`${op} ${x.local} ${y.local}`, Math.max(x.level, y.level), 'v128', ({ code }) => {
      code.get(x.local, y.local).op(op);
    });
  }

  private load(expr: Expr & { kind: 'load' }): Value {
    const pointer = this.bindings[expr.binding]!;
    const { view } = expr;
    const mask = this.inside(view.guards);
    const stride = this.vectorStride(view);
    const size = bytesPerElement(pointer.dtype);
    if (mask && Math.abs(stride) * size * 4 > marginBytes)
      return this.gatherAt(pointer, this.affineLanes(view), mask);
    const address = this.addressValue(pointer, view);
    const level = Math.max(address.level, mask?.level ?? 0);
    const key = `load ${address.local} ${stride} ${mask?.local} ${expr.type}`;
    return this.once(key, level, 'v128', (m) => {
      let from = address.local;
      if (mask) {
        // Where no lane is inside, the address can be anywhere: read the start of the buffer instead.
        from = this.context.fn.local('i32');
        m.code.get(address.local, pointer.local, mask.local).op('v128.any_true').op('select').set(from);
      }
      const read = this.fromStored(m, this.readLanes(m, pointer.dtype, from, stride), pointer.dtype);
      m.code.get(mask ? m.op('v128.and', read, mask.local) : read);
    });
  }

  /** Four elements a stride apart as they are stored, in 32-bit lanes; one element in all lanes if the stride is 0. */
  private readLanes(m: Lanes, dtype: DType, from: Local, stride: number): Local {
    const { code } = m;
    const half = dtype === 'f16';
    const oneLane = stride === 0 || this.lanes === 1;
    if (oneLane && !half) code.get(from).op('v128.load32_splat', 0);
    else if (oneLane) code.get(from).op('i32.load16_u', 0).op('i32x4.splat');
    else if (stride === 1 && !half) code.get(from).op('v128.load', 0);
    else if (stride === 1) code.get(from).op('v128.load64_zero', 0).op('i32x4.extend_low_i16x8_u');
    else {
      const step = stride * bytesPerElement(dtype);
      return m.eachLane((lane) => {
        code
          .get(from)
          .i32(step * lane)
          .op('i32.add')
          .op(half ? 'i32.load16_u' : 'i32.load', 0);
      });
    }
    return m.keep();
  }

  private fromStored(m: Lanes, stored: Local, dtype: DType): Local {
    if (dtype === 'f16') return halfToFloat(m, stored);
    if (dtype === 'bool') return m.op('i32x4.ne', stored, m.i32(0));
    return stored;
  }

  /** Elements at offsets of each lane; 0 where the mask is not set, and then not read. */
  private gatherAt(pointer: Pointer, offsets: Value, mask: Value): Value {
    const level = Math.max(offsets.level, mask.level);
    const shift = bytesPerElement(pointer.dtype) === 2 ? 1 : 2;
    return this.once(`gather ${pointer.local} ${offsets.local} ${mask.local}`, level, 'v128', (m) => {
      const bytes = m.shift('i32x4.shl', m.op('v128.and', offsets.local, mask.local), shift);
      const stored = m.eachLane((lane) => {
        m.code.get(bytes).op('i32x4.extract_lane', lane).get(pointer.local).op('i32.add');
        m.code.op(pointer.dtype === 'f16' ? 'i32.load16_u' : 'i32.load', 0);
      });
      m.code.get(m.op('v128.and', this.fromStored(m, stored, pointer.dtype), mask.local));
    });
  }

  private gather(expr: Expr & { kind: 'gather' }): Value {
    const index = this.value(expr.index);
    const guard = this.inside(expr.view.guards);
    const start = this.affineLanes(expr.view);
    const found = this.apply([index], (m) => m.op('i32x4.lt_u', index.local, m.i32(expr.extent)));
    const offsets = this.apply([index, start], (m) =>
      m.op('i32x4.add', m.op('i32x4.mul', index.local, m.i32(expr.stride)), start.local),
    );
    const mask = guard ? this.combine('v128.and', found, guard) : found;
    const value = this.gatherAt(this.bindings[expr.binding]!, offsets, mask);
    if (expr.type !== 'f32') return value;
    return this.apply(guard ? [value, found, guard] : [value, found], (m) => {
      const missing = m.op('v128.andnot', m.f32(Number.NaN), found.local);
      return m.op('v128.or', value.local, guard ? m.op('v128.and', missing, guard.local) : missing);
    });
  }

  private coordinate(f: Expr & { kind: 'coordinate' }): Value {
    if (f.type !== 'f32') return this.affineLanes(f);
    if ([f.offset, ...f.strides].every(Number.isInteger)) {
      const index = this.affineLanes(f);
      return this.apply([index], (m) => m.op('f32x4.convert_i32x4_s', index.local));
    }
    const start: Value = { local: this.at(0).f32(f.offset), level: 0 };
    return this.axes.reduce((sum, { source, local, level, vector }) => {
      const stride = f.strides[source]!;
      if (stride === 0) return sum;
      const index = vector
        ? this.laneIndex()
        : this.once(`index ${local}`, level, 'v128', ({ code }) => code.get(local).op('i32x4.splat'));
      return this.apply([sum, index], (m) => {
        const term = m.op('f32x4.mul', m.op('f32x4.convert_i32x4_s', index.local), m.f32(stride));
        return m.op('f32x4.add', sum.local, term);
      });
    }, start);
  }

  /** A new value from values, at the deepest of their levels. */
  private apply(operands: readonly Value[], compute: (m: Lanes) => Local): Value {
    const level = Math.max(0, ...operands.map((operand) => operand.level));
    return { local: compute(this.at(level)), level };
  }

  private foldedValue({ fold }: Expr & { kind: 'folded' }): Value {
    const value = this.folded[fold ?? 0];
    if (!value) throw new Error("internal: 'folded' outside an epilogue");
    return value;
  }

  private compute(expr: Expr): Value {
    switch (expr.kind) {
      case 'load':
        return this.load(expr);
      case 'gather':
        return this.gather(expr);
      case 'constant':
        return { local: constantLanes(this.at(0), expr.type, expr.value), level: 0 };
      case 'coordinate':
        return this.coordinate(expr);
      case 'inside':
        return this.inside(expr.guards) ?? { local: this.at(0).i32(-1), level: 0 };
      case 'folded':
        return this.foldedValue(expr);
      case 'unary': {
        const x = this.value(expr.x);
        return this.apply([x], (m) => unaryLanes(m, expr.op, expr.type, x.local));
      }
      case 'binary': {
        const [x, y] = [this.value(expr.x), this.value(expr.y)];
        return this.apply([x, y], (m) => arithmetic(m, expr.op, expr.x.type, x.local, y.local));
      }
      case 'select': {
        const [condition, yes, no] = [this.value(expr.condition), this.value(expr.yes), this.value(expr.no)];
        return this.apply([condition, yes, no], (m) => m.select(condition.local, yes.local, no.local));
      }
      case 'cast': {
        const x = this.value(expr.x);
        return this.apply([x], (m) => castLanes(m, expr.x.type, expr.type, x.local));
      }
      case 'threefry': {
        const parts = [this.value(expr.key0), this.value(expr.key1), this.value(expr.counter)] as const;
        const [key0, key1, counter] = parts;
        return this.apply(parts, (m) => threefry(m, key0.local, key1.local, counter.local));
      }
    }
  }
}

function constantLanes(m: Lanes, type: Scalar, value: number): Local {
  if (type === 'f32') return m.f32(value);
  return m.i32(type === 'bool' ? -Number(value !== 0) : value);
}
