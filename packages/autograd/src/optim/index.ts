/** Optimizers, schedules, clipping and averages. */
export { type AdamWOptions, type AdamWState, adamW } from './adamW.ts';
export { clipByGlobalNorm, globalNorm, movingAverage } from './gradients.ts';
export type { Optimizer, ParameterGroup, State } from './optimizer.ts';
export { constant, cosine, linear, polynomial, type Schedule, warmup } from './schedule.ts';
