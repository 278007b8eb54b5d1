/**
 * AutoencoderKL: between pictures and the latents that Stable Diffusion and FLUX denoise (arXiv 2112.10752, section 3.1).
 *
 * The encoder gives each latent a normal distribution, N(mean, exp(logvar)); the decoder draws a picture of a latent.
 *
 *   B batch, C channels, H W pixels, f = 2^(levels - 1) pixels across one latent, Z latent channels
 */
import { Conv2d, GroupNorm, Module } from '@deftjs/autograd/nn';
import {
  add,
  clamp,
  configReader,
  exp,
  formatShape,
  type JsonConfig,
  mul,
  pad,
  ShapeError,
  silu,
  split,
  sub,
  type Tensor,
  type TensorSource,
} from '@deftjs/tensor';
import { ResnetBlock2D, Upsample2D } from './resnetBlock.ts';
import { Attention, toPixels, toTokens } from './transformer2d.ts';
import { renamed } from './weights.ts';

export interface VaeConfig {
  readonly inChannels: number;
  readonly outChannels: number;
  readonly latentChannels: number;
  /** From the finest resolution to the coarsest. */
  readonly channels: readonly number[];
  readonly resnets: number;
  readonly groups: number;
  readonly attends: boolean;
  readonly quantConv: boolean;
  readonly postQuantConv: boolean;
  /** The network denoises (latent - shift) scale. */
  readonly scale: number;
  readonly shift: number;
}

/** The config, checked. @throws ConfigError */
export function readVaeConfig(json: JsonConfig): VaeConfig {
  const read = configReader('AutoencoderKL', json);
  const down = read.choices('down_block_types', ['DownEncoderBlock2D']);
  const up = read.choices('up_block_types', ['UpDecoderBlock2D']);
  if (down.length === 0) read.refuse('down_block_types', 'expected at least one block');
  if (up.length !== down.length) read.refuse('up_block_types', `expected ${down.length} of them`);
  read.choice('act_fn', ['silu', 'swish'], 'silu');
  read.boolean('force_upcast', true); // to float32, which everything is computed in anyway
  read.only({ latents_mean: null, latents_std: null });
  const config = {
    inChannels: read.count('in_channels', 3),
    outChannels: read.count('out_channels', 3),
    latentChannels: read.count('latent_channels', 4),
    channels: read.counts('block_out_channels', down.length),
    resnets: read.count('layers_per_block', 1),
    groups: read.count('norm_num_groups', 32),
    attends: read.boolean('mid_block_add_attention', true),
    quantConv: read.boolean('use_quant_conv', true),
    postQuantConv: read.boolean('use_post_quant_conv', true),
    scale: read.number('scaling_factor', 0.18215),
    shift: read.number('shift_factor', 0),
  };
  if (config.channels.some((count) => count === 0 || count % config.groups !== 0)) {
    read.refuse('block_out_channels', `expected multiples of norm_num_groups ${config.groups}`);
  }
  read.nothingBut(['sample_size']);
  return config;
}

/** The distribution of the latents of some pictures, both [B, Z, H / f, W / f]. */
export interface Posterior {
  readonly mean: Tensor;
  readonly logvar: Tensor;
}

export class AutoencoderKL extends Module {
  readonly config: VaeConfig;
  readonly encoder: Encoder;
  readonly quant_conv: Conv2d | null;
  readonly post_quant_conv: Conv2d | null;
  readonly decoder: Decoder;

  /**
   * @param json diffusers' config.json
   * @throws ConfigError
   */
  constructor(json: JsonConfig) {
    super();
    const config = readVaeConfig(json);
    const { latentChannels: z } = config;
    this.config = config;
    this.encoder = new Encoder(config);
    this.quant_conv = config.quantConv ? new Conv2d(2 * z, 2 * z, 1) : null;
    this.post_quant_conv = config.postQuantConv ? new Conv2d(z, z, 1) : null;
    this.decoder = new Decoder(config);
  }

  /** Pixels across one latent. */
  get factor(): number {
    return 2 ** (this.config.channels.length - 1);
  }

