export type { Capabilities } from './capabilities.ts';
export { openWebGPU, type Statistics, type Wait, type WebGPUDevice, type WebGPUOptions } from './device.ts';
export type { Tiling, Tune, TuningStore, Tunings } from './tune.ts';
