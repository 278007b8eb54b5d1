/** DEFT and its relatives: methods, adapters on layers, adapter files, diagnostics. */
export {
  type AdaptedRow,
  type AttachOptions,
  attach,
  detach,
  setAdapterStrength,
} from './adapt.ts';
export { type AdapterRequest, type AttachedAdapter, attachedAdapters, LayerAdapter } from './adapter.ts';
export { polarFactor } from './decompositions/polar.ts';
export { orthonormalBases, orthonormalBasis, qr } from './decompositions/qr.ts';
export { symmetricEigen } from './decompositions/symmetricEigen.ts';
export { diagnose, type LayerDiagnostics } from './diagnostics.ts';
export {
  type LoadPeftOptions,
  loadPeft,
  type PeftFiles,
  type WritePeftOptions,
  writePeft,
} from './files/peft.ts';
export { type BaseModel, type PeftConfig, readPeftConfig } from './files/peftConfig.ts';
export type { AdaptedLayer, LinearMap } from './linearMap.ts';
export type { LowRankChange, Removed, Written } from './lowRankChange.ts';
export { type Merged, merge } from './merge.ts';
export { type FreshLayer, type Parametrization, parameterCount, type Theta } from './parametrization.ts';
export { type Deft, type DeftOptions, type DeftPreset, deft, deftPresets } from './parametrizations/deft.ts';
export { type Method, methods } from './parametrizations/index.ts';
export { type Lora, type LoraOptions, lora } from './parametrizations/lora.ts';
export { type Projection, type ProjectorName, projections } from './parametrizations/projectors.ts';
export type { Targets } from './targets.ts';