  /**
   * @param pictures [B, C, H, W] in [-1, 1]
   * @throws ShapeError when H or W is no multiple of `factor`
   */
  encode(pictures: Tensor): Posterior {
    if (pictures.rank !== 4 || pictures.shape.slice(2).some((extent) => extent % this.factor !== 0)) {
      const expected = `[B, ${this.config.inChannels}, H, W] with H and W multiples of ${this.factor}`;
      throw new ShapeError(`vae: expected ${expected}; got ${formatShape(pictures.shape)}`);
    }
    const encoded = this.encoder.forward(pictures);
    const moments = this.quant_conv?.forward(encoded) ?? encoded; // [B, 2 Z, H / f, W / f]
    const [mean, logvar] = split(moments, 2, 1) as [Tensor, Tensor];
    return { mean, logvar: clamp(logvar, -30, 20) };
  }

  /** [B, Z, h, w] -> pictures [B, C, f h, f w], about in [-1, 1]. */
  decode(latents: Tensor): Tensor {
    return this.decoder.forward(this.post_quant_conv?.forward(latents) ?? latents);
  }

  /** Latents as a denoiser knows them, of about unit variance. */
  scale(latents: Tensor): Tensor {
    return mul(sub(latents, this.config.shift), this.config.scale);
  }

  /** The inverse of `scale`. */
  unscale(latents: Tensor): Tensor {
    return add(mul(latents, 1 / this.config.scale), this.config.shift);
  }
}

/** Latents drawn from their distribution: mean + exp(logvar / 2) noise, with noise standard normal. */
export function drawLatents({ mean, logvar }: Posterior, noise: Tensor): Tensor {
  return add(mean, mul(exp(mul(logvar, 0.5)), noise));
}

/** The tensors of an AutoencoderKL file under the names that the model has, whichever version wrote it. */
export function vaeWeights(source: TensorSource): TensorSource {
  const now = { query: 'to_q', key: 'to_k', value: 'to_v', proj_attn: 'to_out.0' };
  const before = /(?<=\.attentions\.\d+\.)(query|key|value|proj_attn)(?=\.)/;
  return renamed(source, (name) => name.replace(before, (old) => now[old as keyof typeof now]));
}

/** Every layer of the autoencoder normalises with this epsilon. */
const eps = 1e-6;

function resnets(count: number, inChannels: number, channels: number, groups: number): ResnetBlock2D[] {
  return Array.from(
    { length: count },
    (_, i) => new ResnetBlock2D(i === 0 ? inChannels : channels, channels, null, groups, eps),
  );
}

class Encoder extends Module {
  readonly conv_in: Conv2d;
  readonly down_blocks: readonly DownEncoderBlock2D[];
  readonly mid_block: UNetMidBlock2D;
  readonly conv_norm_out: GroupNorm;
  readonly conv_out: Conv2d;

  constructor({ inChannels, latentChannels, channels, resnets: count, groups, attends }: VaeConfig) {
    super();
    const last = channels.at(-1)!;
    this.conv_in = new Conv2d(inChannels, channels[0]!, 3, { padding: 1 });
    this.down_blocks = channels.map(
      (width, i) =>
        new DownEncoderBlock2D(
          resnets(count, channels[i - 1] ?? width, width, groups),
          i < channels.length - 1 ? width : null,
        ),
    );
    this.mid_block = new UNetMidBlock2D(last, groups, attends);
    this.conv_norm_out = new GroupNorm(groups, last, eps);
    this.conv_out = new Conv2d(last, 2 * latentChannels, 3, { padding: 1 });
  }

  /** [B, C, H, W] -> [B, 2 Z, H / f, W / f]. */
  forward(pictures: Tensor): Tensor {
    let x = this.conv_in.forward(pictures);
    for (const block of this.down_blocks) x = block.forward(x);
    x = this.mid_block.forward(x);
    return this.conv_out.forward(silu(this.conv_norm_out.forward(x)));
  }
}

class Decoder extends Module {
  readonly conv_in: Conv2d;
  readonly mid_block: UNetMidBlock2D;
  readonly up_blocks: readonly UpDecoderBlock2D[];
  readonly conv_norm_out: GroupNorm;
  readonly conv_out: Conv2d;

