/**
 * DiTTransformer2DModel: the diffusion transformer (DiT, arXiv 2212.09748), conditioned on a class.
 *
 * A latent is cut into patches, which are tokens; each block is a transformer block whose normalisations are steered
 * by time and class (adaLN-Zero, figure 3 there). Fields are named as in diffusers.
 *
 *   B batch, Z latent channels, H W latent pixels, p patch size, L = H W / p^2 tokens, C width, h heads, K classes
 */
import { Conv2d, Embedding, LayerNorm, Linear, Module, timestepEmbedding } from '@deftjs/autograd/nn';
import { add, configReader, type JsonConfig, layerNorm, silu, split, type Tensor } from '@deftjs/tensor';
import { FeedForward, type FeedForwardActivation, feedForwardActivations } from './feedForward.ts';
import { gated, modulate } from './modulation.ts';
import { gridPositions, patchGrid, unpatchify } from './patches.ts';
import { TimestepEmbedding } from './timestepEmbedding.ts';
import { Attention, toTokens } from './transformer2d.ts';

export interface DiTConfig {
  readonly heads: number;
  readonly width: number;
  readonly inChannels: number;
  /** Twice the input's where the network predicts variances beside the noise. */
  readonly outChannels: number;
  readonly layers: number;
  readonly attentionBias: boolean;
  /** Latent pixels across the pictures that it was trained on. */
  readonly sampleSize: number;
  readonly patchSize: number;
  readonly activation: FeedForwardActivation;
  readonly classes: number;
  /** Whether the normalisation before the feed-forward layers has weights of its own. */
  readonly affine: boolean;
  /** Of that normalisation; the others have 1e-6. */
  readonly eps: number;
}

/** The config, checked. @throws ConfigError */
export function readDiTConfig(json: JsonConfig): DiTConfig {
  const read = configReader('DiTTransformer2DModel', json);
  const heads = read.count('num_attention_heads', 16);
  const inChannels = read.count('in_channels', 4);
  read.choice('norm_type', ['ada_norm_zero'], 'ada_norm_zero');
  read.boolean('upcast_attention', false); // to float32, which attention is computed in anyway
  read.only({ dropout: 0 });
  const config = {
    heads,
    width: heads * read.count('attention_head_dim', 72),
    inChannels,
    outChannels: read.count('out_channels', inChannels),
    layers: read.count('num_layers', 28),
    attentionBias: read.boolean('attention_bias', true),
    sampleSize: read.count('sample_size', 32),
    patchSize: read.count('patch_size', 2),
    activation: read.choice('activation_fn', feedForwardActivations, 'gelu-approximate'),
    classes: read.count('num_embeds_ada_norm', 1000),
    affine: read.boolean('norm_elementwise_affine', false),
    eps: read.number('norm_eps', 1e-5),
  };
  if (config.width === 0 || config.width % 4 !== 0) {
    read.refuse('attention_head_dim', 'expected heads of which all together have channels in multiples of 4');
  }
  if (config.layers === 0) read.refuse('num_layers', 'expected at least one');
  if (config.patchSize === 0) read.refuse('patch_size', 'expected at least one');
  read.nothingBut(['norm_num_groups']); // of other classes that share the config: there is no group norm here
  return config;
}

export class DiTTransformer2DModel extends Module {
  readonly config: DiTConfig;
  readonly pos_embed: PatchEmbed;
  readonly transformer_blocks: readonly Block[];
  readonly proj_out_1: Linear;
  readonly proj_out_2: Linear;

  /**
   * @param json diffusers' config.json
   * @throws ConfigError
   */
  constructor(json: JsonConfig) {
    super();
    const config = readDiTConfig(json);
    const { width, patchSize, outChannels } = config;
    this.config = config;
    this.pos_embed = new PatchEmbed(config);
    this.transformer_blocks = Array.from({ length: config.layers }, () => new Block(config));
    this.proj_out_1 = new Linear(width, 2 * width);
    this.proj_out_2 = new Linear(width, patchSize ** 2 * outChannels);
  }

