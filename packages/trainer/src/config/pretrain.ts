import type { z } from 'zod';
import { pictureTasks } from '../world/index.ts';
import {
  choice,
  deviceNames,
  folder,
  list,
  rate,
  real,
  runName,
  section,
  seed,
  text,
  whole,
} from './fields.ts';

const downBlocks = ['DownBlock2D', 'CrossAttnDownBlock2D'] as const;
const upBlocks = ['UpBlock2D', 'CrossAttnUpBlock2D'] as const;

/** The part of diffusers' UNet2DConditionModel configuration that a base model chooses. */
const unet = section({
  sample_size: whole(8, 1024).default(16),
  in_channels: whole(1, 768).default(12),
  out_channels: whole(1, 768).default(12),
  block_out_channels: list(whole(8, 4096), 1, 8).default([48, 96]),
  layers_per_block: whole(1, 8).default(1),
  down_block_types: list(choice(downBlocks), 1, 8).default(['DownBlock2D', 'CrossAttnDownBlock2D']),
  up_block_types: list(choice(upBlocks), 1, 8).default(['CrossAttnUpBlock2D', 'UpBlock2D']),
  cross_attention_dim: whole(8, 4096).default(96),
  attention_head_dim: whole(1, 256).default(4),
  norm_num_groups: whole(1, 64).default(8),
});

/** The part of transformers' CLIPTextConfig that a base model chooses; the vocabulary is the world's. */
const textEncoder = section({
  hidden_size: whole(8, 4096).default(96),
  intermediate_size: whole(8, 16384).default(192),
  num_hidden_layers: whole(1, 48).default(2),
  num_attention_heads: whole(1, 64).default(4),
});

/** How a model that sees patches cuts its pictures. */
const patches = { picture_size: whole(8, 1024).default(32), patch_size: whole(1, 64).default(4) };

const isInPatches = ({
  picture_size: size,
  patch_size: patch,
}: {
  picture_size: number;
  patch_size: number;
}) => size % patch === 0;
const notInPatches = { error: 'expected a patch_size that divides picture_size' };

/** The part of diffusers' OmniGenTransformer2DModel configuration that a unified model chooses; it draws pixels. */
const transformer = section({
  ...patches,
  hidden_size: whole(8, 4096).default(160),
  intermediate_size: whole(8, 16384).default(448),
  num_layers: whole(1, 64).default(6),
  num_attention_heads: whole(1, 64).default(4),
}).refine(isInPatches, notInPatches);

const worldModel = section({
  unet: unet.prefault({}),
  text_encoder: textEncoder.prefault({}),
  // Blocks of this many pixels across become the channels that the network draws.
  block_size: whole(1, 16).default(2),
});

const unifiedModel = section({ transformer });

/** The part of transformers' CLIPConfig that a dual encoder chooses; the vocabulary is the world's. */
const dualEncoder = section({
  ...patches,
  hidden_size: whole(8, 4096).default(96),
  intermediate_size: whole(8, 16384).default(256),
  num_attention_heads: whole(1, 64).default(4),
  vision_layers: whole(1, 48).default(3),
  text_layers: whole(1, 48).default(2),
  projection_dim: whole(1, 4096).default(64),
}).refine(isInPatches, notInPatches);

const encoderModel = section({ clip: dualEncoder });

const training = {
  name: runName(),
  steps: whole(1, 100_000_000).default(30_000),
  minutes: real(0, 100_000, { above: true }).nullable().default(null),
  batch_size: whole(1, 4096).default(32),
  learning_rate: rate().default(1e-3),
  learning_rate_schedule: choice(['constant', 'cosine']).default('cosine'),
  warmup_steps: whole(0, 1_000_000).default(500),
  weight_decay: real(0, 1).default(0.01),
  max_grad_norm: real(0, 1e6, { above: true }).default(1),
  ema_decay: real(0, 0.999999).default(0.999),
  seed: seed().default(1),
  world_seed: seed().default(1),
  device: choice(deviceNames).default('auto'),

  checkpoint_every: whole(1, 100_000_000).default(500),
  keep_checkpoints: whole(1, 1000).default(2),
};

const drawing = {
  ...training,
  // A model of the same configuration whose weights training starts from.
  start: folder().nullable().default(null),
  caption_dropout: real(0, 1).default(0.1),
  sample_every: whole(1, 100_000_000).default(2000),
  sampling: section({
    steps: whole(1, 1000).default(25),
    guidance_scale: real(0, 100).default(3),
    prompts: list(text(300), 1, 100).default([
      'a big red circle on a blue background',
      'a small green star on the left of a yellow background',
      'two purple hearts on a white background',
      'a big striped orange square at the top of a black background',
    ]),
    seeds: list(seed(), 1, 16).default([1, 2]),
  }).prefault({}),
};

const worldSchema = section({ ...drawing, model: worldModel.prefault({}) });
const unifiedSchema = section({
  ...drawing,
  model: unifiedModel,
  // How many of the batches are captions without a picture; these tasks with pictures share the rest, one named twice two shares.
  text_share: real(0, 1).default(0.4),
  // How often the edges or depth map that are given are mixed with the picture asked for, by a share drawn anew.
  blend: real(0, 1).default(0),
  tasks: list(choice(pictureTasks), 1, 100).default([...pictureTasks]),
});

const encoderSchema = section({ ...training, model: encoderModel });

/** A `deft pretrain` job of a model that draws, with every default filled in. */
export type PainterConfig = z.output<typeof worldSchema> | z.output<typeof unifiedSchema>;

/** A `deft pretrain` job of a dual encoder. */
export type EncoderConfig = z.output<typeof encoderSchema>;

export type PretrainConfig = PainterConfig | EncoderConfig;

/** Whether the job makes a dual encoder. */
export function isEncoderJob(config: PretrainConfig): config is EncoderConfig {
  return 'clip' in config.model;
}

/**
 * What `deft pretrain` reads: a model and how it is trained on the picture world. A unified one where `transformer` is
 * written, a dual encoder where `clip` is.
 */
export function pretrainSchema({ model }: Readonly<Record<string, unknown>>): z.ZodType<PretrainConfig> {
  const has = (part: string): boolean => typeof model === 'object' && model !== null && part in model;
  return has('clip') ? encoderSchema : has('transformer') ? unifiedSchema : worldSchema;
}
