import { z } from 'zod';
import { subjects } from '../world/subjects.ts';
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
import { methods, plannedMethods, projectors } from './methods.ts';

const method = z.enum(methods, {
  error: ({ input }) =>
    plannedMethods.includes(String(input))
      ? `this method is not available yet; expected ${methods.join(' or ')}`
      : `expected ${methods.join(' or ')}`,
});

/** What `deft train` reads. examples/personalize.yaml says what each key means. */
export const trainSchema = section({
  name: runName(),
  base: folder().default('world-base'),
  data: section({
    folder: folder(),
    instance_prompt: text(300).nullable().default(null),
  }),
  subject: choice(subjects).nullable().default(null),

  method: method.default('deft'),
  rank: whole(1, 1024).default(4),
  projector: choice(projectors).default('qr'),
  target_modules: list(text(200), 1, 100).default(['to_q', 'to_k', 'to_v', 'to_out.0']),

  steps: whole(1, 10_000_000).default(600),
  batch_size: whole(1, 4096).default(5),
  learning_rate: rate().default(1e-3),
  p_learning_rate_ratio: real(0, 10).default(0.1),
  warmup_steps: whole(0, 1_000_000).default(0),
  weight_decay: real(0, 1).default(0),
  max_grad_norm: real(0, 1e6, { above: true }).default(1),
  caption_dropout: real(0, 1).default(0.1),
  prior: section({
    weight: real(0, 100, { above: true }).default(1),
    pictures: whole(1, 100_000).default(64),
    source: choice(['world', 'base']).default('world'),
  })
    .nullable()
    .default(null),
  seed: seed().default(1),
  device: choice(deviceNames).default('auto'),

  checkpoint_every: whole(1, 10_000_000).default(200),
  keep_checkpoints: whole(1, 1000).default(2),
  sampling: section({
    steps: whole(1, 1000).default(25),
    guidance_scale: real(0, 100).default(3),
    prompts: list(text(300), 1, 100).nullable().default(null),
    seeds: list(seed(), 1, 16).default([1, 2]),
  }).prefault({}),
});

/** A `deft train` job with every default filled in; folders are absolute paths. */
export type TrainConfig = z.output<typeof trainSchema>;

/** Keys of {@link trainSchema} that name folders. */
export const trainFolders = ['base', 'data.folder'] as const;
