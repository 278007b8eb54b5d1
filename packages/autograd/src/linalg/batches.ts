/** Many small matrices computed in as many kernels as one. */
import { formatShape, narrow, squeeze, stack, type Tensor, type Tree, treeMap } from '@deftjs/tensor';

/**
 * f of each matrix [m, n], where f takes batches [L, m, n], too: all of one shape and type are one batch, and so are their
 * derivatives. A tensor that stands twice in f's value stands twice in every matrix's.
 */
export function inBatches<R extends Tree>(matrices: readonly Tensor[], f: (batch: Tensor) => R): R[] {
  const batches = new Map<string, number[]>();
  matrices.forEach(({ shape, dtype }, i) => {
    const kind = `${dtype}${formatShape(shape)}`;
    batches.set(kind, [...(batches.get(kind) ?? []), i]);
  });
  const results = new Array<R>(matrices.length);
  for (const members of batches.values()) {
    const together = f(stack(members.map((i) => matrices[i]!)));
    members.forEach((member, i) => {
      const entries = new Map<Tensor, Tensor>();
      results[member] = treeMap((x) => {
        const entry = entries.get(x) ?? squeeze(narrow(x, 0, i, 1), 0);
        entries.set(x, entry);
        return entry;
      }, together);
    });
  }
  return results;
}
