/**
 * The published models by their configs alone: what their classes need to have the parameters of the checkpoints, so
 * that loading, memory and speed can be measured at full size without the weights.
 */
import type { Module } from '@deftjs/autograd/nn';
import type { JsonConfig } from '@deftjs/tensor';
import { CLIPTextModel, CLIPTextModelWithProjection } from './clipText.ts';
import { FluxTransformer2DModel } from './flux.ts';
import { T5EncoderModel } from './t5.ts';
import { UNet2DConditionModel } from './unet.ts';
import { AutoencoderKL } from './vae.ts';

/** One folder of a pipeline. */
export interface LayoutPart {
  readonly folder: string;
  readonly library: 'diffusers' | 'transformers';
  readonly config: JsonConfig;
  readonly create: (config: JsonConfig) => Module;
}

export interface Layout {
  /** The class of the pipeline in model_index.json. */
  readonly pipeline: string;
  readonly parts: readonly LayoutPart[];
  /** scheduler/scheduler_config.json. */
  readonly scheduler: JsonConfig;
}

const scheduler: JsonConfig = {
  _class_name: 'DDIMScheduler',
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: 'scaled_linear',
  clip_sample: false,
  set_alpha_to_one: false,
  steps_offset: 1,
};

const autoencoder: JsonConfig = {
  _class_name: 'AutoencoderKL',
  act_fn: 'silu',
  block_out_channels: [128, 256, 512, 512],
  down_block_types: new Array(4).fill('DownEncoderBlock2D'),
  up_block_types: new Array(4).fill('UpDecoderBlock2D'),
  in_channels: 3,
  out_channels: 3,
  latent_channels: 4,
  layers_per_block: 2,
  norm_num_groups: 32,
};

/** The text encoder of CLIP ViT-L/14, which all of them have. */
const clipLarge: JsonConfig = {
  architectures: ['CLIPTextModel'],
  model_type: 'clip_text_model',
  hidden_act: 'quick_gelu',
  hidden_size: 768,
  intermediate_size: 3072,
  num_attention_heads: 12,
  num_hidden_layers: 12,
  projection_dim: 768,
  vocab_size: 49408,
  max_position_embeddings: 77,
};

const vae = (config: JsonConfig): LayoutPart => ({
  folder: 'vae',
  library: 'diffusers',
  config: { ...autoencoder, ...config },
  create: (json) => new AutoencoderKL(json),
});

const unet = (config: JsonConfig): LayoutPart => ({
  folder: 'unet',
  library: 'diffusers',
  config: {
    _class_name: 'UNet2DConditionModel',
    act_fn: 'silu',
    in_channels: 4,
    out_channels: 4,
    layers_per_block: 2,
    norm_num_groups: 32,
    ...config,
  },
  create: (json) => new UNet2DConditionModel(json),
});

const textEncoder: LayoutPart = {
  folder: 'text_encoder',
  library: 'transformers',
  config: clipLarge,
  create: (json) => new CLIPTextModel(json),
};

/** Stable Diffusion 1.5 (arXiv 2112.10752). */
const sd15: Layout = {
  pipeline: 'StableDiffusionPipeline',
  scheduler,
  parts: [
    unet({
      sample_size: 64,
      attention_head_dim: 8,
      cross_attention_dim: 768,
      block_out_channels: [320, 640, 1280, 1280],
      down_block_types: [...new Array(3).fill('CrossAttnDownBlock2D'), 'DownBlock2D'],
      up_block_types: ['UpBlock2D', ...new Array(3).fill('CrossAttnUpBlock2D')],
    }),
    vae({ sample_size: 512, scaling_factor: 0.18215 }),
    textEncoder,
  ],
};

/** Stable Diffusion XL (arXiv 2307.01952). */
const sdxl: Layout = {
  pipeline: 'StableDiffusionXLPipeline',
  scheduler: { ...scheduler, _class_name: 'EulerDiscreteScheduler' },
  parts: [
    unet({
      sample_size: 128,
      attention_head_dim: [5, 10, 20],
      cross_attention_dim: 2048,
      block_out_channels: [320, 640, 1280],
      transformer_layers_per_block: [1, 2, 10],
      use_linear_projection: true,
      down_block_types: ['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D'],
      up_block_types: ['CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
      addition_embed_type: 'text_time',
      addition_time_embed_dim: 256,
      projection_class_embeddings_input_dim: 2816,
    }),
    vae({ sample_size: 1024, scaling_factor: 0.13025 }),
    textEncoder,
    {
      folder: 'text_encoder_2',
      library: 'transformers',
      config: {
        ...clipLarge,
        architectures: ['CLIPTextModelWithProjection'],
        hidden_act: 'gelu',
        hidden_size: 1280,
        intermediate_size: 5120,
        num_attention_heads: 20,
        num_hidden_layers: 32,
        projection_dim: 1280,
      },
      create: (json) => new CLIPTextModelWithProjection(json),
    },
  ],
};

/** FLUX.1 dev (Black Forest Labs 2024). */
const fluxDev: Layout = {
  pipeline: 'FluxPipeline',
  scheduler: {
    _class_name: 'FlowMatchEulerDiscreteScheduler',
    num_train_timesteps: 1000,
    shift: 3,
    use_dynamic_shifting: true,
    base_shift: 0.5,
    max_shift: 1.15,
    base_image_seq_len: 256,
    max_image_seq_len: 4096,
  },
  parts: [
    {
      folder: 'transformer',
      library: 'diffusers',
      config: {
        _class_name: 'FluxTransformer2DModel',
        attention_head_dim: 128,
        guidance_embeds: true,
        in_channels: 64,
        joint_attention_dim: 4096,
        num_attention_heads: 24,
        num_layers: 19,
        num_single_layers: 38,
        patch_size: 1,
        pooled_projection_dim: 768,
      },
      create: (json) => new FluxTransformer2DModel(json),
    },
    vae({
      sample_size: 1024,
      latent_channels: 16,
      scaling_factor: 0.3611,
      shift_factor: 0.1159,
      use_quant_conv: false,
      use_post_quant_conv: false,
    }),
    textEncoder,
    {
      folder: 'text_encoder_2',
      library: 'transformers',
      config: {
        architectures: ['T5EncoderModel'],
        model_type: 't5',
        d_model: 4096,
        d_ff: 10240,
        d_kv: 64,
        num_heads: 64,
        num_layers: 24,
        vocab_size: 32128,
        feed_forward_proj: 'gated-gelu',
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
      },
      create: (json) => new T5EncoderModel(json),
    },
  ],
};

/** By the names that `deft inspect --make-random` takes. */
export const layouts: ReadonlyMap<string, Layout> = new Map([
  ['sd15', sd15],
  ['sdxl', sdxl],
  ['flux-dev', fluxDev],
]);