  /**
   * The network's prediction for noisy latents: [B, out channels, H, W].
   *
   * @param sample [B, Z, H, W], H and W multiples of p
   * @param timesteps [B], i32 or f32
   * @param labels i32 [B]: the classes, K for none
   * @throws ShapeError
   */
  forward(sample: Tensor, timesteps: Tensor, labels: Tensor): Tensor {
    const { inChannels, patchSize } = this.config;
    const grid = patchGrid('dit', sample, inChannels, patchSize);
    let x = this.pos_embed.forward(sample, grid); // [B, L, C]
    for (const block of this.transformer_blocks) x = block.forward(x, timesteps, labels);
    const condition = this.transformer_blocks[0]!.norm1.emb.forward(timesteps, labels); // [B, C]
    const [shift, scale] = split(this.proj_out_1.forward(silu(condition)), 2) as [Tensor, Tensor];
    const tokens = this.proj_out_2.forward(modulate(layerNorm(x, null, null, 1e-6), shift, scale)); // [B, L, p p out]
    return unpatchify(tokens, grid, patchSize, 'pqc');
  }
}

/** "Patchify" (section 3.2): a convolution that sees each pixel once, and positions of its results. */
class PatchEmbed extends Module {
  readonly proj: Conv2d;
  readonly #width: number;
  readonly #baseSize: number;

  constructor({ inChannels, width, patchSize, sampleSize }: DiTConfig) {
    super();
    this.proj = new Conv2d(inChannels, width, patchSize, { stride: patchSize });
    this.#width = width;
    this.#baseSize = Math.floor(sampleSize / patchSize);
  }

  /** [B, Z, H, W] -> [B, L, C]. */
  forward(sample: Tensor, [rows, columns]: readonly [number, number]): Tensor {
    const positions = gridPositions(this.#width, rows, columns, this.#baseSize); // [L, C]
    return add(toTokens(this.proj.forward(sample)), positions);
  }
}

/** The condition c of a block: time and class, added. */
class ConditionEmbedding extends Module {
  readonly timestep_embedder: TimestepEmbedding;
  readonly class_embedder: { readonly embedding_table: Embedding };

  constructor({ width, classes }: DiTConfig) {
    super();
    this.timestep_embedder = new TimestepEmbedding(timeFeatures, width);
    this.class_embedder = { embedding_table: new Embedding(classes + 1, width) };
  }

  /** [B], [B] -> [B, C]. */
  forward(timesteps: Tensor, labels: Tensor): Tensor {
    const waves = timestepEmbedding(timesteps, timeFeatures, { flipSinToCos: true, frequencyShift: 1 });
    const label = this.class_embedder.embedding_table.forward(labels);
    return add(this.timestep_embedder.forward(waves), label);
  }
}

const timeFeatures = 256;

/** The six vectors that steer a block. */
class AdaLayerNormZero extends Module {
  readonly emb: ConditionEmbedding;
  readonly linear: Linear;

  constructor(config: DiTConfig) {
    super();
    this.emb = new ConditionEmbedding(config);
    this.linear = new Linear(config.width, 6 * config.width);
  }

  /** Shift, scale and gate of the attention, then of the feed-forward layers, each [B, C]. */
  forward(timesteps: Tensor, labels: Tensor): [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] {
    const condition = this.emb.forward(timesteps, labels);
    return split(this.linear.forward(silu(condition)), 6) as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];
  }
}

/** A DiT block with adaLN-Zero (figure 3). */
class Block extends Module {
  readonly norm1: AdaLayerNormZero;
  readonly attn1: Attention;
  readonly norm3: LayerNorm;
  readonly ff: FeedForward;

  constructor(config: DiTConfig) {
    super();
    const { width, heads, attentionBias, affine, eps, activation } = config;
    this.norm1 = new AdaLayerNormZero(config);
    this.attn1 = new Attention(width, width, heads, { bias: attentionBias });
    this.norm3 = new LayerNorm(width, { eps, affine });
    this.ff = new FeedForward(width, activation);
  }

  /** [B, L, C] -> [B, L, C]. */
  forward(x: Tensor, timesteps: Tensor, labels: Tensor): Tensor {
    const [shift1, scale1, gate1, shift2, scale2, gate2] = this.norm1.forward(timesteps, labels);
    const attended = this.attn1.forward(modulate(layerNorm(x, null, null, 1e-6), shift1, scale1));
    const y = add(x, gated(attended, gate1));
    return add(y, gated(this.ff.forward(modulate(this.norm3.forward(y), shift2, scale2)), gate2));
  }
}
