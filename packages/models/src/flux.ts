/**
 * FluxTransformer2DModel: the rectified-flow transformer FLUX.1 (Black Forest Labs 2024), in the line of the
 * multimodal diffusion transformer (MMDiT, arXiv 2403.03206, section 4).
 *
 * Text and picture are tokens of one attention. In the first blocks each kind has weights of its own (figure 2b there);
 * in the single blocks all tokens share them and attention runs beside the feed-forward layers (arXiv 2302.05442).
 * Fields are named as in diffusers.
 *
 *   B batch, N picture tokens, L text tokens, P packed latent channels, C width, h heads, D = C / h head width
 */
import { Linear, Module, RMSNorm, timestepEmbedding } from '@deftjs/autograd/nn';
import {
  add,
  attention,
  concat,
  configReader,
  formatShape,
  geluTanh,
  type JsonConfig,
  layerNorm,
  mul,
  narrow,
  type RotaryTable,
  rope,
  ShapeError,
  type Tensor,
} from '@deftjs/tensor';
import { FeedForward } from './feedForward.ts';
import { gated, Modulation, modulate } from './modulation.ts';
import { rotationBy } from './rotary.ts';
import { TimestepEmbedding } from './timestepEmbedding.ts';
import { joinHeads, splitHeads } from './transformer2d.ts';

export interface FluxConfig {
  readonly inChannels: number;
  /** Of a picture token that comes out. */
  readonly outWidth: number;
  readonly doubleLayers: number;
  readonly singleLayers: number;
  readonly heads: number;
  readonly width: number;
  readonly textWidth: number;
  readonly pooledWidth: number;
  /** Whether it was distilled to draw as with guidance, whose scale it is told. */
  readonly guidanceEmbeds: boolean;
  /** Channels of a head that turn with each coordinate of a token's position. */
  readonly axes: readonly number[];
}

/** The config, checked. @throws ConfigError */
export function readFluxConfig(json: JsonConfig): FluxConfig {
  const read = configReader('FluxTransformer2DModel', json);
  const heads = read.count('num_attention_heads', 24);
  const headWidth = read.count('attention_head_dim', 128);
  const inChannels = read.count('in_channels', 64);
  const axes = read.numbers('axes_dims_rope', 3) ?? [16, 56, 56];
  if (heads === 0 || headWidth === 0)
    read.refuse('num_attention_heads', 'expected at least one head of channels');
  const total = axes.reduce((sum, axis) => sum + axis, 0);
  if (total !== headWidth || axes.some((axis) => axis < 0 || axis % 2 !== 0)) {
    read.refuse('axes_dims_rope', `expected even numbers that add up to attention_head_dim ${headWidth}`);
  }
  const config = {
    inChannels,
    outWidth: read.count('out_channels', inChannels) * read.count('patch_size', 1) ** 2,
    doubleLayers: read.count('num_layers', 19),
    singleLayers: read.count('num_single_layers', 38),
    heads,
    width: heads * headWidth,
    textWidth: read.count('joint_attention_dim', 4096),
    pooledWidth: read.count('pooled_projection_dim', 768),
    guidanceEmbeds: read.boolean('guidance_embeds', false),
    axes,
  };
  read.nothingBut([]);
  return config;
}

/** Where tokens are: three coordinates each, in reading order. Texts lie at the origin, pictures in the plane of the last two. */
export type FluxPositions = readonly (readonly [number, number, number])[];

/** The positions of the tokens of a picture. */
export function picturePositions(rows: number, columns: number): FluxPositions {
  return Array.from({ length: rows * columns }, (_, i) => [0, Math.floor(i / columns), i % columns]);
}

export interface FluxInputs {
  /** Packed noisy latents [B, N, P]. */
  readonly sample: Tensor;
  /** The texts as the T5 encoder left them [B, L, text width]. */
  readonly context: Tensor;
  /** The texts in one vector each, as CLIP left them [B, pooled width]. */
  readonly pooled: Tensor;
  /** Noise levels in [0, 1], f32 [B]. */
  readonly levels: Tensor;
  /** Guidance scales, f32 [B]: for a config with guidance_embeds, and only for that. */
  readonly guidance?: Tensor;
  /** Of the N picture tokens, the same for all pictures. */
  readonly positions: FluxPositions;
  /** Of the L text tokens. Default: all at the origin. */
  readonly textPositions?: FluxPositions;
}

