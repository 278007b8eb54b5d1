/**
 * UNet2DConditionModel: the denoiser of Stable Diffusion 1.x, 2.x and XL (arXiv 2112.10752, 2307.01952).
 *
 * Down the resolutions, through the middle, up again; each up block sees what the down block of its resolution left
 * behind. Fields are named as in diffusers, so that paths of parameters are the keys of its checkpoints.
 *
 *   B batch, C channels, H W pixels, L context tokens, E context width, T = 4 C_0 time width
 */
import { Conv2d, GroupNorm, Module, timestepEmbedding } from '@deftjs/autograd/nn';
import {
  add,
  concat,
  formatShape,
  type JsonConfig,
  reshape,
  ShapeError,
  silu,
  type Tensor,
} from '@deftjs/tensor';
import { Downsample2D, ResnetBlock2D, Upsample2D } from './resnetBlock.ts';
import { TimestepEmbedding } from './timestepEmbedding.ts';
import { Transformer2DModel } from './transformer2d.ts';
import { readUNetConfig, type UNetConfig, type UNetLevel } from './unetConfig.ts';

/** SDXL's conditions beside the context. */
export interface AddedConditions {
  /** The pooled text embedding [B, P]. */
  readonly textEmbeds: Tensor;
  /** Original size, crop offset and target size [B, 6], in pixels. */
  readonly timeIds: Tensor;
}

export class UNet2DConditionModel extends Module {
  readonly config: UNetConfig;
  readonly conv_in: Conv2d;
  readonly time_embedding: TimestepEmbedding;
  readonly add_embedding: TimestepEmbedding | null;
  readonly down_blocks: readonly DownBlock2D[];
  readonly mid_block: UNetMidBlock2D;
  readonly up_blocks: readonly UpBlock2D[];
  readonly conv_norm_out: GroupNorm;
  readonly conv_out: Conv2d;

  /**
   * @param json diffusers' config.json
   * @throws ConfigError
   */
  constructor(json: JsonConfig) {
    super();
    const config = readUNetConfig(json);
    const { levels, groups, eps, textTime } = config;
    const widths = levels.map(({ channels }) => channels);
    const timeWidth = 4 * widths[0]!;
    this.config = config;
    this.conv_in = new Conv2d(config.inChannels, widths[0]!, config.convInKernel, {
      padding: (config.convInKernel - 1) / 2,
    });
    this.time_embedding = new TimestepEmbedding(widths[0]!, timeWidth);
    this.add_embedding = textTime && new TimestepEmbedding(textTime.inputWidth, timeWidth);
    this.down_blocks = levels.map(
      (level, i) =>
        new DownBlock2D(config, level, widths[i - 1] ?? widths[0]!, {
          timeWidth,
          attends: config.downAttention[i]!,
          downsamples: i < levels.length - 1,
        }),
    );
    this.mid_block = new UNetMidBlock2D(config, levels.at(-1)!, timeWidth);
    this.up_blocks = levels.toReversed().map((level, i) => {
      const resolution = levels.length - 1 - i;
      return new UpBlock2D(config, level, {
        inChannels: widths[resolution + 1] ?? widths.at(-1)!,
        skipChannels: widths[resolution - 1] ?? widths[0]!,
        timeWidth,
        attends: config.upAttention[i]!,
        upsamples: resolution > 0,
      });
    });
    this.conv_norm_out = new GroupNorm(groups, widths[0]!, eps);
    this.conv_out = new Conv2d(widths[0]!, config.outChannels, config.convOutKernel, {
      padding: (config.convOutKernel - 1) / 2,
    });
  }

  /**
   * The network's prediction for noisy samples, shaped like them.
   *
   * @param sample [B, C, H, W]
   * @param timesteps [B], i32 or f32
   * @param context [B, L, E]
   * @param added what a text_time config needs, and only that
   * @throws ShapeError when H or W does not halve as often as there are downsamplers
   */
  forward(sample: Tensor, timesteps: Tensor, context: Tensor, added?: AddedConditions): Tensor {
    this.expectHalvings(sample);
    const time = this.embedTime(timesteps, added); // [B, T]
    let x = this.conv_in.forward(sample);
    const skips = [x];
    for (const block of this.down_blocks) {
      const outputs = block.forward(x, time, context);
      skips.push(...outputs);
      x = outputs.at(-1)!;
    }
    x = this.mid_block.forward(x, time, context);
    for (const block of this.up_blocks) {
      x = block.forward(x, skips.splice(-block.resnets.length), time, context);
    }
    return this.conv_out.forward(silu(this.conv_norm_out.forward(x)));
  }

  /** [B] -> [B, T]. */
  private embedTime(timesteps: Tensor, added: AddedConditions | undefined): Tensor {
    const { flipSinToCos, frequencyShift, levels, textTime } = this.config;
    const waves = (t: Tensor, width: number) => timestepEmbedding(t, width, { flipSinToCos, frequencyShift });
    const time = this.time_embedding.forward(waves(timesteps, levels[0]!.channels));
    if ((textTime === null) !== (added === undefined)) {
      const expected = textTime === null ? 'no added conditions' : 'added conditions textEmbeds and timeIds';
      throw new Error(`unet: expected ${expected} for this config`);
    }
    if (textTime === null || added === undefined || this.add_embedding === null) return time;
    const { textEmbeds, timeIds } = added;
    const batch = timeIds.shape[0]!;
    const ids = reshape(waves(reshape(timeIds, [timeIds.size]), textTime.timeWidth), [batch, -1]); // [B, 6 width]
    return add(time, this.add_embedding.forward(concat([textEmbeds, ids], 1)));
  }

