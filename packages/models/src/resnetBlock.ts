/** The convolutional parts that UNet and VAE are built of: residual block, down- and upsampling. */
import { Conv2d, GroupNorm, Linear, Module } from '@deftjs/autograd/nn';
import { add, reshape, silu, type Tensor, upsampleNearest } from '@deftjs/tensor';

/**
 * conv(silu(norm(conv(silu(norm(x))) + time))) + x, diffusers' ResnetBlock2D. Where channels change, x passes a 1 x 1
 * convolution first.
 */
export class ResnetBlock2D extends Module {
  readonly norm1: GroupNorm;
  readonly conv1: Conv2d;
  readonly time_emb_proj: Linear | null;
  readonly norm2: GroupNorm;
  readonly conv2: Conv2d;
  readonly conv_shortcut: Conv2d | null;

  /** @param timeWidth the width of the time embedding; null where there is none */
  constructor(
    inChannels: number,
    outChannels: number,
    timeWidth: number | null,
    groups: number,
    eps: number,
  ) {
    super();
    this.norm1 = new GroupNorm(groups, inChannels, eps);
    this.conv1 = new Conv2d(inChannels, outChannels, 3, { padding: 1 });
    this.time_emb_proj = timeWidth === null ? null : new Linear(timeWidth, outChannels);
    this.norm2 = new GroupNorm(groups, outChannels, eps);
    this.conv2 = new Conv2d(outChannels, outChannels, 3, { padding: 1 });
    this.conv_shortcut = inChannels === outChannels ? null : new Conv2d(inChannels, outChannels, 1);
  }

  /** [B, in, H, W], [B, time width] -> [B, out, H, W]. */
  forward(x: Tensor, time: Tensor | null): Tensor {
    let y = this.conv1.forward(silu(this.norm1.forward(x)));
    if (this.time_emb_proj !== null && time !== null) {
      const shift = this.time_emb_proj.forward(silu(time)); // [B, out]
      y = add(y, reshape(shift, [...shift.shape, 1, 1]));
    }
    y = this.conv2.forward(silu(this.norm2.forward(y)));
    return add(this.conv_shortcut?.forward(x) ?? x, y);
  }
}

/** Half the resolution, by a 3 x 3 convolution of stride 2. */
export class Downsample2D extends Module {
  readonly conv: Conv2d;

  constructor(channels: number) {
    super();
    this.conv = new Conv2d(channels, channels, 3, { stride: 2, padding: 1 });
  }

  /** [B, C, H, W] -> [B, C, H / 2, W / 2]. */
  forward(x: Tensor): Tensor {
    return this.conv.forward(x);
  }
}

/** Twice the resolution: every pixel four times, then a 3 x 3 convolution. */
export class Upsample2D extends Module {
  readonly conv: Conv2d;

  constructor(channels: number) {
    super();
    this.conv = new Conv2d(channels, channels, 3, { padding: 1 });
  }

  /** [B, C, H, W] -> [B, C, 2 H, 2 W]. */
  forward(x: Tensor): Tensor {
    return this.conv.forward(upsampleNearest(x, 2));
  }
}