export class FluxTransformer2DModel extends Module {
  readonly config: FluxConfig;
  readonly time_text_embed: ConditionEmbedding;
  readonly context_embedder: Linear;
  readonly x_embedder: Linear;
  readonly transformer_blocks: readonly DoubleBlock[];
  readonly single_transformer_blocks: readonly SingleBlock[];
  readonly norm_out: Modulation;
  readonly proj_out: Linear;

  /**
   * @param json diffusers' config.json
   * @throws ConfigError
   */
  constructor(json: JsonConfig) {
    super();
    const config = readFluxConfig(json);
    const { width, heads } = config;
    this.config = config;
    this.time_text_embed = new ConditionEmbedding(config);
    this.context_embedder = new Linear(config.textWidth, width);
    this.x_embedder = new Linear(config.inChannels, width);
    this.transformer_blocks = Array.from(
      { length: config.doubleLayers },
      () => new DoubleBlock(width, heads),
    );
    this.single_transformer_blocks = Array.from(
      { length: config.singleLayers },
      () => new SingleBlock(width, heads),
    );
    this.norm_out = new Modulation(width, 2);
    this.proj_out = new Linear(width, config.outWidth);
  }

  /**
   * The velocity that the network predicts for each picture token: [B, N, out width].
   * @throws ShapeError when positions and tokens differ in number; Error when guidance is missing or not understood
   */
  forward({ sample, context, pooled, levels, guidance, positions, textPositions }: FluxInputs): Tensor {
    const [, tokens] = sample.shape as [number, number];
    const [, words] = context.shape as [number, number];
    const origin: FluxPositions = Array.from({ length: words }, () => [0, 0, 0]);
    const all = [...(textPositions ?? origin), ...positions];
    if (positions.length !== tokens || all.length !== words + tokens) {
      throw new ShapeError(
        `flux: expected a position for each token of ${formatShape(sample.shape)} and ${formatShape(context.shape)}; ` +
          `got ${positions.length} and ${all.length - positions.length}`,
      );
    }
    const rotation = this.rotation(all); // [L + N, D / 2]
    const condition = this.time_text_embed.forward(levels, pooled, guidance); // [B, C]
    let image = this.x_embedder.forward(sample); // [B, N, C]
    let text = this.context_embedder.forward(context); // [B, L, C]
    for (const block of this.transformer_blocks) {
      ({ image, text } = block.forward(image, text, condition, rotation));
    }
    let joint = concat([text, image], 1); // [B, L + N, C]
    for (const block of this.single_transformer_blocks) joint = block.forward(joint, condition, rotation);
    image = narrow(joint, 1, words, tokens);
    const [scale, shift] = this.norm_out.forward(condition) as [Tensor, Tensor];
    return this.proj_out.forward(modulate(normed(image), shift, scale));
  }

  /** Angles x_a 10000^(-2 i / d_a): one coordinate after another, each with d_a / 2 of the pairs. */
  private rotation(positions: FluxPositions): RotaryTable {
    const { axes, width, heads } = this.config;
    const angles = positions.flatMap((position) =>
      axes.flatMap((d, a) => Array.from({ length: d / 2 }, (_, i) => position[a]! * 10000 ** ((-2 * i) / d))),
    );
    return rotationBy(Float64Array.from(angles), [positions.length, width / heads / 2]);
  }
}

/** Layer normalisation without weights: what every modulation here acts on. */
function normed(x: Tensor): Tensor {
  return layerNorm(x, null, null, 1e-6);
}

/** The condition of all blocks: noise level, guidance scale and pooled text, each embedded, added. */
class ConditionEmbedding extends Module {
  readonly timestep_embedder: TimestepEmbedding;
  readonly guidance_embedder: TimestepEmbedding | null;
  readonly text_embedder: TimestepEmbedding;

