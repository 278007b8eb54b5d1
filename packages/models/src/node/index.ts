export * from './fileSource.ts';
export * from './modelFolder.ts';
export { openDiT, openFlux, openOmniGen, openStableDiffusionXL } from './pipelineFolder.ts';
export * from './randomModel.ts';
export * from './stableDiffusionFolder.ts';
export * from './tokenizerFolder.ts';
export * from './writeWeights.ts';
