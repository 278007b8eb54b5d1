/** Fine-tuning methods that `deft train` can run. */
export const methods = ['deft'] as const;
export type Method = (typeof methods)[number];

/** Methods that are known by name but cannot be run yet: an error says so instead of "unknown". */
export const plannedMethods: readonly string[] = [
  'lora',
  'para',
  'svdiff',
  'dreambooth',
  'custom_diffusion',
  'textual_inversion',
];

/** How DEFT makes the removed subspace from P: P P^T as it is, P relu(P)^T, or Q Q^T with P = Q R. */
export const projectors = ['none', 'relu', 'qr'] as const;
export type Projector = (typeof projectors)[number];