  constructor({ width, pooledWidth, guidanceEmbeds }: FluxConfig) {
    super();
    this.timestep_embedder = new TimestepEmbedding(waveFeatures, width);
    this.guidance_embedder = guidanceEmbeds ? new TimestepEmbedding(waveFeatures, width) : null;
    this.text_embedder = new TimestepEmbedding(pooledWidth, width);
  }

  /** [B], [B, pooled width], [B] -> [B, C]. */
  forward(levels: Tensor, pooled: Tensor, guidance: Tensor | undefined): Tensor {
    const condition = add(this.timestep_embedder.forward(waves(levels)), this.text_embedder.forward(pooled));
    if ((this.guidance_embedder === null) !== (guidance === undefined)) {
      const expected = this.guidance_embedder === null ? 'no guidance scales' : 'guidance scales';
      throw new Error(`flux: expected ${expected} for this config`);
    }
    if (this.guidance_embedder === null || guidance === undefined) return condition;
    return add(condition, this.guidance_embedder.forward(waves(guidance)));
  }
}

const waveFeatures = 256;

/** Features of numbers of the size of 1: [B] -> [B, 256]. */
function waves(x: Tensor): Tensor {
  return timestepEmbedding(mul(x, 1000), waveFeatures, { flipSinToCos: true, frequencyShift: 0 });
}

/** Queries, keys and values [B, h, L, D] of some tokens, queries and keys normalised (arXiv 2302.05442). */
function headsOf(
  x: Tensor,
  heads: number,
  projections: { q: Linear; k: Linear; v: Linear; normQ: RMSNorm; normK: RMSNorm },
): [Tensor, Tensor, Tensor] {
  const { q, k, v, normQ, normK } = projections;
  return [
    normQ.forward(splitHeads(q.forward(x), heads)),
    normK.forward(splitHeads(k.forward(x), heads)),
    splitHeads(v.forward(x), heads),
  ];
}

/** Attention among tokens that know where they are: [B, h, L, D] each -> [B, L, C]. */
function attend([query, key, value]: readonly Tensor[], rotation: RotaryTable): Tensor {
  const turned = [query!, key!].map((x) => rope(x, rotation, { pairs: 'interleaved' })) as [Tensor, Tensor];
  return joinHeads(attention(...turned, value!));
}

/** Attention of text and picture together, projected by weights of their own. */
class JointAttention extends Module {
  readonly heads: number;
  readonly norm_q: RMSNorm;
  readonly norm_k: RMSNorm;
  readonly to_q: Linear;
  readonly to_k: Linear;
  readonly to_v: Linear;
  readonly to_out: readonly [Linear];
  readonly norm_added_q: RMSNorm;
  readonly norm_added_k: RMSNorm;
  readonly add_q_proj: Linear;
  readonly add_k_proj: Linear;
  readonly add_v_proj: Linear;
  readonly to_add_out: Linear;

  constructor(width: number, heads: number) {
    super();
    const linear = () => new Linear(width, width);
    const norm = () => new RMSNorm(width / heads, 1e-6);
    this.heads = heads;
    this.norm_q = norm();
    this.norm_k = norm();
    this.to_q = linear();
    this.to_k = linear();
    this.to_v = linear();
    this.to_out = [linear()];
    this.norm_added_q = norm();
    this.norm_added_k = norm();
    this.add_q_proj = linear();
    this.add_k_proj = linear();
    this.add_v_proj = linear();
    this.to_add_out = linear();
  }

  /** [B, N, C], [B, L, C] -> the same. */
  forward(image: Tensor, text: Tensor, rotation: RotaryTable): { image: Tensor; text: Tensor } {
    const ofText = headsOf(text, this.heads, {
      q: this.add_q_proj,
      k: this.add_k_proj,
      v: this.add_v_proj,
      normQ: this.norm_added_q,
      normK: this.norm_added_k,
    });
    const ofImage = headsOf(image, this.heads, {
      q: this.to_q,
      k: this.to_k,
      v: this.to_v,
      normQ: this.norm_q,
      normK: this.norm_k,
    });
    const joint = ofText.map((words, i) => concat([words, ofImage[i]!], 2)); // [B, h, L + N, D]
    const attended = attend(joint, rotation); // [B, L + N, C]
    const words = text.shape[1]!;
    return {
      text: this.to_add_out.forward(narrow(attended, 1, 0, words)),
      image: this.to_out[0].forward(narrow(attended, 1, words, image.shape[1]!)),
    };
  }
}

