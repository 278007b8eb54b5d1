/** The configuration files of `deft train` and `deft pretrain`. */
export { deviceNames } from './fields.ts';
export { type Method, methodNames, methods } from './methods.ts';
export { type PretrainConfig, pretrainSchema } from './pretrain.ts';
export { configChanges, readPretrainConfig, readTrainConfig, writeConfig } from './read.ts';
export { modelName, shippedModel } from './shipped.ts';
export { type TrainConfig, type TrainConfigOf, trainSchema } from './train.ts';
