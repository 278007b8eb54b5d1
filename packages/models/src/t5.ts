/**
 * T5's encoder (arXiv 1910.10683): what FLUX reads texts with. As transformers' T5EncoderModel.
 *
 * Tokens have no positions of their own; how far apart two of them are adds a learnt number to their attention score
 * (section 2.1 there), shared by all layers. Attention scores are not scaled: the initialisation is.
 *
 *   B batch, L tokens, C width, h heads, D head width (h D need not be C), F inner width
 */
import { Embedding, Linear, Module, normal, RMSNorm } from '@deftjs/autograd/nn';
import {
  add,
  attention,
  configReader,
  formatShape,
  gather,
  geluTanh,
  type JsonConfig,
  mul,
  permute,
  relu,
  ShapeError,
  type Tensor,
  type TensorSource,
  tensor,
  unsqueeze,
  where,
} from '@deftjs/tensor';
import { joinHeads, splitHeads } from './transformer2d.ts';
import { renamed } from './weights.ts';

export interface T5Config {
  readonly vocabulary: number;
  readonly width: number;
  readonly headWidth: number;
  readonly inner: number;
  readonly layers: number;
  readonly heads: number;
  readonly buckets: number;
  readonly maxDistance: number;
  readonly eps: number;
  /** Whether the feed-forward layers are gated (version 1.1), with gelu, or plain, with relu. */
  readonly gated: boolean;
  readonly initializerFactor: number;
}

/** Fields of the config that are about the decoder, about training, or follow from other fields. */
const ofNoConcern = [
  ...['architectures', 'model_type', 'dtype', 'torch_dtype', 'transformers_version', 'task_specific_params'],
  ...['classifier_dropout', 'dropout_rate', 'num_decoder_layers', 'decoder_start_token_id', 'use_cache'],
  ...['is_encoder_decoder', 'scale_decoder_outputs', 'tie_word_embeddings', 'output_past', 'n_positions'],
  ...['pad_token_id', 'eos_token_id', 'bos_token_id', 'dense_act_fn', 'is_gated_act'],
];

/** The config, checked. @throws ConfigError */
export function readT5Config(json: JsonConfig): T5Config {
  const read = configReader('T5EncoderModel', json);
  read.choice('model_type', ['t5'], 't5');
  read.only({ is_decoder: false });
  const config = {
    vocabulary: read.count('vocab_size', 32128),
    width: read.count('d_model', 512),
    headWidth: read.count('d_kv', 64),
    inner: read.count('d_ff', 2048),
    layers: read.count('num_layers', 6),
    heads: read.count('num_heads', 8),
    buckets: read.count('relative_attention_num_buckets', 32),
    maxDistance: read.count('relative_attention_max_distance', 128),
    eps: read.number('layer_norm_epsilon', 1e-6),
    gated: read.choice('feed_forward_proj', ['relu', 'gated-gelu'], 'relu') === 'gated-gelu',
    initializerFactor: read.number('initializer_factor', 1),
  };
  if (config.layers === 0) read.refuse('num_layers', 'expected at least one');
  if (config.buckets < 4 || config.buckets % 2 !== 0) {
    read.refuse('relative_attention_num_buckets', 'expected an even number of at least 4');
  }
  if (config.maxDistance <= config.buckets / 4) {
    read.refuse('relative_attention_max_distance', 'expected more than a quarter of the buckets');
  }
  read.nothingBut(ofNoConcern);
  return config;
}

export class T5EncoderModel extends Module {
  readonly config: T5Config;
  readonly shared: Embedding;
  readonly encoder: Encoder;

  /**
   * @param json transformers' config.json
   * @throws ConfigError
   */
  constructor(json: JsonConfig) {
    super();
    const config = readT5Config(json);
    this.config = config;
    this.shared = new Embedding(config.vocabulary, config.width);
    this.shared.weight.initializer = normal(config.initializerFactor);
    this.encoder = new Encoder(config);
  }

  /**
   * The last hidden state: [B, L, C].
   * @param ids token ids, i32 [B, L]
   * @param mask bool [B, L]: which tokens are text and not padding; at least one of each row. Default: all are
   *   (FLUX was trained so)
   * @throws ShapeError
   */
  forward(ids: Tensor, mask?: Tensor): Tensor {
    if (ids.rank !== 2 || (mask && mask.shape.join() !== ids.shape.join())) {
      const got = [ids, ...(mask ? [mask] : [])].map(({ shape }) => formatShape(shape)).join(' and ');
      throw new ShapeError(`t5: expected ids [B, L], and a mask of their shape; got ${got}`);
    }
    return this.encoder.forward(this.shared.forward(ids), mask);
  }
}

/** The tensors of a T5 file under the names that the model has: files may hold the embedding once more. */
export function t5Weights(source: TensorSource): TensorSource {
  const twice = source.names.includes('shared.weight');
  return renamed(source, (name) => {
    if (name !== 'encoder.embed_tokens.weight') return name;
    return twice ? null : 'shared.weight';
  });
}

class Encoder extends Module {
  readonly block: readonly Block[];
  readonly final_layer_norm: RMSNorm;

  constructor(config: T5Config) {
    super();
    this.block = Array.from({ length: config.layers }, (_, i) => new Block(config, i === 0));
    this.final_layer_norm = new RMSNorm(config.width, config.eps);
  }

