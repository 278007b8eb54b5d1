export {
  type ByteSource,
  readHeader,
  SafetensorsError,
  type SafetensorsHeader,
  type TensorInfo,
} from '@deftjs/tensor';
