/**
 * What an expression costs per element, in units of one element read from memory.
 *
 * Kept in a buffer, a value that u kernels use costs f + c + 1 + u: its f reads and its arithmetic c once, one write
 * and u reads. Evaluated again in every kernel it costs u (f + c). The constants are rough: an exponential takes about
 * as long as a read on one core with SIMD and less on a GPU.
 */
import type { BinaryFunction, Expr, UnaryFunction } from '../kernel.ts';
import { numel } from '../shape.ts';
import { readsOf, walk } from './expression.ts';

const unaryCosts: { readonly [op in UnaryFunction]?: number } = {
  exp: 1,
  log: 1,
  sin: 1,
  cos: 1,
  tanh: 1.5,
  erf: 1.5,
  sqrt: 0.3,
  rsqrt: 0.3,
  reciprocal: 0.2,
};
const binaryCosts: { readonly [op in BinaryFunction]?: number } = { pow: 2, div: 0.2, mod: 0.3 };
const cheapCost = 0.05;

function costOf(expr: Expr): number {
  switch (expr.kind) {
    case 'unary':
      return unaryCosts[expr.op] ?? cheapCost;
    case 'binary':
      return binaryCosts[expr.op] ?? cheapCost;
    case 'threefry':
      return 4;
    case 'constant':
    case 'load':
    case 'folded':
      return 0;
    default:
      return cheapCost;
  }
}

/** Arithmetic per element. */
export function arithmeticOf(expr: Expr): number {
  return walk(expr).reduce((sum, part) => sum + costOf(part), 0);
}

/** Elements read per element computed; what is repeated along an axis comes from a cache. */
export function trafficOf(expr: Expr): number {
  return readsOf(expr).reduce((sum, { kind, view: { shape, strides } }) => {
    const distinct = shape.reduce(
      (product, extent, axis) => (strides[axis] === 0 ? product : product * extent),
      1,
    );
    return sum + (kind === 'gather' ? 1 : distinct / numel(shape));
  }, 0);
}

/** Starting a kernel takes as long as reading about so many elements. */
const launchCost = 4096;

/** Whether a value of `length` elements is better kept in a buffer than evaluated in each of `users` kernels. */
export function isWorthKeeping(expr: Expr, length: number, users: number): boolean {
  const once = trafficOf(expr) + arithmeticOf(expr);
  return length * (once + 1 + users) + launchCost < length * users * once;
}

/** Whether a value is better kept in a buffer than evaluated `repetitions` times more. */
export function isWorthKeepingBefore(expr: Expr, repetitions: number): boolean {
  return repetitions * arithmeticOf(expr) > launchCost;
}
