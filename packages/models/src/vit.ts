/**
 * The vision transformer (arXiv 2010.11929) as transformers' ViTModel, in whose form the first DINO encoders
 * (arXiv 2104.14294) are published: self-attention among patches, class token first.
 *
 *   B batch, K channels, H W pixels, p pixels across a patch, L = 1 + (H / p) (W / p) tokens, C width, h heads
 */
import { Conv2d, constant, LayerNorm, Linear, Module, normal, Parameter } from '@deftjs/autograd/nn';
import {
  add,
  attention,
  type ConfigReader,
  concat,
  configReader,
  expand,
  gelu,
  type JsonConfig,
  type Tensor,
  type TensorSource,
} from '@deftjs/tensor';
import { expectPatches } from './clipVision.ts';
import { patchPositions } from './patchPositions.ts';
import { joinHeads, splitHeads, toTokens } from './transformer2d.ts';
import { renamed } from './weights.ts';

export interface VitConfig {
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  readonly eps: number;
  readonly channels: number;
  /** Pixels across the pictures that the positions were learned on; other sizes get interpolated ones. */
  readonly pictureSize: number;
  readonly patchSize: number;
  readonly attentionBias: boolean;
  readonly initializerRange: number;
}

/** The fields that ViT and DINOv2 share. @throws ConfigError */
export function readVitConfig(
  read: ConfigReader,
  defaults: { readonly eps: number; readonly patchSize: number },
): VitConfig {
  read.only({ hidden_act: 'gelu', hidden_dropout_prob: 0, attention_probs_dropout_prob: 0 });
  const config = {
    width: read.count('hidden_size', 768),
    layers: read.count('num_hidden_layers', 12),
    heads: read.count('num_attention_heads', 12),
    eps: read.number('layer_norm_eps', defaults.eps),
    channels: read.count('num_channels', 3),
    pictureSize: read.count('image_size', 224),
    patchSize: read.count('patch_size', defaults.patchSize),
    attentionBias: read.boolean('qkv_bias', true),
    initializerRange: read.number('initializer_range', 0.02),
  };
  if (config.heads === 0 || config.width % config.heads !== 0) {
    read.refuse('num_attention_heads', `expected a number of heads that divides hidden_size ${config.width}`);
  }
  if (config.patchSize === 0 || config.patchSize > config.pictureSize) {
    read.refuse('patch_size', `expected 1 to image_size ${config.pictureSize}`);
  }
  return config;
}

export class ViTModel extends Module {
  readonly config: VitConfig;
  readonly embeddings: VitEmbeddings;
  readonly encoder: VitEncoder<VitLayer>;
  readonly layernorm: LayerNorm;

  /**
   * @param json transformers' config.json
   * @throws ConfigError
   */
  constructor(json: JsonConfig) {
    super();
    const read = configReader('ViTModel', json);
    read.choice('model_type', ['vit'], 'vit');
    const config = readVitConfig(read, { eps: 1e-12, patchSize: 16 });
    const inner = read.count('intermediate_size', 3072);
    this.config = config;
    this.embeddings = new VitEmbeddings(config);
    this.encoder = new VitEncoder(Array.from({ length: config.layers }, () => new VitLayer(config, inner)));
    this.layernorm = new LayerNorm(config.width, { eps: config.eps });
  }

  /**
   * Tokens of pictures, the class token first: [B, L, C].
   * @param pictures [B, K, H, W], normalised as the model's image processor does
   * @throws ShapeError when there is not one whole patch
   */
  forward(pictures: Tensor): Tensor {
    expectPatches('vit', pictures, this.config);
    const tokens = this.embeddings.forward(pictures);
    return this.layernorm.forward(this.encoder.layer.reduce((x, layer) => layer.forward(x), tokens));
  }
}

/** The tensors of a ViTModel file that the model has: not the pooler, which DINO does not train. */
export function vitWeights(source: TensorSource): TensorSource {
  return renamed(source, (name) => (name.startsWith('pooler.') ? null : name));
}

/** Layers by number: encoder.layer.0 and so on. */
export class VitEncoder<Layer extends Module> extends Module {
  readonly layer: readonly Layer[];

