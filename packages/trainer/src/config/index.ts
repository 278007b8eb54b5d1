/** The configuration files of `deft train`, `deft pretrain` and `deft compare`. */
export type { CompareConfig } from './compare.ts';
export { deviceNames } from './fields.ts';
export { type Method, methodNames, methods } from './methods.ts';
export {
  type EncoderConfig,
  isEncoderJob,
  type PainterConfig,
  type PretrainConfig,
  pretrainSchema,
} from './pretrain.ts';
export {
  configChanges,
  readCompareConfig,
  readPretrainConfig,
  readTrainConfig,
  writeConfig,
} from './read.ts';
export { modelName, shippedModel } from './shipped.ts';
export { isForeignKey, type TrainConfig, type TrainConfigOf, trainSchema } from './train.ts';
