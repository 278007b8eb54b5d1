/** Cases of every function that is made of ops: what the definition, gradient and device suites iterate over. */
import { arrayComposites } from './arrays.ts';
import type { Composite } from './case.ts';
import { layerComposites, wrappedOps } from './layers.ts';

export * from './case.ts';

/** By the name of the function. */
export const composites: Readonly<Record<string, Composite>> = {
  ...arrayComposites,
  ...layerComposites,
  ...wrappedOps,
};
