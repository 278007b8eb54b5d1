export { ConfigError, type JsonConfig, type JsonValue, parseConfig } from './config.ts';
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
