/**
 * Expressions while they are built: every distinct expression is one object, simplified, so that equal values are
 * computed once and compared by identity. Bindings name values (node ids) until a kernel is finished.
 */
import type { Expr } from '../kernel.ts';
import { numel, type Shape, sameShape } from '../shape.ts';
import { type Affine, contiguousView, type Guard, isContiguous, reshapeView, type View } from '../view.ts';
import { neverInside, simplify } from './simplify.ts';

export type Load = Extract<Expr, { kind: 'load' }>;
export type Gather = Extract<Expr, { kind: 'gather' }>;

/** A change of index space: a view of the new shape from one of the old, or null where it takes a copy. */
export type ViewMap = (view: View) => View | null;

/** The operands of an expression. */
export function operandsOf(expr: Expr): readonly Expr[] {
  switch (expr.kind) {
    case 'unary':
    case 'cast':
      return [expr.x];
    case 'binary':
      return [expr.x, expr.y];
    case 'select':
      return [expr.condition, expr.yes, expr.no];
    case 'threefry':
      return [expr.key0, expr.key1, expr.counter];
    case 'gather':
      return [expr.index];
    default:
      return [];
  }
}

/** The same operation on other operands, in the order of `operandsOf`. */
export function withOperands(expr: Expr, operands: readonly Expr[]): Expr {
  if (operandsOf(expr).every((operand, i) => operand === operands[i])) return expr;
  const [x, y, z] = operands;
  switch (expr.kind) {
    case 'unary':
    case 'cast':
      return { ...expr, x: x! };
    case 'binary':
      return { ...expr, x: x!, y: y! };
    case 'select':
      return { ...expr, condition: x!, yes: y!, no: z! };
    case 'threefry':
      return { ...expr, key0: x!, key1: y!, counter: z! };
    case 'gather':
      return { ...expr, index: x! };
    default:
      return expr;
  }
}

/** The expressions under some roots, operands before what they are in, each once. */
export function walk(...roots: readonly Expr[]): Expr[] {
  const seen = new Set<Expr>();
  const visit = (expr: Expr): void => {
    if (seen.has(expr)) return;
    for (const operand of operandsOf(expr)) visit(operand);
    seen.add(expr);
  };
  roots.forEach(visit);
  return [...seen];
}

/** The expression with other ones in place of some of its parts. */
export function substituted(root: Expr, others: ReadonlyMap<Expr, Expr>): Expr {
  const done = new Map<Expr, Expr>();
  const visit = (expr: Expr): Expr => {
    const known = done.get(expr) ?? others.get(expr) ?? withOperands(expr, operandsOf(expr).map(visit));
    done.set(expr, known);
    return known;
  };
  return visit(root);
}

/** A function that changes the loads and gathers of expressions, parts that several share once. */
export function mapReads(change: <T extends Load | Gather>(read: T) => T): (root: Expr) => Expr {
  const done = new Map<Expr, Expr>();
  return (root) => {
    for (const expr of walk(root)) {
      if (done.has(expr)) continue;
      const same = withOperands(
        expr,
        operandsOf(expr).map((operand) => done.get(operand)!),
      );
      done.set(expr, same.kind === 'load' || same.kind === 'gather' ? change(same) : same);
    }
    return done.get(root)!;
  };
}

const knownReads = new WeakMap<Expr, readonly (Load | Gather)[]>();

function readsUnder(expr: Expr): readonly (Load | Gather)[] {
  const known = knownReads.get(expr);
  if (known) return known;
  const own = expr.kind === 'load' || expr.kind === 'gather' ? [expr] : [];
  const parts = [...operandsOf(expr).map(readsUnder), own].filter(({ length }) => length > 0);
  const list = parts.length < 2 ? (parts[0] ?? own) : [...new Set(parts.flat())];
  knownReads.set(expr, list);
  return list;
}

/** The loads and gathers under some roots, each once. */
export function readsOf(...roots: readonly Expr[]): readonly (Load | Gather)[] {
  return roots.length === 1 ? readsUnder(roots[0]!) : [...new Set(roots.flatMap(readsUnder))];
}

/** Text that is equal for equal expressions, of operands that have numbers. */
export function exprKey(expr: Expr, idOf: (operand: Expr) => number): string {
  const head = `${expr.kind} ${expr.type} ${operandsOf(expr).map(idOf).join(',')}`;
  switch (expr.kind) {
    case 'load':
      return `${head} ${expr.binding} ${viewKey(expr.view)}`;
    case 'gather':
      return `${head} ${expr.binding} ${viewKey(expr.view)} ${expr.stride} ${expr.extent}`;
    case 'constant':
      return `${head} ${Object.is(expr.value, -0) ? '-0' : expr.value}`;
    case 'coordinate':
      return `${head} ${affineKey(expr)}`;
    case 'inside':
      return `${head} ${expr.guards.map(guardKey).join(';')}`;
    case 'unary':
    case 'binary':
      return `${head} ${expr.op}`;
    case 'folded':
      return `${head} ${expr.fold}`;
    default:
      return head;
  }
}

/** Builds expressions, each distinct one once. */
export class Expressions {
  readonly #known = new Map<string, Expr>();
  readonly #ids = new Map<Expr, number>();

