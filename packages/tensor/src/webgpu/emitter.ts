/**
 * Expressions to WGSL statements, one `let` for each distinct value.
 *
 * With a quad axis, values that differ between four neighbours are computed as vectors of four, the others once. A
 * value goes into the outermost block where its coordinates are known, so a loop computes only what changes in it.
 */
import { operandsOf, walk } from '../compiler/expression.ts';
import type { BinaryFunction, Expr, Scalar, UnaryFunction } from '../kernel.ts';
import type { Affine, Guard } from '../view.ts';
import { loadOne, loadQuad, zero } from './access.ts';
import type { KernelBindings } from './bindings.ts';
import { type Module, registerType, type Statements } from './module.ts';
import { Point } from './point.ts';

/** A value that the code has computed. */
export interface Value {
  readonly name: string;
  readonly type: Scalar;
  /** Whether it is a vector of four. */
  readonly wide: boolean;
  /** Block of the point where it is known. */
  readonly level: number;
}

type Read = Extract<Expr, { kind: 'load' | 'gather' }>;

const COMPONENTS = ['x', 'y', 'z', 'w'] as const;

export class Emitter {
  readonly #module: Module;
  readonly #bindings: KernelBindings;
  readonly #point: Point;
  readonly #values = new Map<Expr, Value>();
  readonly #folded: readonly Value[];

  /** @param folded the values of `folded` expressions, by fold */
  constructor(module: Module, bindings: KernelBindings, point: Point, folded: readonly Value[] = []) {
    this.#module = module;
    this.#bindings = bindings;
    this.#point = point;
    this.#folded = folded;
  }

  /** The value of an expression at the point. */
  value(root: Expr): Value {
    for (const expr of walk(root)) {
      if (!this.#values.has(expr)) this.#values.set(expr, this.#emit(expr));
    }
    return this.#values.get(root)!;
  }

  /** The name of a value as a vector of four. */
  wide(value: Value): string {
    return value.wide
      ? value.name
      : this.#let(value.level, value.type, true, `${registerType(value.type, true)}(${value.name})`);
  }

  #let(level: number, type: Scalar, wide: boolean, text: string): string {
    return this.#block(level).let(registerType(type, wide), text);
  }

