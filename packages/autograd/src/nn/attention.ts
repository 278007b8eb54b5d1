/**
 * Multi-head attention (Vaswani et al. 2017, section 3.2.2), parameters named as in diffusers.
 *
 *   B batch, N tokens, L context tokens, C width, E context width, h heads
 */
import { type AttentionOptions, attention, permute, reshape, ShapeError, type Tensor } from '@deftjs/tensor';
import { Linear } from './layers.ts';
import { Module } from './module.ts';

/** [B, N, C] -> [B, h, N, C / h]. */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [batch, tokens, channels] = x.shape as [number, number, number];
  return permute(reshape(x, [batch, tokens, heads, channels / heads]), [0, 2, 1, 3]);
}

/** [B, h, N, d] -> [B, N, h d]. */
export function joinHeads(x: Tensor): Tensor {
  const [batch, heads, tokens, width] = x.shape as [number, number, number, number];
  return reshape(permute(x, [0, 2, 1, 3]), [batch, tokens, heads * width]);
}

/** Multi-head attention from x over a context: x itself if none is given, else cross-attention. */
export class MultiHeadAttention extends Module {
  readonly heads: number;
  readonly to_q: Linear;
  readonly to_k: Linear;
  readonly to_v: Linear;
  readonly to_out: readonly [Linear];

  /**
   * @param bias whether queries, keys and values have biases; the output has one
   * @throws ShapeError when the heads do not divide the width
   */
  constructor(width: number, contextWidth: number, heads: number, { bias = false } = {}) {
    super();
    if (width % heads !== 0) {
      throw new ShapeError(`multiHeadAttention: a width of ${width} does not divide into ${heads} heads`);
    }
    this.heads = heads;
    this.to_q = new Linear(width, width, { bias });
    this.to_k = new Linear(contextWidth, width, { bias });
    this.to_v = new Linear(contextWidth, width, { bias });
    this.to_out = [new Linear(width, width)];
  }

  /** [B, N, C], [B, L, E] -> [B, N, C]. A mask broadcasts to [B, h, N, L]. */
  forward(x: Tensor, context: Tensor = x, options: Pick<AttentionOptions, 'mask' | 'causal'> = {}): Tensor {
    const query = splitHeads(this.to_q.forward(x), this.heads); // [B, h, N, C / h]
    const key = splitHeads(this.to_k.forward(context), this.heads); // [B, h, L, C / h]
    const value = splitHeads(this.to_v.forward(context), this.heads);
    return this.to_out[0].forward(joinHeads(attention(query, key, value, options)));
  }
}
