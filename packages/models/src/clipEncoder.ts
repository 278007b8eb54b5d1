/**
 * The transformer that CLIP's two encoders are (arXiv 2103.00020): layers that normalise first, attend, and pass each
 * token through two linear maps. In text a token sees only itself and what comes before it.
 *
 *   B batch, L tokens, C width, h heads, d = C / h head width
 */
import { constant, LayerNorm, Linear, Module, normal } from '@deftjs/autograd/nn';
import { add, attention, type ConfigReader, gelu, quickGelu, type Tensor } from '@deftjs/tensor';
import { joinHeads, splitHeads } from './transformer2d.ts';

/** What the encoders of text and of pictures share. */
export interface ClipEncoderConfig {
  readonly width: number;
  readonly inner: number;
  readonly layers: number;
  readonly heads: number;
  readonly eps: number;
  readonly activation: 'quick_gelu' | 'gelu';
  readonly projectionWidth: number;
  readonly initializerRange: number;
  readonly initializerFactor: number;
}

/** The shared fields, with the defaults in which the two encoders differ. @throws ConfigError */
export function readClipEncoderConfig(
  read: ConfigReader,
  defaults: { readonly width: number; readonly inner: number; readonly heads: number },
): ClipEncoderConfig {
  read.only({ attention_dropout: 0 });
  const config = {
    width: read.count('hidden_size', defaults.width),
    inner: read.count('intermediate_size', defaults.inner),
    layers: read.count('num_hidden_layers', 12),
    heads: read.count('num_attention_heads', defaults.heads),
    eps: read.number('layer_norm_eps', 1e-5),
    activation: read.choice('hidden_act', ['quick_gelu', 'gelu'], 'quick_gelu'),
    projectionWidth: read.count('projection_dim', 512),
    initializerRange: read.number('initializer_range', 0.02),
    initializerFactor: read.number('initializer_factor', 1),
  };
  if (config.heads === 0 || config.width % config.heads !== 0) {
    read.refuse('num_attention_heads', `expected a number of heads that divides hidden_size ${config.width}`);
  }
  return config;
}

export class ClipEncoder extends Module {
  readonly layers: readonly EncoderLayer[];

  /** @param causal whether a token sees only itself and those before it */
  constructor(config: ClipEncoderConfig, causal: boolean) {
    super();
    this.layers = Array.from({ length: config.layers }, () => new EncoderLayer(config, causal));
  }

  /** What goes into the first layer and what comes out of each: layers + 1 of [B, L, C]. */
  forward(x: Tensor): Tensor[] {
    const states = [x];
    for (const layer of this.layers) states.push(layer.forward(states.at(-1)!));
    return states;
  }
}

class EncoderLayer extends Module {
  readonly layer_norm1: LayerNorm;
  readonly self_attn: ClipAttention;
  readonly layer_norm2: LayerNorm;
  readonly mlp: Mlp;

  constructor(config: ClipEncoderConfig, causal: boolean) {
    super();
    this.layer_norm1 = new LayerNorm(config.width, { eps: config.eps });
    this.self_attn = new ClipAttention(config, causal);
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
function residualStd({ width, layers, initializerFactor }: ClipEncoderConfig): number {
  return width ** -0.5 * (2 * layers) ** -0.5 * initializerFactor;
}

class ClipAttention extends Module {
  readonly heads: number;
  readonly causal: boolean;
  readonly q_proj: Linear;
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly out_proj: Linear;

  constructor(config: ClipEncoderConfig, causal: boolean) {
    super();
    const { width, heads, initializerFactor } = config;
    this.heads = heads;
    this.causal = causal;
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
    return this.out_proj.forward(joinHeads(attention(query, key, value, { causal: this.causal })));
  }
}

class Mlp extends Module {
  readonly activation: ClipEncoderConfig['activation'];
  readonly fc1: Linear;
  readonly fc2: Linear;

  constructor(config: ClipEncoderConfig) {
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