  forward(embedded: Tensor, mask: Tensor | undefined): Tensor {
    const distances = this.block[0]!.layer[0].SelfAttention.positionBias(embedded.shape[1]!); // [1, h, L, L]
    const bias = mask
      ? where(unsqueeze(unsqueeze(mask, 1), 1), distances, Number.NEGATIVE_INFINITY)
      : distances;
    let x = embedded;
    for (const block of this.block) x = block.forward(x, bias);
    return this.final_layer_norm.forward(x);
  }
}

class Block extends Module {
  readonly layer: readonly [AttentionLayer, FeedForwardLayer];

  constructor(config: T5Config, hasBias: boolean) {
    super();
    this.layer = [new AttentionLayer(config, hasBias), new FeedForwardLayer(config)];
  }

  /** [B, L, C] -> [B, L, C]. */
  forward(x: Tensor, bias: Tensor): Tensor {
    return this.layer[1].forward(this.layer[0].forward(x, bias));
  }
}

class AttentionLayer extends Module {
  readonly SelfAttention: SelfAttention;
  readonly layer_norm: RMSNorm;

  constructor(config: T5Config, hasBias: boolean) {
    super();
    this.SelfAttention = new SelfAttention(config, hasBias);
    this.layer_norm = new RMSNorm(config.width, config.eps);
  }

  forward(x: Tensor, bias: Tensor): Tensor {
    return add(x, this.SelfAttention.forward(this.layer_norm.forward(x), bias));
  }
}

function linear(inputs: number, outputs: number, std: number): Linear {
  const layer = new Linear(inputs, outputs, { bias: false });
  layer.weight.initializer = normal(std);
  return layer;
}

class SelfAttention extends Module {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  /** A number for each bucket of distances and each head [buckets, h]; only the first layer has it. */
  readonly relative_attention_bias: Embedding | null;
  readonly #config: T5Config;

  constructor(config: T5Config, hasBias: boolean) {
    super();
    const { width, heads, headWidth, buckets, initializerFactor: factor } = config;
    const inner = heads * headWidth;
    this.#config = config;
    this.q = linear(width, inner, factor * (width * headWidth) ** -0.5);
    this.k = linear(width, inner, factor * width ** -0.5);
    this.v = linear(width, inner, factor * width ** -0.5);
    this.o = linear(inner, width, factor * inner ** -0.5);
    this.relative_attention_bias = hasBias ? new Embedding(buckets, heads) : null;
    if (this.relative_attention_bias) {
      this.relative_attention_bias.weight.initializer = normal(factor * width ** -0.5);
    }
  }

  /** What distances add to the scores of L tokens: [1, h, L, L]. */
  positionBias(length: number): Tensor {
    const { buckets, maxDistance } = this.#config;
    const index = Int32Array.from({ length: length * length }, (_, i) =>
      distanceBucket((i % length) - Math.floor(i / length), buckets, maxDistance),
    );
    const bias = gather(this.relative_attention_bias!.weight.value, tensor(index, [length, length], 'i32'));
    return unsqueeze(permute(bias, [2, 0, 1]), 0);
  }

  /** [B, L, C] -> [B, L, C]. */
  forward(x: Tensor, bias: Tensor): Tensor {
    const { heads } = this.#config;
    const query = splitHeads(this.q.forward(x), heads); // [B, h, L, D]
    const key = splitHeads(this.k.forward(x), heads);
    const value = splitHeads(this.v.forward(x), heads);
    return this.o.forward(joinHeads(attention(query, key, value, { scale: 1, mask: bias })));
  }
}

/**
 * The bucket of a distance (place of the key minus place of the query): half of the buckets for keys that follow. Of
 * each half, one half is for small distances, one each; the other for distances up to the greatest, ever wider ones.
 * Rounded at each step to float32, whose rounding decides at the borders of buckets.
 */
export function distanceBucket(distance: number, buckets: number, maxDistance: number): number {
  const half = buckets / 2;
  const exact = Math.floor(half / 2);
  const [size, offset] = [Math.abs(distance), distance > 0 ? half : 0];
  if (size < exact) return offset + size;
  const octaves = Math.fround(Math.log(Math.fround(size / exact)));
  const share = Math.fround(octaves / Math.fround(Math.log(maxDistance / exact)));
  const wide = exact + Math.floor(Math.fround(share * (half - exact)));
  return offset + Math.min(wide, half - 1);
}

class FeedForwardLayer extends Module {
  readonly DenseReluDense: FeedForward;
  readonly layer_norm: RMSNorm;

  constructor(config: T5Config) {
    super();
    this.DenseReluDense = new FeedForward(config);
    this.layer_norm = new RMSNorm(config.width, config.eps);
  }

  forward(x: Tensor): Tensor {
    return add(x, this.DenseReluDense.forward(this.layer_norm.forward(x)));
  }
}

/** relu(x W) V, or in version 1.1 (gelu(x W0) x W1) V (arXiv 2002.05202). */
class FeedForward extends Module {
  readonly wi: Linear | null;
  readonly wi_0: Linear | null;
  readonly wi_1: Linear | null;
  readonly wo: Linear;

  constructor({ width, inner, gated, initializerFactor: factor }: T5Config) {
    super();
    const up = () => linear(width, inner, factor * width ** -0.5);
    this.wi = gated ? null : up();
    this.wi_0 = gated ? up() : null;
    this.wi_1 = gated ? up() : null;
    this.wo = linear(inner, width, factor * inner ** -0.5);
  }

  /** [B, L, C] -> [B, L, C]. */
  forward(x: Tensor): Tensor {
    if (this.wi) return this.wo.forward(relu(this.wi.forward(x)));
    return this.wo.forward(mul(geluTanh(this.wi_0!.forward(x)), this.wi_1!.forward(x)));
  }
}
