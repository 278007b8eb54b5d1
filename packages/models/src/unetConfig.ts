/** What a UNet2DConditionModel is made of, from the config.json that diffusers writes. */
import { type ConfigReader, configReader, type JsonConfig } from '@deftjs/tensor';

/** One resolution of the UNet. */
export interface UNetLevel {
  readonly channels: number;
  readonly resnets: number;
  readonly heads: number;
  readonly contextWidth: number;
  readonly transformerLayers: number;
}

export interface UNetConfig {
  readonly inChannels: number;
  readonly outChannels: number;
  readonly convInKernel: number;
  readonly convOutKernel: number;
  readonly groups: number;
  readonly eps: number;
  readonly linearProjection: boolean;
  readonly flipSinToCos: boolean;
  readonly frequencyShift: number;
  /** From the finest resolution to the coarsest. */
  readonly levels: readonly UNetLevel[];
  /** Which levels attend on the way down, finest first. */
  readonly downAttention: readonly boolean[];
  /** Which levels attend on the way up, coarsest first. */
  readonly upAttention: readonly boolean[];
  /** SDXL's extra conditions: the width of each embedded time id, and of what the embedding gets in all. */
  readonly textTime: { readonly timeWidth: number; readonly inputWidth: number } | null;
}

/**
 * The config, checked.
 * @throws ConfigError naming the field that is malformed, unknown or asks for what is not implemented
 */
export function readUNetConfig(config: JsonConfig): UNetConfig {
  const read = configReader('UNet2DConditionModel', config);
  const down = read.choices('down_block_types', ['DownBlock2D', 'CrossAttnDownBlock2D']);
  const up = read.choices('up_block_types', ['UpBlock2D', 'CrossAttnUpBlock2D']);
  const depth = down.length;
  if (depth === 0) read.refuse('down_block_types', 'expected at least one block');
  if (up.length !== depth) read.refuse('up_block_types', `expected ${depth} of them, as many as down blocks`);
  read.choice('mid_block_type', ['UNetMidBlock2DCrossAttn'], 'UNetMidBlock2DCrossAttn');
  const channels = read.counts('block_out_channels', depth);
  const resnets = read.counts('layers_per_block', depth, 2);
  // diffusers' name says width; since the first release the number has meant how many heads there are.
  const heads = read.counts('attention_head_dim', depth, 8);
  const contextWidths = read.counts('cross_attention_dim', depth, 1280);
  const transformerLayers = read.counts('transformer_layers_per_block', depth, 1);
  const groups = read.count('norm_num_groups', 32);
  channels.forEach((count, i) => {
    if (count === 0) read.refuse('block_out_channels', 'expected numbers >= 1');
    if (resnets[i] === 0) read.refuse('layers_per_block', 'expected numbers >= 1');
    if (count % groups !== 0)
      read.refuse('block_out_channels', `expected multiples of norm_num_groups ${groups}`);
    if (count % heads[i]! !== 0)
      read.refuse('attention_head_dim', `expected numbers of heads that divide ${channels}`);
  });
  const addition = read.has('addition_embed_type');
  if (addition) read.choice('addition_embed_type', ['text_time']);
  read.choice('act_fn', ['silu', 'swish'], 'silu');
  read.boolean('upcast_attention', false); // to float32, which attention is computed in anyway
  read.only(onlySupported);
  const result = {
    inChannels: read.count('in_channels', 4),
    outChannels: read.count('out_channels', 4),
    convInKernel: oddCount(read, 'conv_in_kernel'),
    convOutKernel: oddCount(read, 'conv_out_kernel'),
    groups,
    eps: read.number('norm_eps', 1e-5),
    linearProjection: read.boolean('use_linear_projection', false),
    flipSinToCos: read.boolean('flip_sin_to_cos', true),
    frequencyShift: read.number('freq_shift', 0),
    levels: channels.map((count, i) => ({
      channels: count,
      resnets: resnets[i]!,
      heads: heads[i]!,
      contextWidth: contextWidths[i]!,
      transformerLayers: transformerLayers[i]!,
    })),
    downAttention: down.map((type) => type === 'CrossAttnDownBlock2D'),
    upAttention: up.map((type) => type === 'CrossAttnUpBlock2D'),
    textTime: addition
      ? {
          timeWidth: read.count('addition_time_embed_dim'),
          inputWidth: read.count('projection_class_embeddings_input_dim'),
        }
      : null,
  };
  read.nothingBut(['sample_size', 'addition_embed_type_num_heads', 'addition_time_embed_dim']);
  return result;
}

// A kernel keeps the number of pixels by padding half of what it reaches beyond its centre on either side.
function oddCount(read: ConfigReader, key: string): number {
  const count = read.count(key, 3);
  if (count % 2 === 0) read.refuse(key, 'expected an odd number');
  return count;
}

const onlySupported = {
  center_input_sample: false,
  downsample_padding: 1,
  mid_block_scale_factor: 1,
  mid_block_only_cross_attention: false,
  only_cross_attention: false,
  dropout: 0,
  reverse_transformer_layers_per_block: null,
  encoder_hid_dim: null,
  encoder_hid_dim_type: null,
  num_attention_heads: null,
  dual_cross_attention: false,
  class_embed_type: null,
  num_class_embeds: null,
  class_embeddings_concat: false,
  resnet_time_scale_shift: 'default',
  resnet_skip_time_act: false,
  resnet_out_scale_factor: 1,
  time_embedding_type: 'positional',
  time_embedding_dim: null,
  time_embedding_act_fn: null,
  timestep_post_act: null,
  time_cond_proj_dim: null,
  attention_type: 'default',
  cross_attention_norm: null,
} as const;
