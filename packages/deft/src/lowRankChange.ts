/**
 * A change of a weight through few channels: what is written and what is removed.
 *
 *     delta(W0)    = Q A - L T^T W0                       W0 [m, n]   Q, L, T [m, r]   A [r, n]               (1)
 *     apply(x, y0) = (x A^T) Q^T - (y0 T) L^T                                                                 (2)
 *                  = (x A^T - y0 T) Q^T                   where L is Q                                        (3)
 *
 * LoRA writes only, PaRa removes only, DEFT does both. Cost of (3) for each row of x: r (n + 2 m) multiply-adds.
 */
import { cast, matmul, neg, reshape, sub, type Tensor, transpose } from '@deftjs/tensor';
import { type LinearMap, matrixShape } from './linearMap.ts';

/** Q A. */
export interface Written {
  readonly basis: Tensor;
  readonly rows: Tensor;
}

/** L T^T. */
export interface Removed {
  readonly left: Tensor;
  readonly right: Tensor;
}

export interface LowRankChange {
  readonly written: Written | null;
  readonly removed: Removed | null;
  /** Equation (1), in the weight's shape and float32. */
  delta(W0: Tensor): Tensor;
  /** Equation (2): x and y0 as the layer has them, the result like y0. */
  apply(x: Tensor, y0: Tensor, map: LinearMap): Tensor;
}

/** The change that writes, removes or does both: at least one of them is given. */
export function lowRankChange(written: Written | null, removed: Removed | null): LowRankChange {
  // (1) and (2) differ in how r channels come about and how they are spread over the outputs, and in nothing else.
  function combine(
    write: (rows: Tensor) => Tensor,
    remove: (right: Tensor) => Tensor,
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
        (right) => matmul(transpose(right), matrix),
        (channels, columns) => matmul(columns, channels),
      );
      return reshape(change, W0.shape);
    },
    apply: (x, y0, map) =>
      combine(
        (rows) => map.read(x, rows),
        (right) => map.mix(y0, transpose(right)),
        (channels, columns) => map.mix(channels, columns),
      ),
  };
}
