/**
 * A change of a weight through few channels: what is written and what is removed.
 *
 *     delta(W0)    = Q A - L T^T W0                       W0 [m, n]   Q, L, T [m, r]   A [r, n]               (1)
 *     apply(x, y0) = (x A^T) Q^T - (y0 T) L^T                                                                 (2)
 *                  = (x A^T - y0 T) Q^T                   where L is Q                                        (3)
 *
 * LoRA writes only, PaRa removes only, DEFT does both. Cost of (3) for each row of x: r (n + 2 m) multiply-adds. T may be
 * the identity: then L is m x m.
 */
import { cast, matmul, neg, reshape, sub, type Tensor, transpose } from '@deftjs/tensor';
import { matrixShape } from './linearMap.ts';
import type { WeightChange } from './parametrization.ts';

/** Q A. */
export interface Written {
  readonly basis: Tensor;
  readonly rows: Tensor;
}

/** L T^T, T null for the identity. */
export interface Removed {
  readonly left: Tensor;
  readonly right: Tensor | null;
}

export interface LowRankChange extends WeightChange {
  readonly written: Written | null;
  readonly removed: Removed | null;
}

/** The change that writes, removes or does both: at least one of them is given. */
export function lowRankChange(written: Written | null, removed: Removed | null): LowRankChange {
  // (1) and (2) differ in how r channels come about and how they are spread over the outputs, and in nothing else.
  function combine(
    write: (rows: Tensor) => Tensor,
    remove: (right: Tensor | null) => Tensor,
    spread: (channels: Tensor, columns: Tensor) => Tensor,
  ): Tensor {
    if (!removed) return spread(write(written!.rows), written!.basis);
    const taken = remove(removed.right);
    if (!written) return neg(spread(taken, removed.left));
    const put = write(written.rows);
    if (written.basis === removed.left) return spread(sub(put, taken), written.basis); // (3)
    return sub(spread(put, written.basis), spread(taken, removed.left));
  }
  return {
    written,
    removed,
    delta(W0) {
      const matrix = reshape(cast(W0, 'f32'), matrixShape(W0.shape));
      const change = combine(
        (rows) => rows,
        (right) => (right ? matmul(transpose(right), matrix) : matrix),
        (channels, columns) => matmul(columns, channels),
      );
      return reshape(change, W0.shape);
    },
    apply: (x, y0, map) =>
      combine(
        (rows) => map.read(x, rows),
        (right) => (right ? map.mix(y0, transpose(right)) : y0),
        (channels, columns) => map.mix(channels, columns),
      ),
    tensors: [
      ...(written ? [written.basis, written.rows] : []),
      ...(removed ? [removed.left, ...(removed.right ? [removed.right] : [])] : []),
    ],
  };
}
