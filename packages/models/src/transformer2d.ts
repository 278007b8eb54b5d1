/**
 * The transformer inside the UNet (diffusers' Transformer2DModel): pixels attend to each other and to the context.
 *
 *   B batch, C channels, H W pixels, L context tokens, E context width, h heads, d = C / h head width
 */
import { Conv2d, GroupNorm, LayerNorm, Linear, Module, MultiHeadAttention } from '@deftjs/autograd/nn';
import { add, permute, reshape, type Tensor } from '@deftjs/tensor';
import { FeedForward } from './feedForward.ts';

export { joinHeads, MultiHeadAttention as Attention, splitHeads } from '@deftjs/autograd/nn';

class BasicTransformerBlock extends Module {
  readonly norm1: LayerNorm;
  readonly attn1: MultiHeadAttention;
  readonly norm2: LayerNorm;
  readonly attn2: MultiHeadAttention;
  readonly norm3: LayerNorm;
  readonly ff: FeedForward;

  constructor(channels: number, contextWidth: number, heads: number) {
    super();
    this.norm1 = new LayerNorm(channels);
    this.attn1 = new MultiHeadAttention(channels, channels, heads);
    this.norm2 = new LayerNorm(channels);
    this.attn2 = new MultiHeadAttention(channels, contextWidth, heads);
    this.norm3 = new LayerNorm(channels);
    this.ff = new FeedForward(channels, 'geglu');
  }

  /** [B, HW, C], [B, L, E] -> [B, HW, C]. */
  forward(x: Tensor, context: Tensor): Tensor {
    const self = add(x, this.attn1.forward(this.norm1.forward(x)));
    const cross = add(self, this.attn2.forward(this.norm2.forward(self), context));
    return add(cross, this.ff.forward(this.norm3.forward(cross)));
  }
}

export interface Transformer2DConfig {
  readonly channels: number;
  readonly contextWidth: number;
  readonly heads: number;
  readonly layers: number;
  readonly groups: number;
  /** Whether pixels are projected as tokens by a linear layer, or before that by a 1 x 1 convolution. */
  readonly linearProjection: boolean;
}

export class Transformer2DModel extends Module {
  readonly norm: GroupNorm;
  readonly proj_in: Conv2d | Linear;
  readonly transformer_blocks: readonly BasicTransformerBlock[];
  readonly proj_out: Conv2d | Linear;

  constructor({ channels, contextWidth, heads, layers, groups, linearProjection }: Transformer2DConfig) {
    super();
    const projection = () =>
      linearProjection ? new Linear(channels, channels) : new Conv2d(channels, channels, 1);
    this.norm = new GroupNorm(groups, channels, 1e-6);
    this.proj_in = projection();
    this.transformer_blocks = Array.from(
      { length: layers },
      () => new BasicTransformerBlock(channels, contextWidth, heads),
    );
    this.proj_out = projection();
  }

  /** [B, C, H, W], [B, L, E] -> [B, C, H, W]. */
  forward(x: Tensor, context: Tensor): Tensor {
    const [, , height, width] = x.shape as [number, number, number, number];
    const normed = this.norm.forward(x);
    let tokens =
      this.proj_in instanceof Linear
        ? this.proj_in.forward(toTokens(normed))
        : toTokens(this.proj_in.forward(normed)); // [B, HW, C]
    for (const block of this.transformer_blocks) tokens = block.forward(tokens, context);
    const y =
      this.proj_out instanceof Linear
        ? toPixels(this.proj_out.forward(tokens), height, width)
        : this.proj_out.forward(toPixels(tokens, height, width)); // [B, C, H, W]
    return add(y, x);
  }
}

/** [B, C, H, W] -> [B, HW, C]. */
export function toTokens(x: Tensor): Tensor {
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  return permute(reshape(x, [batch, channels, height * width]), [0, 2, 1]);
}

/** [B, HW, C] -> [B, C, H, W]. */
export function toPixels(x: Tensor, height: number, width: number): Tensor {
  const [batch, , channels] = x.shape as [number, number, number];
  return reshape(permute(x, [0, 2, 1]), [batch, channels, height, width]);
}
