export {
  asFloat32,
  type HostTensor,
  memorySource,
  openSafetensors,
  type SafetensorsFile,
  type TensorSource,
  writeSafetensors,
} from '@deftjs/tensor';