  private expectHalvings(sample: Tensor): void {
    const factor = 2 ** (this.down_blocks.length - 1);
    if (sample.rank !== 4 || sample.shape.slice(2).some((extent) => extent % factor !== 0)) {
      const { inChannels } = this.config;
      throw new ShapeError(
        `unet: expected [B, ${inChannels}, H, W] with H and W multiples of ${factor}; got ${formatShape(sample.shape)}`,
      );
    }
  }
}

function transformer(config: UNetConfig, level: UNetLevel): Transformer2DModel {
  return new Transformer2DModel({
    channels: level.channels,
    contextWidth: level.contextWidth,
    heads: level.heads,
    layers: level.transformerLayers,
    groups: config.groups,
    linearProjection: config.linearProjection,
  });
}

/** DownBlock2D, and with attention CrossAttnDownBlock2D. */
class DownBlock2D extends Module {
  readonly resnets: readonly ResnetBlock2D[];
  readonly attentions: readonly Transformer2DModel[];
  readonly downsamplers: readonly Downsample2D[];

  constructor(
    config: UNetConfig,
    level: UNetLevel,
    inChannels: number,
    { timeWidth, attends, downsamples }: { timeWidth: number; attends: boolean; downsamples: boolean },
  ) {
    super();
    const { channels, resnets } = level;
    const { groups, eps } = config;
    this.resnets = Array.from(
      { length: resnets },
      (_, i) => new ResnetBlock2D(i === 0 ? inChannels : channels, channels, timeWidth, groups, eps),
    );
    this.attentions = attends ? this.resnets.map(() => transformer(config, level)) : [];
    this.downsamplers = downsamples ? [new Downsample2D(channels)] : [];
  }

  /** [B, in, H, W] -> what each layer leaves behind; the last of it is what the next block gets. */
  forward(x: Tensor, time: Tensor, context: Tensor): Tensor[] {
    const outputs: Tensor[] = [];
    let y = x;
    for (const [i, resnet] of this.resnets.entries()) {
      y = resnet.forward(y, time);
      y = this.attentions[i]?.forward(y, context) ?? y;
      outputs.push(y);
    }
    for (const downsampler of this.downsamplers) outputs.push(downsampler.forward(y)); // [B, C, H / 2, W / 2]
    return outputs;
  }
}

/** UNetMidBlock2DCrossAttn: residual, attention, residual. */
class UNetMidBlock2D extends Module {
  readonly resnets: readonly [ResnetBlock2D, ResnetBlock2D];
  readonly attentions: readonly [Transformer2DModel];

  constructor(config: UNetConfig, level: UNetLevel, timeWidth: number) {
    super();
    const resnet = () =>
      new ResnetBlock2D(level.channels, level.channels, timeWidth, config.groups, config.eps);
    this.resnets = [resnet(), resnet()];
    this.attentions = [transformer(config, level)];
  }

  forward(x: Tensor, time: Tensor, context: Tensor): Tensor {
    const before = this.resnets[0].forward(x, time);
    return this.resnets[1].forward(this.attentions[0].forward(before, context), time);
  }
}

interface UpBlockPlace {
  /** Channels that come from below. */
  readonly inChannels: number;
  /** Channels of the next finer resolution, which the last skip connection has. */
  readonly skipChannels: number;
  readonly timeWidth: number;
  readonly attends: boolean;
  readonly upsamples: boolean;
}

/** UpBlock2D, and with attention CrossAttnUpBlock2D: one layer more than on the way down. */
class UpBlock2D extends Module {
  readonly resnets: readonly ResnetBlock2D[];
  readonly attentions: readonly Transformer2DModel[];
  readonly upsamplers: readonly Upsample2D[];

  constructor(config: UNetConfig, level: UNetLevel, place: UpBlockPlace) {
    super();
    const { channels, resnets } = level;
    const { groups, eps } = config;
    this.resnets = Array.from({ length: resnets + 1 }, (_, i) => {
      const fromBelow = i === 0 ? place.inChannels : channels;
      const skip = i === resnets ? place.skipChannels : channels;
      return new ResnetBlock2D(fromBelow + skip, channels, place.timeWidth, groups, eps);
    });
    this.attentions = place.attends ? this.resnets.map(() => transformer(config, level)) : [];
    this.upsamplers = place.upsamples ? [new Upsample2D(channels)] : [];
  }

  /** @param skips what the way down left behind, one for each layer, taken from the end */
  forward(x: Tensor, skips: Tensor[], time: Tensor, context: Tensor): Tensor {
    let y = x;
    for (const [i, resnet] of this.resnets.entries()) {
      y = concat([y, skips.at(-1 - i)!], 1); // [B, C + skip, H, W]
      y = resnet.forward(y, time);
      y = this.attentions[i]?.forward(y, context) ?? y;
    }
    return this.upsamplers[0]?.forward(y) ?? y; // [B, C, 2 H, 2 W]
  }
}
