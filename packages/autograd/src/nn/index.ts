/** Neural network layers: modules with named parameters. */
export type { PathTest } from '../path.ts';
export * from './attention.ts';
export * from './init.ts';
export * from './layers.ts';
export * from './module.ts';
export { type Initializer, Parameter } from './parameter.ts';
export { type TimestepEmbeddingOptions, timestepEmbedding } from './timestep.ts';