/** The blocks in which text and picture have weights of their own (MMDiT, figure 2b). */
class DoubleBlock extends Module {
  readonly norm1: Modulation;
  readonly norm1_context: Modulation;
  readonly attn: JointAttention;
  readonly ff: FeedForward;
  readonly ff_context: FeedForward;

  constructor(width: number, heads: number) {
    super();
    this.norm1 = new Modulation(width, 6);
    this.norm1_context = new Modulation(width, 6);
    this.attn = new JointAttention(width, heads);
    this.ff = new FeedForward(width, 'gelu-approximate');
    this.ff_context = new FeedForward(width, 'gelu-approximate');
  }

  /** [B, N, C], [B, L, C] -> the same. */
  forward(
    image: Tensor,
    text: Tensor,
    condition: Tensor,
    rotation: RotaryTable,
  ): { image: Tensor; text: Tensor } {
    const ofImage = this.norm1.forward(condition) as SixVectors;
    const ofText = this.norm1_context.forward(condition) as SixVectors;
    const attended = this.attn.forward(
      modulate(normed(image), ofImage[0], ofImage[1]),
      modulate(normed(text), ofText[0], ofText[1]),
      rotation,
    );
    const finish = (
      x: Tensor,
      update: Tensor,
      ff: FeedForward,
      [, , gate1, shift, scale, gate2]: SixVectors,
    ) => {
      const y = add(x, gated(update, gate1));
      return add(y, gated(ff.forward(modulate(normed(y), shift, scale)), gate2));
    };
    return {
      image: finish(image, attended.image, this.ff, ofImage),
      text: finish(text, attended.text, this.ff_context, ofText),
    };
  }
}

/** Shift, scale and gate of the attention, then of the feed-forward layers, each [B, C]. */
type SixVectors = [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];

/** Attention of tokens that share all weights; what it gives goes into the block's one output projection. */
class SingleAttention extends Module {
  readonly heads: number;
  readonly norm_q: RMSNorm;
  readonly norm_k: RMSNorm;
  readonly to_q: Linear;
  readonly to_k: Linear;
  readonly to_v: Linear;

  constructor(width: number, heads: number) {
    super();
    this.heads = heads;
    this.norm_q = new RMSNorm(width / heads, 1e-6);
    this.norm_k = new RMSNorm(width / heads, 1e-6);
    this.to_q = new Linear(width, width);
    this.to_k = new Linear(width, width);
    this.to_v = new Linear(width, width);
  }

  /** [B, L + N, C] -> the same. */
  forward(x: Tensor, rotation: RotaryTable): Tensor {
    const { to_q: q, to_k: k, to_v: v, norm_q: normQ, norm_k: normK } = this;
    return attend(headsOf(x, this.heads, { q, k, v, normQ, normK }), rotation);
  }
}

/** Attention and feed-forward layers side by side, their results joined in one projection. */
class SingleBlock extends Module {
  readonly norm: Modulation;
  readonly attn: SingleAttention;
  readonly proj_mlp: Linear;
  readonly proj_out: Linear;

  constructor(width: number, heads: number) {
    super();
    this.norm = new Modulation(width, 3);
    this.attn = new SingleAttention(width, heads);
    this.proj_mlp = new Linear(width, 4 * width);
    this.proj_out = new Linear(5 * width, width);
  }

  /** [B, L + N, C] -> the same. */
  forward(x: Tensor, condition: Tensor, rotation: RotaryTable): Tensor {
    const [shift, scale, gate] = this.norm.forward(condition) as [Tensor, Tensor, Tensor];
    const y = modulate(normed(x), shift, scale);
    const inner = concat([this.attn.forward(y, rotation), geluTanh(this.proj_mlp.forward(y))], 2); // [B, L + N, 5 C]
    return add(x, gated(this.proj_out.forward(inner), gate));
  }
}
