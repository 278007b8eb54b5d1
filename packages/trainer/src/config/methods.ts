/** The fine-tuning methods of `deft train`, and the keys that each of them has of its own. */
import { deftPresets, projectors } from '@deftjs/deft';
import { z } from 'zod';
import { choice, flag, list, nullable, rate, real, section, text, whole } from './fields.ts';

export const methods = [
  'deft',
  'para',
  'lora',
  'svdiff',
  'dreambooth',
  'custom_diffusion',
  'textual_inversion',
] as const;
export type Method = (typeof methods)[number];

/** The methods as their papers spell them. */
export const methodNames: Readonly<Record<Method, string>> = {
  deft: 'DEFT',
  para: 'PaRa',
  lora: 'LoRA',
  svdiff: 'SVDiff',
  dreambooth: 'DreamBooth',
  custom_diffusion: 'Custom Diffusion',
  textual_inversion: 'Textual Inversion',
};

export const presets = Object.keys(deftPresets) as [keyof typeof deftPresets];

const projectorNames = Object.keys(projectors) as [keyof typeof projectors];
const scalings = ['faithful', 'projector'] as const;
const attention = ['to_q', 'to_k', 'to_v', 'to_out.0'];
const textAttention = ['q_proj', 'k_proj', 'v_proj', 'out_proj'];

const names = () => list(text(200), 1, 100);
const rank = () => whole(1, 1024).default(4);
const dropout = () => real(0, 0.99).default(0);
const positive = () => real(0, 1e6, { above: true });

/** Numbers of layers that differ from the rest, by the end of the layer's name. */
const byLayer = <T extends z.ZodType>(of: T) =>
  z.record(text(200), of, { error: 'expected names of layers with a number each' }).default({});

/** Keys of the methods that hang adapters on layers. */
const adapterKeys = {
  target_modules: names().default(attention),
  exclude_modules: list(text(200), 0, 100).default([]),
  text_encoder: nullable(
    section({
      target_modules: names().default(textAttention),
      learning_rate_ratio: positive().default(1),
    }),
  ),
};

/** Keys of the methods that teach a new word. */
const wordKeys = {
  initial_word: text(50).default('toy'),
  vectors: whole(1, 16).default(1),
};

/** The keys of DEFT; those of a preset differ in their defaults. */
function deftKeys(preset: keyof typeof deftPresets) {
  const { options, basisRate } = deftPresets[preset];
  return {
    preset: choice(presets).default('recommended'),
    rank: rank(),
    projector: choice(projectorNames).default(options.projector),
    scaling: choice(scalings).default('faithful'),
    alpha: nullable(positive()),
    start: choice(['identity', 'random']).default(options.start),
    init_scale: positive().default(1),
    gate: nullable(real(-20, 20)),
    dropout: dropout(),
    p_learning_rate_ratio: real(0, 10).default(basisRate),
    learning_rate: rate().default(1e-3),
    ...adapterKeys,
  };
}

/** The keys that each method has beside those of every job. Learning rates are those that its authors train with. */
export const methodKeys = {
  deft: deftKeys,
  para: () => ({
    rank: rank(),
    projector: choice(projectorNames).default('qr'),
    scaling: choice(scalings).default('faithful'),
    learning_rate: rate().default(1e-3),
    ...adapterKeys,
  }),
  lora: () => ({
    rank: rank(),
    alpha: nullable(positive()),
    start: choice(['kaiming', 'gaussian']).default('kaiming'),
    rslora: flag().default(false),
    dropout: dropout(),
    rank_pattern: byLayer(whole(1, 1024)),
    alpha_pattern: byLayer(positive()),
    learning_rate: rate().default(1e-3),
    ...adapterKeys,
  }),
  svdiff: () => ({
    scale: positive().default(1),
    learning_rate: rate().default(1e-3),
    ...adapterKeys,
  }),
  dreambooth: () => ({
    learning_rate: rate().default(5e-6),
    text_encoder: nullable(section({ learning_rate_ratio: positive().default(1) })),
  }),
  custom_diffusion: () => ({
    word: nullable(text(50)),
    ...wordKeys,
    learning_rate: rate().default(1e-5),
  }),
  textual_inversion: () => ({
    word: text(50),
    ...wordKeys,
    learning_rate: rate().default(5e-4),
  }),
};