  constructor(layers: readonly Layer[]) {
    super();
    this.layer = layers;
  }
}

/** Patches as tokens, a class token before them, positions added. */
export class VitEmbeddings extends Module {
  readonly cls_token: Parameter;
  readonly patch_embeddings: PatchEmbeddings;
  readonly position_embeddings: Parameter;

  constructor(config: VitConfig) {
    super();
    const { width, pictureSize, patchSize, initializerRange } = config;
    const patches = Math.floor(pictureSize / patchSize) ** 2;
    this.cls_token = new Parameter([1, 1, width], normal(initializerRange));
    this.patch_embeddings = new PatchEmbeddings(config);
    this.position_embeddings = new Parameter([1, 1 + patches, width], normal(initializerRange));
  }

  /** [B, K, H, W] -> [B, L, C]. */
  forward(pictures: Tensor): Tensor {
    const patches = this.patch_embeddings.projection.forward(pictures); // [B, C, H / p, W / p]
    const [batch, width, tall, wide] = patches.shape as [number, number, number, number];
    const tokens = concat([expand(this.cls_token.value, [batch, 1, width]), toTokens(patches)], 1);
    return add(tokens, patchPositions(this.position_embeddings.value, tall, wide));
  }
}

class PatchEmbeddings extends Module {
  readonly projection: Conv2d;

  constructor({ channels, width, patchSize, initializerRange }: VitConfig) {
    super();
    this.projection = new Conv2d(channels, width, patchSize, { stride: patchSize });
    this.projection.weight.initializer = normal(initializerRange);
  }
}

/** A linear layer as these models begin with. */
export function vitLinear(
  inputs: number,
  outputs: number,
  { initializerRange }: VitConfig,
  options: { readonly bias?: boolean } = {},
): Linear {
  const layer = new Linear(inputs, outputs, options);
  layer.weight.initializer = normal(initializerRange);
  if (layer.bias !== null) layer.bias.initializer = constant(0);
  return layer;
}

class SelfAttention extends Module {
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;

  constructor(config: VitConfig) {
    super();
    const projection = () => vitLinear(config.width, config.width, config, { bias: config.attentionBias });
    this.query = projection();
    this.key = projection();
    this.value = projection();
  }
}

class Dense extends Module {
  readonly dense: Linear;

  constructor(inputs: number, outputs: number, config: VitConfig) {
    super();
    this.dense = vitLinear(inputs, outputs, config);
  }
}

/** Multi-head attention of all tokens; the nesting is that of the state dict. */
export class VitAttention extends Module {
  readonly heads: number;
  readonly attention: SelfAttention;
  readonly output: Dense;

  constructor(config: VitConfig) {
    super();
    this.heads = config.heads;
    this.attention = new SelfAttention(config);
    this.output = new Dense(config.width, config.width, config);
  }

  /** [B, L, C] -> [B, L, C]. */
  forward(x: Tensor): Tensor {
    const [query, key, value] = [this.attention.query, this.attention.key, this.attention.value].map(
      (projection) => splitHeads(projection.forward(x), this.heads), // [B, h, L, C / h]
    ) as [Tensor, Tensor, Tensor];
    return this.output.dense.forward(joinHeads(attention(query, key, value)));
  }
}

class VitLayer extends Module {
  readonly layernorm_before: LayerNorm;
  readonly attention: VitAttention;
  readonly layernorm_after: LayerNorm;
  readonly intermediate: Dense;
  readonly output: Dense;

  constructor(config: VitConfig, inner: number) {
    super();
    const { width, eps } = config;
    this.layernorm_before = new LayerNorm(width, { eps });
    this.attention = new VitAttention(config);
    this.layernorm_after = new LayerNorm(width, { eps });
    this.intermediate = new Dense(width, inner, config);
    this.output = new Dense(inner, width, config);
  }

  forward(x: Tensor): Tensor {
    const y = add(x, this.attention.forward(this.layernorm_before.forward(x)));
    const inner = gelu(this.intermediate.dense.forward(this.layernorm_after.forward(y)));
    return add(y, this.output.dense.forward(inner));
  }
}
