/** Index spaces of generated loops: axes that step evenly in every function of the kernel are merged into one. */
import type { Expr } from '../kernel.ts';
import type { Shape } from '../shape.ts';
import { type Affine, mergeAxes } from '../view.ts';

/** A merged axis: how far it reaches, and the original axis whose strides are its own. */
export interface MergedAxis {
  readonly extent: number;
  /** Which of the groups of axes it belongs to. */
  readonly group: number;
  readonly source: number;
}

/**
 * The axes of an index space, merged within each group (output and reduced axes; batch, m and n), given every affine
 * function over them. Axes of extent 1 vanish.
 */
export function mergeGroups(groups: readonly Shape[], functions: readonly Affine[]): MergedAxis[] {
  let start = 0;
  return groups.flatMap((shape, group) => {
    const from = start;
    start += shape.length;
    const own = functions.map(({ offset, strides }) => ({ offset, strides: strides.slice(from, start) }));
    const merged = mergeAxes(shape, own);
    return merged.kept.map((axes, i) => ({ extent: merged.shape[i]!, group, source: from + axes.at(-1)! }));
  });
}

/** All affine functions of the index in an expression: addresses, guards, coordinates. */
export function affineFunctions(roots: readonly Expr[]): Affine[] {
  const seen = new Set<Expr>();
  const found: Affine[] = [];
  const visit = (expr: Expr): void => {
    if (seen.has(expr)) return;
    seen.add(expr);
    switch (expr.kind) {
      case 'load':
        found.push(expr.view, ...expr.view.guards);
        break;
      case 'gather':
        found.push(expr.view, ...expr.view.guards);
        visit(expr.index);
        break;
      case 'coordinate':
        found.push(expr);
        break;
      case 'inside':
        found.push(...expr.guards);
        break;
      case 'unary':
      case 'cast':
        visit(expr.x);
        break;
      case 'binary':
        visit(expr.x);
        visit(expr.y);
        break;
      case 'select':
        for (const part of [expr.condition, expr.yes, expr.no]) visit(part);
        break;
      case 'threefry':
        for (const part of [expr.key0, expr.key1, expr.counter]) visit(part);
    }
  };
  roots.forEach(visit);
  return found;
}
