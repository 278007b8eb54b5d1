/** Tiny pipelines with random weights, in folders as diffusers lays them out. */
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { initialize, type Module, stateOf } from '@deftjs/autograd/nn';
import {
  AutoencoderKL,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  DiTTransformer2DModel,
  FluxTransformer2DModel,
  type HostTensor,
  type JsonConfig,
  OmniGenTransformer2DModel,
  T5EncoderModel,
  UNet2DConditionModel,
} from '@deftjs/models';
import { writeSafetensorsFile } from '@deftjs/models/node';
import { referenceDevice } from '@deftjs/tensor';
import { caseFolder, compute } from '../models/goldenCase.ts';

const vae = {
  block_out_channels: [4],
  down_block_types: ['DownEncoderBlock2D'],
  up_block_types: ['UpDecoderBlock2D'],
  norm_num_groups: 2,
};
const text = {
  vocab_size: 531,
  hidden_size: 4,
  intermediate_size: 4,
  num_hidden_layers: 1,
  num_attention_heads: 2,
};
const classes: Readonly<Record<string, new (config: JsonConfig) => Module>> = {
  AutoencoderKL,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  DiTTransformer2DModel,
  FluxTransformer2DModel,
  OmniGenTransformer2DModel,
  T5EncoderModel,
  UNet2DConditionModel,
};

/** Configurations of the parts, and where tokenizers are taken from, by the pipeline's class. */
export const pipelines: Readonly<
  Record<
    string,
    {
      readonly parts: Readonly<Record<string, readonly [className: string, config: JsonConfig]>>;
      readonly tokenizers: Readonly<Record<string, readonly [className: string, from: string]>>;
    }
  >
> = {
  StableDiffusionXLPipeline: {
    parts: {
      unet: [
        'UNet2DConditionModel',
        {
          block_out_channels: [4],
          down_block_types: ['CrossAttnDownBlock2D'],
          up_block_types: ['CrossAttnUpBlock2D'],
          layers_per_block: 1,
          attention_head_dim: 2,
          cross_attention_dim: 8,
          norm_num_groups: 2,
          addition_embed_type: 'text_time',
          addition_time_embed_dim: 4,
          projection_class_embeddings_input_dim: 28,
        },
      ],
      text_encoder: ['CLIPTextModel', text],
      text_encoder_2: ['CLIPTextModelWithProjection', { ...text, projection_dim: 4 }],
      vae: ['AutoencoderKL', vae],
    },
    tokenizers: {
      tokenizer: ['CLIPTokenizer', 'sd-tiny-pipeline/tokenizer'],
      tokenizer_2: ['CLIPTokenizer', 'sd-tiny-pipeline/tokenizer'],
    },
  },
  FluxPipeline: {
    parts: {
      transformer: [
        'FluxTransformer2DModel',
        {
          in_channels: 16,
          num_layers: 1,
          num_single_layers: 1,
          attention_head_dim: 8,
          num_attention_heads: 1,
          joint_attention_dim: 4,
          pooled_projection_dim: 4,
          axes_dims_rope: [2, 4, 2],
        },
      ],
      text_encoder: ['CLIPTextModel', text],
      text_encoder_2: [
        'T5EncoderModel',
        { vocab_size: 404, d_model: 4, d_kv: 2, d_ff: 4, num_layers: 1, num_heads: 1 },
      ],
      vae: ['AutoencoderKL', vae],
    },
    tokenizers: {
      tokenizer: ['CLIPTokenizer', 'sd-tiny-pipeline/tokenizer'],
      tokenizer_2: ['T5TokenizerFast', 't5-tokenizer'],
    },
  },
  OmniGenPipeline: {
    parts: {
      transformer: [
        'OmniGenTransformer2DModel',
        {
          hidden_size: 8,
          num_attention_heads: 1,
          intermediate_size: 4,
          num_layers: 1,
          vocab_size: 404,
          pos_embed_max_size: 4,
          time_step_dim: 4,
          rope_scaling: { type: 'su', short_factor: [1, 1, 1, 1], long_factor: [1, 2, 3, 4] },
        },
      ],
      vae: ['AutoencoderKL', vae],
    },
    tokenizers: { tokenizer: ['LlamaTokenizer', 't5-tokenizer'] },
  },
  DiTPipeline: {
    parts: {
      transformer: [
        'DiTTransformer2DModel',
        { num_attention_heads: 1, attention_head_dim: 4, num_layers: 1, num_embeds_ada_norm: 3 },
      ],
      vae: ['AutoencoderKL', vae],
    },
    tokenizers: {},
  },
};

/** All values of a module, by path. */
export async function valuesOf(module: Module): Promise<Record<string, HostTensor>> {
  const state = Object.entries(stateOf(module));
  const values = await compute(
    referenceDevice(),
    state.map(([, value]) => value),
  );
  return Object.fromEntries(
    state.map(([path, { shape }], i) => [path, { dtype: 'f32', shape, data: Float32Array.from(values[i]!) }]),
  );
}

/** Writes a pipeline of the class into an empty folder; returns the weights by part and path. */
export async function writePipeline(folder: string, name: string): Promise<Record<string, HostTensor>> {
  const { parts, tokenizers } = pipelines[name]!;
  const index: Record<string, string | readonly string[]> = {
    _class_name: name,
    scheduler: ['diffusers', 'FlowMatchEulerDiscreteScheduler'],
  };
  const all: Record<string, HostTensor> = {};
  for (const [part, [className, config]] of Object.entries(parts)) {
    index[part] = ['library', className];
    const module = new classes[className]!(config);
    initialize(module, 1);
    mkdirSync(join(folder, part));
    writeFileSync(join(folder, part, 'config.json'), JSON.stringify(config));
    const values = await valuesOf(module);
    await writeSafetensorsFile(join(folder, part, 'model.safetensors'), values);
    for (const [path, value] of Object.entries(values)) all[`${part}.${path}`] = value;
  }
  for (const [part, [className, from]] of Object.entries(tokenizers)) {
    index[part] = ['transformers', className];
    cpSync(caseFolder(from), join(folder, part), { recursive: true });
  }
  mkdirSync(join(folder, 'scheduler'));
  writeFileSync(
    join(folder, 'scheduler', 'scheduler_config.json'),
    '{"_class_name": "FlowMatchEulerDiscreteScheduler"}',
  );
  writeFileSync(join(folder, 'model_index.json'), JSON.stringify(index));
  return all;
}
