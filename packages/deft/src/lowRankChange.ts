/**
 * A change of a weight through few channels: what is written and what is removed.
 *
 *     delta(W0)    = Q A - L T^T W0                       W0 [m, n]   Q, L, T [m, r]   A [r, n]               (1)
 *     apply(x, y0) = (x A^T) Q^T - (y0 T) L^T                                                                 (2)
 *                  = (x A^T - y0 T) Q^T                   where L is Q                                        (3)
 *                  = (x (A - T^T W0)^T) Q^T               for many rows of x                                  (4)
 *
 * LoRA writes only, PaRa removes only, DEFT does both. Cost of (3) for each row of x: r (n + 2 m) multiply-adds, and y0 is
 * kept for the derivative by T. (4) costs r (n + m) as LoRA does and r m n once, and keeps what LoRA keeps and r x n numbers: it
 * is taken from n rows on. T may be the identity: then L is m x m.
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
  /** By what reads and removes as one [r, n]: A - T^T W0. */
  const folded = (W0: Tensor, spread: (rows: Tensor, columns: Tensor) => Tensor): Tensor =>
    combine(
      (rows) => rows,
      (right) => (right ? matmul(transpose(right), W0) : W0),
      spread,
    );
  return {
    written,
    removed,
    delta(W0) {
      const matrix = reshape(cast(W0, 'f32'), matrixShape(W0.shape));
      return reshape(
        folded(matrix, (rows, columns) => matmul(columns, rows)),
        W0.shape,
      );
    },
    apply(x, y0, map) {
      const { weight } = map;
      const [m, n] = weight?.shape ?? [];
      if (weight && removed?.right && y0.size / m! >= n!) {
        return folded(weight, (rows, columns) => map.mix(map.read(x, rows), columns)); // (4)
      }
      return combine(
        (rows) => map.read(x, rows),
        (right) => (right ? map.mix(y0, transpose(right)) : y0),
        (channels, columns) => map.mix(channels, columns),
      );
    },
    tensors: [
      ...(written ? [written.basis, written.rows] : []),
      ...(removed ? [removed.left, ...(removed.right ? [removed.right] : [])] : []),
    ],
  };
}
