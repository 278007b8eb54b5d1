/** Layers with parameters: thin modules around the functions of the tensor package, named as in PyTorch. */
import {
  add,
  type ConvOptions,
  cast,
  conv2d,
  convTranspose2d,
  dropout,
  gather,
  groupNorm,
  type Key,
  layerNorm,
  linear,
  reshape,
  rmsNorm,
  type Tensor,
} from '@deftjs/tensor';
import { constant, kaimingUniform, normal, uniform } from './init.ts';
import { Module } from './module.ts';
import { Parameter } from './parameter.ts';

/** PyTorch's default for weights: uniform in +-1/sqrt(fan in). */
const linearDefault = kaimingUniform({ slope: Math.sqrt(5) });

/**
 * A correction to the output of a layer, computed from its input and its bias-free output y0, such as a low-rank
 * update. Several adapters of one layer all see the same y0 and their corrections add up.
 */
export abstract class Adapter<Layer extends Module> extends Module {
  /** What is added to y0: a tensor of its shape. */
  abstract delta(x: Tensor, y0: Tensor, layer: Layer): Tensor;
}

function adapted<L extends Module>(
  layer: L & { adapters: Record<string, Adapter<L>> },
  x: Tensor,
  y0: Tensor,
): Tensor {
  return Object.values(layer.adapters).reduce((y, adapter) => add(y, adapter.delta(x, y0, layer)), y0);
}

/** y = x W^T + b with W [out, in], which may be stored in another type than x: it is cast. */
export class Linear extends Module {
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly weight: Parameter;
  readonly bias: Parameter | null;
  adapters: Record<string, Adapter<Linear>> = {};

  constructor(inFeatures: number, outFeatures: number, { bias = true }: { readonly bias?: boolean } = {}) {
    super();
    this.inFeatures = inFeatures;
    this.outFeatures = outFeatures;
    this.weight = new Parameter([outFeatures, inFeatures], linearDefault);
    this.bias = bias ? new Parameter([outFeatures], uniform(1 / Math.sqrt(inFeatures))) : null;
  }

  /** [..., in] -> [..., out]. */
  forward(x: Tensor): Tensor {
    const y = adapted(this, x, linear(x, cast(this.weight.value, x.dtype)));
    return this.bias ? add(y, this.bias.value) : y;
  }
}

export interface Conv2dOptions extends ConvOptions {
  readonly bias?: boolean;
}

/** Convolution with square kernels; weight [out, in / groups, kernel, kernel], cast to the type of the input. */
export class Conv2d extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter | null;
  readonly options: ConvOptions;
  adapters: Record<string, Adapter<Conv2d>> = {};

  constructor(
    inChannels: number,
    outChannels: number,
    kernel: number,
    { bias = true, ...options }: Conv2dOptions = {},
  ) {
    super();
    const perGroup = inChannels / (options.groups ?? 1);
    this.options = options;
    this.weight = new Parameter([outChannels, perGroup, kernel, kernel], linearDefault);
    this.bias = bias ? new Parameter([outChannels], uniform(1 / Math.sqrt(perGroup * kernel ** 2))) : null;
  }

  /** [N, in, H, W] -> [N, out, OH, OW]. */
  forward(x: Tensor): Tensor {
    const y = adapted(this, x, conv2d(x, cast(this.weight.value, x.dtype), null, this.options));
    return this.bias ? add(y, reshape(this.bias.value, [1, this.bias.shape[0]!, 1, 1])) : y;
  }
}

/** Transposed convolution with square kernels; weight [in, out / groups, kernel, kernel]. */
export class ConvTranspose2d extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter | null;
  readonly options: ConvOptions & { readonly outputPadding?: number };

  constructor(
    inChannels: number,
    outChannels: number,
    kernel: number,
    { bias = true, ...options }: Conv2dOptions & { readonly outputPadding?: number } = {},
  ) {
    super();
    const perGroup = outChannels / (options.groups ?? 1);
    this.options = options;
    this.weight = new Parameter([inChannels, perGroup, kernel, kernel], linearDefault);
    this.bias = bias ? new Parameter([outChannels], uniform(1 / Math.sqrt(perGroup * kernel ** 2))) : null;
  }

  /** [N, in, H, W] -> [N, out, OH, OW]. */
  forward(x: Tensor): Tensor {
    return convTranspose2d(x, this.weight.value, this.bias?.value, this.options);
  }
}

/** Layers of the given widths with a function between each two (not after the last). */
export class MLP extends Module {
  readonly layers: readonly Linear[];
  readonly activation: (x: Tensor) => Tensor;

  /** @param widths of the input, of every layer between, and of the output */
  constructor(widths: readonly number[], activation: (x: Tensor) => Tensor) {
    super();
    this.layers = widths.slice(1).map((width, i) => new Linear(widths[i]!, width));
    this.activation = activation;
  }

  /** [..., in] -> [..., out]. */
  forward(x: Tensor): Tensor {
    return this.layers.reduce((y, layer, i) => layer.forward(i === 0 ? y : this.activation(y)), x);
  }
}

/** Drops elements in training, by a key for each call; passes everything in evaluation. */
export class Dropout extends Module {
  readonly probability: number;

  constructor(probability: number) {
    super();
    this.probability = probability;
  }

  /** @param key the same key drops the same elements; a u32 tensor [2] for compiled functions */
  forward(x: Tensor, key: Key | Tensor): Tensor {
    return this.training ? dropout(x, this.probability, key) : x;
  }
}

/** A row of numbers for each index; weight [count, width]. */
export class Embedding extends Module {
  readonly weight: Parameter;

  constructor(count: number, width: number) {
    super();
    this.weight = new Parameter([count, width], normal(1));
  }

  /** i32 [...] -> [..., width]. */
  forward(index: Tensor): Tensor {
    return gather(this.weight.value, index);
  }
}

/** Group normalisation of [N, C, ...]. */
export class GroupNorm extends Module {
  readonly groups: number;
  readonly eps: number;
  readonly weight: Parameter;
  readonly bias: Parameter;

  constructor(groups: number, channels: number, eps = 1e-5) {
    super();
    this.groups = groups;
    this.eps = eps;
    this.weight = new Parameter([channels], constant(1));
    this.bias = new Parameter([channels], constant(0));
  }

  forward(x: Tensor): Tensor {
    return groupNorm(x, this.groups, this.weight.value, this.bias.value, this.eps);
  }
}

/** Layer normalisation of the last axis. */
export class LayerNorm extends Module {
  readonly eps: number;
  readonly weight: Parameter | null;
  readonly bias: Parameter | null;

  constructor(
    width: number,
    { eps = 1e-5, affine = true }: { readonly eps?: number; readonly affine?: boolean } = {},
  ) {
    super();
    this.eps = eps;
    this.weight = affine ? new Parameter([width], constant(1)) : null;
    this.bias = affine ? new Parameter([width], constant(0)) : null;
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight?.value, this.bias?.value, this.eps);
  }
}

/** Root-mean-square normalisation of the last axis. */
export class RMSNorm extends Module {
  readonly eps: number;
  readonly weight: Parameter;

  constructor(width: number, eps = 1e-6) {
    super();
    this.eps = eps;
    this.weight = new Parameter([width], constant(1));
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight.value, this.eps);
  }
}