  /** The simplified expression that equals the given one; its operands may be unknown expressions too. */
  of(expr: Expr): Expr {
    if (this.#ids.has(expr)) return expr;
    const operands = operandsOf(expr).map((operand) => this.of(operand));
    const simple = simplify(withOperands(expr, operands));
    if (this.#ids.has(simple)) return simple;
    // Simplifying may have made new operands.
    return this.#intern(
      withOperands(
        simple,
        operandsOf(simple).map((operand) => this.of(operand)),
      ),
    );
  }

  #intern(expr: Expr): Expr {
    const key = exprKey(expr, (operand) => this.#ids.get(operand)!);
    const known = this.#known.get(key);
    if (known) return known;
    this.#known.set(key, expr);
    this.#ids.set(expr, this.#ids.size);
    return expr;
  }

  /** The whole of a value, row-major. */
  load(value: number, type: Load['type'], shape: Shape): Expr {
    return this.of({ kind: 'load', type, binding: value, view: contiguousView(shape) });
  }

  /**
   * The expression, over `shape`, read through a change of index space to another; null where one of its loads cannot
   * follow without a copy. Places where the change's own guards fail (a pad) are 0.
   */
  through(expr: Expr, shape: Shape, map: ViewMap): Expr | null {
    if (expr.kind === 'load') return this.#moveOne(expr, shape, map, new Map());
    const outer = map(contiguousView(shape));
    if (outer === null) return null;
    const moved = this.#move(expr, shape, map, new Map());
    if (moved === null || outer.guards.length === 0) return moved;
    if (readsOf(expr).some((read) => read.kind === 'gather')) return null; // an address past the table
    const zero: Expr = { kind: 'constant', type: expr.type, value: 0 };
    const condition: Expr = { kind: 'inside', type: 'bool', guards: outer.guards };
    return this.of({ kind: 'select', type: expr.type, condition, yes: moved, no: zero });
  }

  /** The expression over another shape of as many elements, in the same row-major order; null where it takes a copy. */
  reshaped(expr: Expr, from: Shape, to: Shape): Expr | null {
    return sameShape(from, to) ? expr : this.through(expr, from, (view) => reshapeView(view, to));
  }

  #move(expr: Expr, shape: Shape, map: ViewMap, done: Map<Expr, Expr | null>): Expr | null {
    const known = done.get(expr);
    if (known !== undefined) return known;
    const moved = this.#moveOne(expr, shape, map, done);
    done.set(expr, moved);
    return moved;
  }

  #moveOne(expr: Expr, shape: Shape, map: ViewMap, done: Map<Expr, Expr | null>): Expr | null {
    const operands: Expr[] = [];
    for (const operand of operandsOf(expr)) {
      const moved = this.#move(operand, shape, map, done);
      if (moved === null) return null;
      operands.push(moved);
    }
    switch (expr.kind) {
      case 'load':
      case 'gather': {
        const view = map(expr.view);
        return view && this.of({ ...withOperands(expr, operands), view } as Load | Gather);
      }
      case 'coordinate': {
        // An affine function of the index follows a change of index as an address does.
        const view = map({ shape, offset: expr.offset, strides: expr.strides, guards: [] });
        return view && this.of({ ...expr, offset: view.offset, strides: view.strides });
      }
      case 'inside': {
        const view = map({ shape, offset: 0, strides: shape.map(() => 0), guards: expr.guards });
        if (view?.guards.some((guard) => neverInside(guard, view.shape))) {
          return this.of({ kind: 'constant', type: 'bool', value: 0 });
        }
        return view && this.of({ ...expr, guards: view.guards });
      }
      default:
        return this.of(withOperands(expr, operands));
    }
  }

  /** The expression with the values that it reads under other names. */
  rename(expr: Expr, name: (value: number) => number): Expr {
    const done = new Map<Expr, Expr>();
    for (const part of walk(expr)) {
      const operands = operandsOf(part).map((operand) => done.get(operand)!);
      const same = withOperands(part, operands);
      const reads = same.kind === 'load' || same.kind === 'gather';
      done.set(part, this.of(reads ? { ...same, binding: name(same.binding) } : same));
    }
    return done.get(expr)!;
  }

  /** The expression with some of the loads replaced. */
  replace(expr: Expr, replacement: (load: Load) => Expr | null): Expr {
    return this.rewrite(expr, (part) => (part.kind === 'load' ? replacement(part) : null));
  }

  /** The expression with some of its parts replaced by others. */
  rewrite(expr: Expr, replacement: (part: Expr) => Expr | null): Expr {
    const done = new Map<Expr, Expr>();
    for (const part of walk(expr)) {
      const other = replacement(part);
      const operands = operandsOf(part).map((operand) => done.get(operand)!);
      done.set(part, other ?? this.of(withOperands(part, operands)));
    }
    return done.get(expr)!;
  }
}

function affineKey({ offset, strides }: Affine): string {
  return `${offset}:${strides.join(',')}`;
}

function guardKey(guard: Guard): string {
  return `${affineKey(guard)}<${guard.limit}`;
}

function viewKey(view: View): string {
  return `${view.shape.join('x')} ${affineKey(view)} ${view.guards.map(guardKey).join(';')}`;
}

/** Whether a read of a value of `length` elements takes each of them at the very place where it is. */
export function isWhole(load: Load, length: number): boolean {
  return isContiguous(load.view) && numel(load.view.shape) === length;
}

/** Whether an expression has one value along all axes from the given one on. */
export function isUniformAlong(root: Expr, start: number): boolean {
  const isConstant = ({ strides }: Affine): boolean => strides.slice(start).every((stride) => stride === 0);
  return walk(root).every((expr) => {
    switch (expr.kind) {
      case 'load':
      case 'gather':
        return isConstant(expr.view) && expr.view.guards.every(isConstant);
      case 'coordinate':
        return isConstant(expr);
      case 'inside':
        return expr.guards.every(isConstant);
      default:
        return true;
    }
  });
}
