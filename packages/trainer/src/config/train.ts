import type { z } from 'zod';
import { styles } from '../world/styles.ts';
import {
  choice,
  deviceNames,
  flag,
  folder,
  list,
  named,
  nullable,
  pattern,
  real,
  runName,
  section,
  seed,
  subjectName,
  text,
  whole,
} from './fields.ts';
import { type Method, methodKeys, methods, presets } from './methods.ts';

/** The keys of every job, whatever its method. examples/personalize.yaml says what they mean. */
const sharedKeys = {
  name: runName(),
  base: folder().default('world-base'),
  data: section({
    folder: folder(),
    instance_prompt: nullable(text(300)),
    trigger_word: nullable(text(50)),
    resolution: nullable(whole(1, 8192)),
    cache: flag().default(true),
    flip: real(0, 1).default(0),
    random_crop: flag().default(false),
    buckets: nullable(real(1, 8)),
    shuffle_captions: flag().default(false),
    keep_parts: whole(0, 1000).default(0),
  }),
  subject: nullable(subjectName()),
  cast: named(subjectName()).default({}),
  style: nullable(choice(styles)),

  steps: whole(1, 10_000_000).default(600),
  batch_size: whole(1, 4096).default(5),
  gradient_accumulation: whole(1, 4096).default(1),
  learning_rate_schedule: choice(['constant', 'linear', 'cosine', 'polynomial']).default('constant'),
  learning_rate_power: real(0, 10, { above: true }).default(2),
  warmup_steps: whole(0, 1_000_000).default(0),
  parameter_groups: list(
    section({
      match: pattern(),
      learning_rate_ratio: real(0, 1e6).default(1),
      weight_decay: nullable(real(0, 1)),
    }),
    0,
    100,
  ).default([]),
  weight_decay: real(0, 1).default(0),
  decay_towards: choice(['zero', 'start']).default('zero'),
  max_grad_norm: real(0, 1e6, { above: true }).default(1),
  ema_decay: nullable(real(0, 0.999999)),
  timesteps: nullable(choice(['uniform', 'logit_normal'])),
  min_snr_gamma: nullable(real(0, 1e6, { above: true })),
  offset_noise: real(0, 10).default(0),
  caption_dropout: real(0, 1).default(0.1),
  prior: nullable(
    section({
      weight: real(0, 100, { above: true }).default(1),
      pictures: whole(1, 100_000).default(64),
      source: choice(['world', 'base']).default('world'),
      prompts: nullable(list(text(300), 1, 100)),
      folder: nullable(folder()),
    }),
  ),
  seed: seed().default(1),
  device: choice(deviceNames).default('auto'),
  precision: choice(['f32', 'f16']).default('f32'),
  recompute: flag().default(false),

  checkpoint_every: whole(1, 10_000_000).default(200),
  keep_checkpoints: whole(1, 1000).default(2),
  sample_every: nullable(whole(1, 10_000_000)),
  sampling: section({
    steps: whole(1, 1000).default(25),
    guidance_scale: real(0, 100).default(3),
    prompts: nullable(list(text(300), 1, 100)),
    folder: nullable(folder()),
    seeds: list(seed(), 1, 16).default([1, 2]),
    other_prompts: list(text(300), 0, 100).default([]),
  }).prefault({}),
};

/** The schema of a job with that method: the shared keys and the method's own. */
function schemaOf<const M extends Method, K extends z.ZodRawShape>(_method: M, keys: K) {
  // A job is checked against the schema of the method that it names, so no other value passes.
  const method = choice(methods).default('deft') as unknown as z.ZodType<M>;
  const { name, base, data, subject, cast, style, ...rest } = sharedKeys;
  return section({ name, base, data, subject, cast, style, method, ...keys, ...rest });
}

const schemas = {
  deft: schemaOf('deft', methodKeys.deft('recommended')),
  para: schemaOf('para', methodKeys.para()),
  lora: schemaOf('lora', methodKeys.lora()),
  svdiff: schemaOf('svdiff', methodKeys.svdiff()),
  dreambooth: schemaOf('dreambooth', methodKeys.dreambooth()),
  custom_diffusion: schemaOf('custom_diffusion', methodKeys.custom_diffusion()),
  textual_inversion: schemaOf('textual_inversion', methodKeys.textual_inversion()),
};

/** A `deft train` job of one method with every default filled in; folders are absolute paths. */
export type TrainConfigOf<M extends Method> = z.output<(typeof schemas)[M]>;

/** A `deft train` job. */
export type TrainConfig = { [M in Method]: TrainConfigOf<M> }[Method];

/** The schema for what was written: that of its method and preset, or of DEFT where it names neither well. */
export function trainSchema({
  method = 'deft',
  preset,
}: Readonly<Record<string, unknown>>): z.ZodType<TrainConfig> {
  const known = methods.find((one) => one === method) ?? 'deft';
  const named = presets.find((one) => one === preset);
  return known === 'deft' && named ? schemaOf('deft', methodKeys.deft(named)) : schemas[known];
}

/** Whether the job's method has no such key, and another has. */
export function isForeignKey(key: string, { method = 'deft' }: Readonly<Record<string, unknown>>): boolean {
  const users = methods.filter((one) => key in schemas[one].shape);
  return users.length > 0 && !users.some((one) => one === method);
}

/** What is wrong with a key that the job's method does not have, where other methods have it; else null. */
export function misplacedKey(
  key: string,
  { method = 'deft' }: Readonly<Record<string, unknown>>,
): string | null {
  const users = methods.filter((one) => key in schemas[one].shape);
  return users.length === 0 || users.length === methods.length
    ? null
    : `the method ${String(method)} has no such key; it belongs to ${users.join(', ')}`;
}

/** Keys that name folders, but for those of models. */
export const trainFolders = ['data.folder', 'prior.folder', 'sampling.folder'] as const;
