/** Diffusion models, text encoders, samplers and tokenizers. */

// Files of weights and configs are read by the tensor package; whoever handles models handles these too.
export {
  asFloat32,
  type ByteSource,
  ConfigError,
  type HostTensor,
  type JsonConfig,
  type JsonValue,
  memorySource,
  openSafetensors,
  parseConfig,
  readHeader,
  SafetensorsError,
  type SafetensorsFile,
  type SafetensorsHeader,
  type TensorInfo,
  type TensorSource,
  writeSafetensors,
} from '@deftjs/tensor';
export * from './clip.ts';
export * from './clipText.ts';
export * from './clipVision.ts';
export * from './dinov2.ts';
export * from './dit.ts';
export * from './flux.ts';
export * from './imageProcessor.ts';
export * from './layouts.ts';
export * from './omniGen.ts';
export * from './omniGenSequence.ts';
export { gridPositions, type PatchOrder, patchify, unpatchify } from './patches.ts';
export * from './pipelines/dit.ts';
export * from './pipelines/flux.ts';
export {
  type DrawOptions,
  decodeLatents,
  encodePictures,
  type StartingPictures,
} from './pipelines/latents.ts';
export * from './pipelines/omniGen.ts';
export * from './pipelines/stableDiffusion.ts';
export * from './pipelines/stableDiffusionXL.ts';
export * from './resnetBlock.ts';
export * from './sampling.ts';
export * from './schedulers/index.ts';
export * from './singleFile.ts';
export * from './t5.ts';
export * from './tokenizer.ts';
export * from './transformer2d.ts';
export * from './unet.ts';
export * from './vae.ts';
export * from './vaeTiling.ts';
export { ViTModel, type VitConfig, vitWeights } from './vit.ts';
export * from './weights.ts';