  constructor({ outChannels, latentChannels, channels, resnets: count, groups, attends }: VaeConfig) {
    super();
    const upwards = channels.toReversed();
    this.conv_in = new Conv2d(latentChannels, upwards[0]!, 3, { padding: 1 });
    this.mid_block = new UNetMidBlock2D(upwards[0]!, groups, attends);
    this.up_blocks = upwards.map(
      (width, i) =>
        new UpDecoderBlock2D(
          resnets(count + 1, upwards[i - 1] ?? width, width, groups),
          i < upwards.length - 1 ? width : null,
        ),
    );
    this.conv_norm_out = new GroupNorm(groups, channels[0]!, eps);
    this.conv_out = new Conv2d(channels[0]!, outChannels, 3, { padding: 1 });
  }

  /** [B, Z, h, w] -> [B, C, f h, f w]. */
  forward(latents: Tensor): Tensor {
    let x = this.mid_block.forward(this.conv_in.forward(latents));
    for (const block of this.up_blocks) x = block.forward(x);
    return this.conv_out.forward(silu(this.conv_norm_out.forward(x)));
  }
}

class DownEncoderBlock2D extends Module {
  readonly resnets: readonly ResnetBlock2D[];
  readonly downsamplers: readonly EvenDownsample2D[];

  constructor(blocks: readonly ResnetBlock2D[], downsampled: number | null) {
    super();
    this.resnets = blocks;
    this.downsamplers = downsampled === null ? [] : [new EvenDownsample2D(downsampled)];
  }

  forward(x: Tensor): Tensor {
    const y = this.resnets.reduce((before, block) => block.forward(before, null), x);
    return this.downsamplers[0]?.forward(y) ?? y;
  }
}

/** Half the resolution by a 3 x 3 convolution that sees one row and one column beyond the end, none before the start. */
class EvenDownsample2D extends Module {
  readonly conv: Conv2d;

  constructor(channels: number) {
    super();
    this.conv = new Conv2d(channels, channels, 3, { stride: 2 });
  }

  /** [B, C, H, W] -> [B, C, H / 2, W / 2]. */
  forward(x: Tensor): Tensor {
    return this.conv.forward(
      pad(x, [
        [0, 0],
        [0, 0],
        [0, 1],
        [0, 1],
      ]),
    );
  }
}

class UpDecoderBlock2D extends Module {
  readonly resnets: readonly ResnetBlock2D[];
  readonly upsamplers: readonly Upsample2D[];

  constructor(blocks: readonly ResnetBlock2D[], upsampled: number | null) {
    super();
    this.resnets = blocks;
    this.upsamplers = upsampled === null ? [] : [new Upsample2D(upsampled)];
  }

  forward(x: Tensor): Tensor {
    const y = this.resnets.reduce((before, block) => block.forward(before, null), x);
    return this.upsamplers[0]?.forward(y) ?? y;
  }
}

/** Residual, attention among all pixels, residual. */
class UNetMidBlock2D extends Module {
  readonly resnets: readonly [ResnetBlock2D, ResnetBlock2D];
  readonly attentions: readonly PixelAttention[];

  constructor(channels: number, groups: number, attends: boolean) {
    super();
    const block = () => new ResnetBlock2D(channels, channels, null, groups, eps);
    this.resnets = [block(), block()];
    this.attentions = attends ? [new PixelAttention(channels, groups)] : [];
  }

  forward(x: Tensor): Tensor {
    const before = this.resnets[0].forward(x, null);
    return this.resnets[1].forward(this.attentions[0]?.forward(before) ?? before, null);
  }
}

/** x + attention(norm(x)): one head, every pixel sees every pixel. */
class PixelAttention extends Attention {
  readonly group_norm: GroupNorm;

  constructor(channels: number, groups: number) {
    super(channels, channels, 1, { bias: true });
    this.group_norm = new GroupNorm(groups, channels, eps);
  }

  /** [B, C, H, W] -> [B, C, H, W]. */
  override forward(x: Tensor): Tensor {
    const [, , height, width] = x.shape as [number, number, number, number];
    const tokens = super.forward(toTokens(this.group_norm.forward(x))); // [B, HW, C]
    return add(x, toPixels(tokens, height, width));
  }
}
