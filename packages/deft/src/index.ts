/** DEFT and its relatives: methods, adapters on layers, adapter files, diagnostics. */
export {
  type AdaptedRow,
  type AttachOptions,
  attach,
  detach,
  setAdapterStrength,
} from './adapt.ts';
export {
  type AdapterRequest,
  type AttachedAdapter,
  attachedAdapters,
  cacheChanges,
  LayerAdapter,
  withDropout,
} from './adapter.ts';
export {
  type Advice,
  type AdviseOptions,
  advise,
  type Candidate,
  type CandidateName,
  candidateMethods,
} from './advisor/advise.ts';
export { costOf, halve, type Outcome, type Rung, rungsWithin, type Trial } from './advisor/halving.ts';
export { type LayerSignals, layerSignals } from './advisor/signals.ts';
export { probe, type Task, type Trials, trialsOf } from './advisor/task.ts';
export {
  type CombineOptions,
  combineAdapters,
  compressAdapters,
  type Factors,
  factorsOf,
  type MergeKind,
  merges,
  type SplitOptions,
  splitAdapters,
  toDeft,
  toLora,
} from './algebra.ts';
export { type BlockStrengths, setBlockStrengths, styleAndLayout, styleOnly } from './blockStrength.ts';
export { crossAttentionKeysAndValues, mergeConcepts } from './customDiffusion.ts';
export { diagnose, type LayerDiagnostics } from './diagnostics.ts';
export { baseHash, joinedHash, weightHash } from './files/baseHash.ts';
export {
  readCustomDiffusion,
  readLearnedEmbeds,
  writeCustomDiffusion,
  writeLearnedEmbeds,
} from './files/learnedWeights.ts';
export {
  dependsOnBase,
  type LoadLoraOptions,
  type LoraStyle,
  loadLora,
  loraAsItIs,
  loraOfChange,
  type ReadLoraOptions,
  readLora,
  type WriteLoraOptions,
  type WrittenLora,
  writeLora,
  writeLoraLayers,
} from './files/lora.ts';
export { type OfficialFiles, type ReadOfficialOptions, readOfficial } from './files/official.ts';
export {
  type LoadPeftOptions,
  loadPeft,
  type PeftFiles,
  type ReadPeftOptions,
  readPeft,
  type WritePeftOptions,
  writePeft,
  writePeftLayers,
} from './files/peft.ts';
export { type BaseModel, type PeftConfig, readPeftConfig } from './files/peftConfig.ts';
export { loadSpectralShifts, writeSpectralShifts } from './files/spectralShifts.ts';
export {
  changeOf,
  expectBase,
  type LayerShapes,
  layerShapes,
  type MountOptions,
  mountStored,
  type Parts,
  type StoredAdapter,
  type StoredLayer,
} from './files/storedAdapter.ts';
export {
  type AdapterPlace,
  type ConceptAngles,
  conceptAngles,
  type LayerGeometry,
  layerGeometry,
  principalAngles,
} from './geometry.ts';
export { type AdaptedLayer, type LinearMap, linearMapOf, matrixShape } from './linearMap.ts';
export type { LowRankChange, Removed, Written } from './lowRankChange.ts';
export { type Merged, merge } from './merge.ts';
export {
  type FreshLayer,
  type Parametrization,
  parameterCount,
  type Theta,
  type WeightChange,
} from './parametrization.ts';
export { type Deft, type DeftOptions, type DeftPreset, deft, deftPresets } from './parametrizations/deft.ts';
export { type Full, full } from './parametrizations/full.ts';
export { type Method, methods } from './parametrizations/index.ts';
export { type Lora, type LoraOptions, lora } from './parametrizations/lora.ts';
export {
  type Projection,
  type Projector,
  type ProjectorName,
  type ProjectorScaling,
  projectorOf,
  projectors,
} from './parametrizations/projectors.ts';
export { type Svdiff, type SvdiffOptions, svdiff } from './parametrizations/svdiff.ts';
export type { Targets } from './targets.ts';
export { addWords, ExtendedEmbedding } from './textualInversion.ts';
export { type Shifts, type VectorShifts, vectorShifts } from './vectorShifts.ts';
