/**
 * A change of a weight through few channels: what is written and what is removed.
 *
 *     delta(W0)    = Q A - L T^T W0                       W0 [m, n]   Q, L, T [m, r]   A [r, n]               (1)
 *     apply(x, y0) = (x A^T) Q^T - (y0 T) L^T                                                                 (2)
 *                  = (x A^T - y0 T) Q^T                   where L is Q                                        (3)
 *     c = -y0 T:     T- = -y0^T c- = -W0 (c-^T x)^T       since y0 = x W0^T                                   (4)
 *
 * LoRA writes only, PaRa removes only, DEFT does both. Cost of (3) for each row of x: r (n + 2 m) multiply-adds. By the right
 * side of (4) no y0 is kept for the derivative, and c-^T x is the derivative of A by (3): a step keeps what one of LoRA keeps,
 * and factors r x n. It takes r m n multiply-adds once in place of r m for each of b rows, which is r / b of the layer's own b m n:
 * not worth it for few rows. T may be the identity: then L is m x m.
 */
import { customVjp, vjp } from '@deftjs/autograd';
import { add, cast, matmul, neg, reshape, type Tensor, transpose, zeros } from '@deftjs/tensor';
import { type LinearMap, matrixShape } from './linearMap.ts';
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

/** Rows of x, relative to n, from which on the memory of y0 is worth the right side of (4). */
const fewRows = 1 / 8;

/** c of (4). */
function taken(x: Tensor, y0: Tensor, T: Tensor, map: LinearMap): Tensor {
  const { weight } = map;
  const c = (y: Tensor, right: Tensor): Tensor => neg(map.mix(y, transpose(right)));
  const [m, n] = weight?.shape ?? [];
  if (!weight || y0.size / m! < fewRows * n!) return c(y0, T);
  const thrifty = customVjp(
    (y, right) => c(y!, right!),
    (dc, _c, _y, right, input, W0) => {
      const none = zeros([right!.shape[1]!, n!]);
      const dA = vjp<[Tensor], Tensor>((A) => map.read(input!, A), none).pullback(dc)[0];
      return [c(dc, transpose(right!)), neg(matmul(W0!, transpose(dA))), null, null];
    },
  );
  return thrifty(y0, T, x, weight);
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
    const lost = remove(removed.right);
    if (!written) return spread(lost, removed.left);
    const put = write(written.rows);
    if (written.basis === removed.left) return spread(add(put, lost), written.basis); // (3)
    return add(spread(put, written.basis), spread(lost, removed.left));
  }
  return {
    written,
    removed,
    delta(W0) {
      const matrix = reshape(cast(W0, 'f32'), matrixShape(W0.shape));
      const change = combine(
        (rows) => rows,
        (right) => neg(right ? matmul(transpose(right), matrix) : matrix),
        (channels, columns) => matmul(columns, channels),
      );
      return reshape(change, W0.shape);
    },
    apply: (x, y0, map) =>
      combine(
        (rows) => map.read(x, rows),
        (right) => (right ? taken(x, y0, right, map) : neg(y0)),
        (channels, columns) => map.mix(channels, columns),
      ),
    tensors: [
      ...(written ? [written.basis, written.rows] : []),
      ...(removed ? [removed.left, ...(removed.right ? [removed.right] : [])] : []),
    ],
  };
}
