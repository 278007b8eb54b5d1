/** Scaled dot-product attention (Vaswani et al. 2017, eq. 1): softmax(Q K^T / sqrt(D) + mask) V. */
import { formatShapes, ShapeError } from '../errors.ts';
import type { Tensor } from '../tensor.ts';
import { add, lessEqual, mul, where } from './elementwise.ts';
import { matmul } from './matmul.ts';
import { transpose } from './movement.ts';
import { softmax } from './softmax.ts';
import { iota } from './source.ts';

export interface AttentionOptions {
  /** Default: 1 / sqrt(D). */
  readonly scale?: number;
  /** bool: which keys a query may see; floats: added to the scores. Broadcasts to [B, H, Lq, Lk]. */
  readonly mask?: Tensor | null;
  /** Query i sees keys 0 ... i only. */
  readonly causal?: boolean;
}

/**
 * Attention of query [B, H, Lq, D] over key [B, H, Lk, D] and value [B, H, Lk, E]: [B, H, Lq, E]. A query that may
 * see no key gives NaN.
 * @throws ShapeError
 */
export function attention(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions = {}): Tensor {
  if (query.rank < 2 || key.rank !== query.rank || value.rank !== query.rank) {
    throw new ShapeError('attention: query, key and value must have equally many axes, at least two');
  }
  if (query.shape.at(-1) !== key.shape.at(-1) || key.shape.at(-2) !== value.shape.at(-2)) {
    throw new ShapeError(
      `attention: expected [..., Lq, D], [..., Lk, D] and [..., Lk, E]; got ${formatShapes([query.shape, key.shape, value.shape])}`,
    );
  }
  const scale = options.scale ?? 1 / Math.sqrt(query.shape.at(-1)!);
  const scores = matmul(mul(query, scale), transpose(key)); // [B, H, Lq, Lk]
  const { mask } = options;
  const masked = !mask
    ? scores
    : mask.dtype === 'bool'
      ? where(mask, scores, Number.NEGATIVE_INFINITY)
      : add(scores, mask);
  const size = scores.shape.slice(-2);
  const seen = options.causal
    ? where(lessEqual(iota(size, 1), iota(size, 0)), masked, Number.NEGATIVE_INFINITY)
    : masked;
  return matmul(softmax(seen), value);
}
