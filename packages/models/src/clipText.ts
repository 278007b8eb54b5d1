/**
 * CLIP's text encoder (arXiv 2103.00020): a causal transformer over token ids, as transformers' CLIPTextModel.
 *
 *   B batch, L tokens, C width, h heads, d = C / h head width
 */
import { constant, Embedding, LayerNorm, Linear, Module, normal } from '@deftjs/autograd/nn';
import {
  add,
  arange,
  argmax,
  attention,
  cast,
  configReader,
  equal,
  formatShape,
  gather,
  gelu,
  type JsonConfig,
  mul,
  narrow,
  quickGelu,
  reshape,
  ShapeError,
  type Tensor,
  type TensorSource,
} from '@deftjs/tensor';
import { joinHeads, splitHeads } from './transformer2d.ts';
import { renamed } from './weights.ts';

export interface ClipTextConfig {
  readonly vocabulary: number;
  readonly positions: number;
  readonly width: number;
  readonly inner: number;
  readonly layers: number;
  readonly heads: number;
  readonly eps: number;
  readonly activation: 'quick_gelu' | 'gelu';
  readonly endToken: number;
  readonly projectionWidth: number;
  readonly initializerRange: number;
  readonly initializerFactor: number;
}

/** The config, checked. @throws ConfigError */
export function readClipTextConfig(json: JsonConfig): ClipTextConfig {
  const read = configReader('CLIPTextModel', json);
  read.choice('model_type', ['clip_text_model'], 'clip_text_model');
  read.only({ attention_dropout: 0 });
  const config = {
    vocabulary: read.count('vocab_size', 49408),
    positions: read.count('max_position_embeddings', 77),
    width: read.count('hidden_size', 512),
    inner: read.count('intermediate_size', 2048),
    layers: read.count('num_hidden_layers', 12),
    heads: read.count('num_attention_heads', 8),
    eps: read.number('layer_norm_eps', 1e-5),
    activation: read.choice('hidden_act', ['quick_gelu', 'gelu'], 'quick_gelu'),
    endToken: read.count('eos_token_id', 49407),
    projectionWidth: read.count('projection_dim', 512),
    initializerRange: read.number('initializer_range', 0.02),
    initializerFactor: read.number('initializer_factor', 1),
  };
  if (config.heads === 0 || config.width % config.heads !== 0) {
    read.refuse('num_attention_heads', `expected a number of heads that divides hidden_size ${config.width}`);
  }
  return config;
}

export interface ClipTextOutput {
  /** After the last layer and the final normalisation [B, L, C]. */
  readonly lastHiddenState: Tensor;
  /** Of `lastHiddenState`, the token that ends the text [B, C]. */
  readonly pooled: Tensor;
  /** Before the first layer and after each one, not normalised: layers + 1 of [B, L, C]. */
  readonly hiddenStates: readonly Tensor[];
}

/** Parameters are named as transformers 5 names them; files of older versions say text_model. before each name. */
export class CLIPTextModel extends Module {
  readonly config: ClipTextConfig;
  readonly embeddings: Embeddings;
  readonly encoder: Encoder;
  readonly final_layer_norm: LayerNorm;

  /**
   * @param json transformers' config.json
   * @throws ConfigError
   */
  constructor(json: JsonConfig) {
    super();
    const config = readClipTextConfig(json);
    this.config = config;
    this.embeddings = new Embeddings(config);
    this.encoder = new Encoder(config);
    this.final_layer_norm = new LayerNorm(config.width, { eps: config.eps });
  }

  /**
   * @param ids token ids, i32 [B, L], L at most the number of positions
   * @throws ShapeError
   */
  forward(ids: Tensor): ClipTextOutput {
    if (ids.rank !== 2 || ids.shape[1]! > this.config.positions) {
      throw new ShapeError(
        `clipText: expected ids [B, L] with L up to ${this.config.positions}; got ${formatShape(ids.shape)}`,
      );
    }
    let x = this.embeddings.forward(ids);
    const hiddenStates = [x];
    for (const layer of this.encoder.layers) {
      x = layer.forward(x);
      hiddenStates.push(x);
    }
    const lastHiddenState = this.final_layer_norm.forward(x);
    return { lastHiddenState, pooled: pickTokens(lastHiddenState, this.endPositions(ids)), hiddenStates };
  }

  // The first configs said eos_token_id 2 whatever the vocabulary was; there the end token is the largest id.
  private endPositions(ids: Tensor): Tensor {
    const { endToken } = this.config;
    return argmax(endToken === 2 ? ids : cast(equal(ids, endToken), 'i32'), 1); // [B]
  }
}

/** Row positions[b] of batch b: [B, L, C], i32 [B] -> [B, C]. */
function pickTokens(x: Tensor, positions: Tensor): Tensor {
  const [batch, tokens, width] = x.shape as [number, number, number];
  return gather(reshape(x, [batch * tokens, width]), add(mul(arange(batch), tokens), positions));
}

/** CLIPTextModelWithProjection: what SDXL's second encoder is. */
export class CLIPTextModelWithProjection extends Module {
  readonly text_model: CLIPTextModel;
  readonly text_projection: Linear;

