export * from './fileSource.ts';
export * from './modelFolder.ts';
export * from './randomModel.ts';
export * from './stableDiffusionFolder.ts';
export * from './tokenizerFolder.ts';
export * from './writeWeights.ts';
