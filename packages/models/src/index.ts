export * from './clipText.ts';
export { ConfigError, type JsonConfig, type JsonValue, parseConfig } from './config.ts';
export * from './resnetBlock.ts';
export * from './safetensors.ts';
export {
  type ByteSource,
  readHeader,
  SafetensorsError,
  type SafetensorsHeader,
  type TensorInfo,
} from './safetensorsHeader.ts';
export * from './schedulers/index.ts';
export * from './tokenizer.ts';
export * from './transformer2d.ts';
export * from './unet.ts';
export * from './weights.ts';