  /** @throws ConfigError */
  constructor(json: JsonConfig) {
    super();
    this.text_model = new CLIPTextModel(json);
    const { width, projectionWidth } = this.text_model.config;
    this.text_projection = new Linear(width, projectionWidth, { bias: false });
    this.text_projection.weight.initializer = normal(
      width ** -0.5 * this.text_model.config.initializerFactor,
    );
  }

  /** As CLIPTextModel's, and textEmbeds [B, P]: the pooled state projected. */
  forward(ids: Tensor): ClipTextOutput & { readonly textEmbeds: Tensor } {
    const output = this.text_model.forward(ids);
    return { ...output, textEmbeds: this.text_projection.forward(output.pooled) };
  }
}

/** The tensors of a CLIPTextModel file under the names that the model has, whichever version wrote it. */
export function clipTextWeights(source: TensorSource): TensorSource {
  return renamed(source, (name) => withoutPositionIds(name)?.replace(/^text_model\./, '') ?? null);
}

/** The same for a CLIPTextModelWithProjection. */
export function clipTextWithProjectionWeights(source: TensorSource): TensorSource {
  return renamed(source, withoutPositionIds);
}

// Older files hold the constant 0, 1, 2 ... under this name.
function withoutPositionIds(name: string): string | null {
  return name.endsWith('embeddings.position_ids') ? null : name;
}

class Embeddings extends Module {
  readonly token_embedding: Embedding;
  readonly position_embedding: Embedding;

  constructor({ vocabulary, positions, width, initializerRange, initializerFactor }: ClipTextConfig) {
    super();
    this.token_embedding = new Embedding(vocabulary, width);
    this.position_embedding = new Embedding(positions, width);
    this.token_embedding.weight.initializer = normal(initializerRange * initializerFactor);
    this.position_embedding.weight.initializer = normal(initializerRange * initializerFactor);
  }

  /** [B, L] -> [B, L, C]. */
  forward(ids: Tensor): Tensor {
    const positions = narrow(this.position_embedding.weight.value, 0, 0, ids.shape[1]!); // [L, C]
    return add(this.token_embedding.forward(ids), positions);
  }
}

class Encoder extends Module {
  readonly layers: readonly EncoderLayer[];

  constructor(config: ClipTextConfig) {
    super();
    this.layers = Array.from({ length: config.layers }, () => new EncoderLayer(config));
  }
}

class EncoderLayer extends Module {
  readonly layer_norm1: LayerNorm;
  readonly self_attn: CausalAttention;
  readonly layer_norm2: LayerNorm;
  readonly mlp: Mlp;

  constructor(config: ClipTextConfig) {
    super();
    this.layer_norm1 = new LayerNorm(config.width, { eps: config.eps });
    this.self_attn = new CausalAttention(config);
    this.layer_norm2 = new LayerNorm(config.width, { eps: config.eps });
    this.mlp = new Mlp(config);
  }

  forward(x: Tensor): Tensor {
    const y = add(x, this.self_attn.forward(this.layer_norm1.forward(x)));
    return add(y, this.mlp.forward(this.layer_norm2.forward(y)));
  }
}

/** A linear layer whose weights begin normal with the given deviation and whose bias begins at zero. */
function linear(inputs: number, outputs: number, std: number): Linear {
  const layer = new Linear(inputs, outputs);
  layer.weight.initializer = normal(std);
  if (layer.bias !== null) layer.bias.initializer = constant(0);
  return layer;
}

// Deeper encoders begin with smaller contributions of each layer (transformers' initialisation).
function residualStd({ width, layers, initializerFactor }: ClipTextConfig): number {
  return width ** -0.5 * (2 * layers) ** -0.5 * initializerFactor;
}

/** Multi-head attention in which a token sees itself and what comes before it. */
class CausalAttention extends Module {
  readonly heads: number;
  readonly q_proj: Linear;
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly out_proj: Linear;

  constructor(config: ClipTextConfig) {
    super();
    const { width, heads, initializerFactor } = config;
    this.heads = heads;
    this.q_proj = linear(width, width, residualStd(config));
    this.k_proj = linear(width, width, residualStd(config));
    this.v_proj = linear(width, width, residualStd(config));
    this.out_proj = linear(width, width, width ** -0.5 * initializerFactor);
  }

  /** [B, L, C] -> [B, L, C]. */
  forward(x: Tensor): Tensor {
    const query = splitHeads(this.q_proj.forward(x), this.heads); // [B, h, L, d]
    const key = splitHeads(this.k_proj.forward(x), this.heads);
    const value = splitHeads(this.v_proj.forward(x), this.heads);
    return this.out_proj.forward(joinHeads(attention(query, key, value, { causal: true })));
  }
}

class Mlp extends Module {
  readonly activation: ClipTextConfig['activation'];
  readonly fc1: Linear;
  readonly fc2: Linear;

  constructor(config: ClipTextConfig) {
    super();
    const { width, inner, initializerFactor } = config;
    this.activation = config.activation;
    this.fc1 = linear(width, inner, (2 * width) ** -0.5 * initializerFactor);
    this.fc2 = linear(inner, width, residualStd(config));
  }

  forward(x: Tensor): Tensor {
    const inner = this.fc1.forward(x);
    return this.fc2.forward(this.activation === 'gelu' ? gelu(inner) : quickGelu(inner));
  }
}