  #block(level: number): Statements {
    return this.#point.blocks[level]!;
  }

  #of(expr: Expr): Value {
    return this.#values.get(expr)!;
  }

  #emit(expr: Expr): Value {
    switch (expr.kind) {
      case 'load':
      case 'gather':
        return this.#read(expr);
      case 'constant':
        return this.#known(expr.type, false, 0, this.#literal(expr.type, expr.value));
      case 'coordinate':
        return this.#coordinate(expr);
      case 'inside': {
        const { text, wide, level } = this.#inside(expr.guards);
        return this.#known('bool', wide, level, text);
      }
      case 'folded':
        return this.#folded[expr.fold ?? 0]!;
      case 'cast':
        return this.#apply(expr, (x, wide) => this.#cast(expr.x.type, expr.type, x!, wide));
      case 'unary':
        return this.#apply(expr, (x, wide) => this.#unary(expr.op, expr.type, x!, wide));
      case 'binary':
        return this.#apply(expr, (x, wide, y) => this.#binary(expr.op, expr.x.type, x!, y!, wide));
      case 'select':
        return this.#apply(expr, (condition, _, yes, no) => `select(${no}, ${yes}, ${condition})`);
      case 'threefry':
        return this.#apply(
          expr,
          (key0, wide, key1, counter) =>
            `${this.#module.call('threefry', wide)}(${key0}, ${key1}, ${counter})`,
        );
    }
  }

  #known(type: Scalar, wide: boolean, level: number, text: string): Value {
    return { name: this.#let(level, type, wide, text), type, wide, level };
  }

  /** A value computed from the names of the operands, brought to one width. */
  #apply(expr: Expr, text: (x: string, wide: boolean, y: string, z: string) => string): Value {
    const operands = operandsOf(expr).map((operand) => this.#of(operand));
    const wide = operands.some((operand) => operand.wide);
    const level = Math.max(...operands.map((operand) => operand.level));
    const [x, y, z] = operands.map((operand) => (wide ? this.wide(operand) : operand.name));
    return this.#known(expr.type, wide, level, text(x!, wide, y ?? '', z ?? ''));
  }

  /** A number in WGSL; as `let` values they are no constant expressions, whose overflow would not compile. */
  #literal(type: Scalar, value: number): string {
    switch (type) {
      case 'bool':
        return value === 0 ? 'false' : 'true';
      case 'i32':
        return `i32(${value | 0})`;
      case 'u32':
        return `${value >>> 0}u`;
      case 'f32': {
        const rounded = Math.fround(value);
        if (Number.isNaN(rounded)) return `${this.#module.call('nan')}()`;
        if (!Number.isFinite(rounded)) return `${rounded < 0 ? '-' : ''}${this.#module.call('infinity')}()`;
        return Object.is(rounded, -0) ? 'bitcast<f32>(0x80000000u)' : `${rounded}f`; // WGSL's -0f is 0
      }
    }
  }

  #coordinate(expr: Extract<Expr, { kind: 'coordinate' }>): Value {
    const { type } = expr;
    const wide = !this.#point.isUniform(expr);
    const whole = [expr.offset, ...expr.strides].every((x) => Number.isInteger(x) && Math.abs(x) < 2 ** 31);
    if (whole || type !== 'f32') {
      const { text, level } = this.#point.affine(expr);
      const four = `vec4i(${text}) + ${this.#point.quadStride(expr) | 0} * vec4i(0, 1, 2, 3)`;
      return this.#known(type, wide, level, `${registerType(type, wide)}(${wide ? four : text})`);
    }
    // Fractional steps: a float for each coordinate.
    const terms = this.#point.coordinates.filter(({ axis }) => expr.strides[axis] !== 0);
    const quad = this.#point.quad;
    const factors = terms.map((term) => {
      const own =
        wide && term.axis === quad?.axis
          ? `(vec4f(f32(${term.name})) + vec4f(0, 1, 2, 3))`
          : `f32(${term.name})`;
      return `${this.#literal('f32', expr.strides[term.axis]!)} * ${own}`;
    });
    const level = Math.max(0, ...terms.map((term) => term.level));
    return this.#known(type, wide, level, [this.#literal('f32', expr.offset), ...factors].join(' + '));
  }

  /** Whether all guards hold; for one element, or for four where they may differ. */
  #inside(guards: readonly Guard[]): { text: string; wide: boolean; level: number } {
    const wide = !this.#point.isUniform(...guards);
    let level = 0;
    const tests = guards.map((guard) => {
      const at = this.#point.affine(guard);
      level = Math.max(level, at.level);
      const stride = this.#point.quadStride(guard);
      if (!wide) return Point.within(at.text, guard.limit);
      return `(vec4u(vec4i(${at.text}) + ${stride} * vec4i(0, 1, 2, 3)) < vec4u(${guard.limit}u))`;
    });
    return { text: tests.length === 0 ? 'true' : tests.join(' & '), wide, level };
  }

  #read(expr: Read): Value {
    const { binding, dtype } = this.#bindings.at(expr.binding);
    const index = expr.kind === 'gather' ? this.#of(expr.index) : null;
    if (expr.kind === 'gather' && expr.extent === 0)
      return this.#known(expr.type, false, 0, this.#outside(expr));
    const affine: readonly Affine[] = [expr.view, ...expr.view.guards];
    const wide = index?.wide || !this.#point.isUniform(...affine);
    if (wide && !binding.quads) {
      const parts = COMPONENTS.map((_, j) => this.#readOne(expr, index, j));
      const level = Math.max(...parts.map((part) => part.level));
      return this.#known(
        expr.type,
        true,
        level,
        `${registerType(expr.type, true)}(${parts.map(({ text }) => text).join(', ')})`,
      );
    }
    const { text, level } = this.#readAt(
      expr,
      index,
      0,
      (address) =>
        wide
          ? loadQuad(this.#module, binding, dtype, address)
          : loadOne(this.#module, binding, dtype, address),
      wide,
    );
    return this.#known(expr.type, wide, level, text);
  }

  #readOne(expr: Read, index: Value | null, j: number) {
    const { binding, dtype } = this.#bindings.at(expr.binding);
    const part = this.#readAt(
      expr,
      index,
      j,
      (address) => loadOne(this.#module, binding, dtype, address),
      false,
    );
    return { ...part, text: this.#let(part.level, expr.type, false, part.text) };
  }

  /** A read of component j, or from component 0 on, with guards and bounds that keep its address in the buffer. */
  #readAt(expr: Read, index: Value | null, j: number, load: (address: string) => string, wide: boolean) {
    const { dtype } = this.#bindings.at(expr.binding);
    let level = index?.level ?? 0;
    const at = (f: Affine): string => {
      const first = this.#point.affine(f);
      level = Math.max(level, first.level);
      const stride = this.#point.quadStride(f);
      if (j === 0 || stride === 0) return first.text;
      level = Math.max(level, this.#point.quad!.level);
      const step = this.#point.component(j);
      return /^\d+$/.test(step) ? `${first.text} + ${stride * j}` : `${first.text} + ${step} * ${stride}`;
    };
    let address = at(expr.view);
    const guards = expr.view.guards.map((guard) => Point.within(at(guard), guard.limit));
    const conditions = [...guards];
    if (expr.kind === 'gather') {
      const position = index!.wide ? `${index!.name}.${COMPONENTS[j]}` : index!.name;
      conditions.push(Point.within(position, expr.extent));
      address = `${address} + i32(${position}) * ${expr.stride}`;
    }
    if (conditions.length === 0) return { text: load(address), level };
    const block = this.#block(level);
    const ok = block.let('bool', conditions.join(' & '));
    const safe = block.let('i32', `select(0, ${address}, ${ok})`);
    if (expr.kind === 'load') return { text: `select(${zero(dtype, wide)}, ${load(safe)}, ${ok})`, level };
    const missing = wide ? `${registerType(expr.type, true)}(${this.#outside(expr)})` : this.#outside(expr);
    const outside =
      guards.length === 0 ? missing : `select(${zero(dtype, wide)}, ${missing}, ${guards.join(' & ')})`;
    return { text: `select(${outside}, ${load(safe)}, ${ok})`, level };
  }

  /** What a gather beyond its table gives. */
  #outside(expr: Read): string {
    return expr.type === 'f32' ? `${this.#module.call('nan')}()` : `${registerType(expr.type, false)}()`;
  }

  #unary(op: UnaryFunction, type: Scalar, x: string, wide: boolean): string {
    switch (op) {
      case 'neg':
        return type === 'u32' ? `~${x} + ${registerType('u32', wide)}(1u)` : `-${x}`;
      case 'sign':
        return type === 'u32' ? `min(${x}, ${registerType(type, wide)}(1u))` : `sign(${x})`;
      case 'bits':
        return `bitcast<${registerType('u32', wide)}>(${x})`;
      case 'not':
        return `!${x}`;
      case 'reciprocal':
        return `1.0 / ${x}`;
      case 'rsqrt':
        return `inverseSqrt(${x})`;
      case 'sin':
      case 'cos':
      case 'tanh':
      case 'erf':
        return `${this.#module.call(`${op}f`, wide)}(${x})`;
      default:
        return `${op}(${x})`;
    }
  }

  #binary(op: BinaryFunction, type: Scalar, x: string, y: string, wide: boolean): string {
    const zeroOf = `${registerType(type, wide)}()`;
    switch (op) {
      case 'max':
      case 'min':
        return `${op}(${x}, ${y})`;
      case 'pow':
        return `${this.#module.call('power', wide)}(${x}, ${y})`;
      case 'div':
        // WGSL's quotient of integers by 0 is x; ops say 0.
        return type === 'f32' ? `${x} / ${y}` : `select(${x} / ${y}, ${zeroOf}, ${y} == ${zeroOf})`;
      case 'notEqual':
        return type === 'f32' ? `!(${x} == ${y})` : `${x} != ${y}`; // WGSL's != may be false for NaN
      case 'shiftLeft':
      case 'shiftRight':
        return `${x} ${infix[op]} ${registerType('u32', wide)}(${y})`;
      case 'xor':
        return type === 'bool' ? `${x} != ${y}` : `${x} ^ ${y}`;
      default:
        return `${x} ${infix[op]} ${y}`;
    }
  }

  #cast(from: Scalar, to: Scalar, x: string, wide: boolean): string {
    if (from === to) return x;
    if (to === 'bool') return `${x} != ${registerType(from, wide)}()`;
    if (from === 'f32' && to === 'i32') return `${this.#module.call('toI32', wide)}(${x})`;
    if (from === 'f32' && to === 'u32') return `${this.#module.call('toU32', wide)}(${x})`;
    return `${registerType(to, wide)}(${x})`;
  }
}

const infix: Readonly<
  Record<Exclude<BinaryFunction, 'max' | 'min' | 'pow' | 'xor' | 'div' | 'notEqual'>, string>
> = {
  add: '+',
  sub: '-',
  mul: '*',
  mod: '%',
  less: '<',
  lessEqual: '<=',
  equal: '==',
  and: '&',
  or: '|',
  shiftLeft: '<<',
  shiftRight: '>>',
};
