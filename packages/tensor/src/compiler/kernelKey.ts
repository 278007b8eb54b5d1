/** Text that is equal for kernels that one piece of code computes, on buffers of their own. */
import type { Expr, Kernel } from '../kernel.ts';
import { expressionsOf } from './drafts.ts';
import { exprKey, walk } from './expression.ts';

/**
 * The key of a kernel of a plan: all of it but its label and which buffers it touches, of which it has the types, the
 * lengths and which are the same.
 * @param lengthOf elements of a buffer of the plan
 */
export function kernelKey(kernel: Kernel, lengthOf: (buffer: number) => number): string {
  const ids = new Map<Expr, number>();
  const buffers = new Map<number, string>();
  let text = '';
  for (const expr of walk(...expressionsOf(kernel))) {
    text += `${exprKey(expr, (operand) => ids.get(operand)!)};`;
    ids.set(expr, ids.size);
  }
  const rest = JSON.stringify(kernel, (field, value) => {
    if (field === 'label') return undefined;
    if (field === 'buffer') {
      const known = buffers.get(value) ?? `${buffers.size} of ${lengthOf(value)}`;
      buffers.set(value, known);
      return known;
    }
    return ids.get(value) ?? value;
  });
  return text + rest;
}
