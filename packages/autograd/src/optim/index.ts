/** Optimizers as pure functions over trees of tensors, learning-rate schedules, clipping and averaging. */
export { type AdamOptions, type AdamState, adam, adamW } from './adam.ts';
export { accumulate, clipByGlobalNorm, clipByValue, globalNorm, movingAverage } from './gradients.ts';
export { type LionOptions, type LionState, lion } from './lion.ts';
export {
  type LossScale,
  type LossScaleOptions,
  type LossScaleState,
  lossScale,
  takeIf,
} from './lossScale.ts';
export type { Optimizer, ParameterGroup, UpdateOptions } from './optimizer.ts';
export { type Packing, packing, type Vectors } from './packing.ts';
export { constant, cosine, linear, polynomial, type Schedule, warmup } from './schedules.ts';
export { type SgdOptions, type SgdState, sgd } from './sgd.ts';
