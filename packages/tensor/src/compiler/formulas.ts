/** Kernels as formulas, a line for each value that is used more than once: what `explain` shows as their source. */
import type { BinaryFunction, Expr, Kernel } from '../kernel.ts';
import type { Affine } from '../view.ts';
import { outputsOf } from './drafts.ts';
import { operandsOf, walk } from './expression.ts';

const infix: { readonly [op in BinaryFunction]?: string } = {
  add: '+',
  sub: '-',
  mul: '*',
  div: '/',
  mod: '%',
  less: '<',
  lessEqual: '<=',
  equal: '==',
  notEqual: '!=',
  and: '&',
  or: '|',
  xor: '^',
  shiftLeft: '<<',
  shiftRight: '>>',
};

/**
 * The kernel in formulas: b0, b1, ... are its bindings, x0, x1, ... the axes of the index space that an expression is
 * over, f0, f1, ... folds and o0, o1, ... outputs. A load whose guards fail is 0.
 */
export function formulasOf(kernel: Kernel): string[] {
  const writer = new FormulaWriter();
  if (kernel.kind === 'reduce') writer.define('f0', `${kernel.fold} `, kernel.body);
  if (kernel.kind === 'rows') {
    kernel.folds.forEach(({ fold, body }, i) => {
      writer.define(`f${i}`, `${fold} `, body);
    });
  }
  if (kernel.kind === 'contract') {
    const [a, b] = [kernel.a, kernel.b].map(({ binding, view }) => element(binding, view));
    writer.lines.push(`f0 = sum ${a} * ${b}`);
  }
  if (kernel.kind === 'scatter') {
    const { index, values } = kernel;
    writer.lines.push(`f0[x0, b${index.binding}[x1], x2] += b${values.binding}[x0, x1, x2]`);
  }
  outputsOf(kernel).forEach(({ expr }, i) => {
    writer.define(`o${i}`, '', expr);
  });
  return writer.lines;
}

class FormulaWriter {
  readonly lines: string[] = [];
  readonly #names = new Map<Expr, string>();

  /** The line `name = prefix expression`, after lines for what the expression uses more than once. */
  define(name: string, prefix: string, root: Expr): void {
    const uses = new Map<Expr, number>();
    const parts = walk(root);
    for (const operand of parts.flatMap(operandsOf)) uses.set(operand, (uses.get(operand) ?? 0) + 1);
    for (const part of parts) {
      if (operandsOf(part).length === 0 || (uses.get(part) ?? 0) < 2 || this.#names.has(part)) continue;
      const own = `t${this.#names.size}`;
      this.lines.push(`${own} = ${this.#text(part)}`);
      this.#names.set(part, own);
    }
    this.lines.push(`${name} = ${prefix}${this.#of(root)}`);
  }

  #of(expr: Expr): string {
    return this.#names.get(expr) ?? this.#text(expr);
  }

  #text(expr: Expr): string {
    const [x, y, z] = operandsOf(expr).map((operand) => this.#of(operand));
    switch (expr.kind) {
      case 'load':
        return element(expr.binding, expr.view);
      case 'gather':
        return `b${expr.binding}[${affine(expr.view)} + ${expr.stride} ${x}]`;
      case 'constant':
        return Object.is(expr.value, -0) ? '-0' : String(expr.value);
      case 'coordinate':
        return `${expr.type}(${affine(expr)})`;
      case 'inside':
        return expr.guards.map((guard) => `(0 <= ${affine(guard)} < ${guard.limit})`).join(' & ');
      case 'unary':
        return `${expr.op}(${x})`;
      case 'binary':
        return infix[expr.op] ? `(${x} ${infix[expr.op]} ${y})` : `${expr.op}(${x}, ${y})`;
      case 'select':
        return `(${x} ? ${y} : ${z})`;
      case 'cast':
        return `${expr.type}(${x})`;
      case 'threefry':
        return `threefry(${x}, ${y}, ${z})`;
      case 'folded':
        return `f${expr.fold ?? 0}`;
    }
  }
}

function element(binding: number, view: Affine): string {
  return `b${binding}[${affine(view)}]`;
}

/** "4 x0 + x1 + 3". */
function affine({ offset, strides }: Affine): string {
  const terms = strides.flatMap((stride, axis) => {
    if (stride === 0) return [];
    return stride === 1 ? [`x${axis}`] : [`${stride} x${axis}`];
  });
  if (offset !== 0 || terms.length === 0) terms.push(String(offset));
  return terms.join(' + ');
}
