/** Tensors: shapes, dtypes, a lazy graph, and the devices that compute it. */
export { type CompiledFunction, type CompileOptions, compile } from './compile.ts';
export * from './device.ts';
export * from './dtype.ts';
export * from './errors.ts';
export { evaluate, item, read } from './evaluate.ts';
export * from './io/config.ts';
export {
  asFloat16,
  asFloat32,
  type HostTensor,
  memorySource,
  openSafetensors,
  type SafetensorsFile,
  safetensorsHeader,
  type TensorSource,
  type WrittenTensor,
  writeSafetensors,
  writtenBytes,
} from './io/safetensors.ts';
export {
  type ByteSource,
  readHeader,
  SafetensorsError,
  type SafetensorsHeader,
  type TensorInfo,
} from './io/safetensorsHeader.ts';
export {
  openTorchFile,
  type TorchFile,
  TorchFileError,
  type TorchTensor,
  type TorchValue,
  torchTensors,
} from './io/torchFile.ts';
export type { Applied, Aval, Op, Values } from './op.ts';
export * from './ops/activation.ts';
export { type AttentionOptions, attention } from './ops/attention.ts';
export { bits, isfinite, isinf, isnan } from './ops/bits.ts';
export { concat, stack } from './ops/concat.ts';
export { type ConvOptions, conv2d, convTranspose2d } from './ops/conv.ts';
export { after, alias, stopGradient } from './ops/custom.ts';
export { dot, einsum, outer } from './ops/einsum.ts';
export {
  abs,
  add,
  and,
  cast,
  ceil,
  clamp,
  cos,
  div,
  equal,
  erf,
  exp,
  floor,
  greater,
  greaterEqual,
  less,
  lessEqual,
  log,
  logicalNot,
  maximum,
  minimum,
  mod,
  mul,
  neg,
  notEqual,
  type Operand,
  or,
  pow,
  reciprocal,
  round,
  rsqrt,
  shiftLeft,
  shiftRight,
  sign,
  sin,
  sqrt,
  square,
  sub,
  tanh,
  threefry,
  truncate,
  where,
  xor,
} from './ops/elementwise.ts';
export { expand, sum, sumTo } from './ops/expand.ts';
export { gather, scatterAdd, takeAlongAxis } from './ops/gather.ts';
export { ops } from './ops/index.ts';
export { type IndexPart, type IndexRange, index } from './ops/indexing.ts';
export * from './ops/loss.ts';
export { linear, matmul } from './ops/matmul.ts';
export { diagonal, eye, trace, tril, triu } from './ops/matrix.ts';
export {
  flip,
  narrow,
  pad,
  permute,
  reshape,
  slice,
  split,
  squeeze,
  transpose,
  unsqueeze,
} from './ops/movement.ts';
export * from './ops/norm.ts';
export { averagePool, maxPool, type PoolOptions } from './ops/pool.ts';
export * from './ops/random.ts';
export { repeat, roll, tile } from './ops/rearrange.ts';
export { all, any, argmax, argmin, max, mean, min, prod } from './ops/reduce.ts';
export {
  interpolateBilinear,
  interpolateNearest,
  pixelShuffle,
  pixelUnshuffle,
  upsampleNearest,
} from './ops/resample.ts';
export { type RotaryTable, rope, rotaryTable } from './ops/rotary.ts';
export { cumsum } from './ops/scan.ts';
export { logSoftmax, logSumExp, softmax } from './ops/softmax.ts';
export { argsort, type Sorted, type SortOptions, sort, topk } from './ops/sort.ts';
export { arange, full, iota, linspace, ones, onesLike, zeros, zerosLike } from './ops/source.ts';
export { norm, standardDeviation, variance } from './ops/statistics.ts';
export { unfold } from './ops/unfold.ts';
export { referenceDevice } from './reference.ts';
export { keep, leakedStorages, scope } from './scope.ts';
export * from './shape.ts';
export {
  apply,
  type Nested,
  observeOps,
  placeholder,
  type Source,
  serialNow,
  Tensor,
  tensor,
} from './tensor.ts';
export * from './tree.ts';
export { eventLoopTurn } from './turn.ts';
export { upload } from './upload.ts';
