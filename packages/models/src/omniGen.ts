/**
 * OmniGenTransformer2DModel: one transformer for instructions of text and pictures (OmniGen, arXiv 2409.11340, section 2.1).
 *
 * A sequence holds the instruction, whose pictures stand among its words as patches, then one token that tells the time,
 * then the patches of the noisy latent. The transformer is a language model's (Phi-3: RMS norm, rotary positions, SwiGLU);
 * what it leaves in the last tokens is the velocity x1 - x0 of the rectified flow x_t = t x1 + (1 - t) x0, x1 data.
 * Fields are named as in diffusers.
 *
 *   B batch, Z latent channels, H W latent pixels, p patch size, L instruction tokens, M = H W / p^2, N = L + 1 + M,
 *   C width, h heads, D = C / h head width
 */
import {
  Conv2d,
  Embedding,
  Linear,
  Module,
  Parameter,
  RMSNorm,
  timestepEmbedding,
} from '@deftjs/autograd/nn';
import {
  add,
  attention,
  concat,
  configReader,
  formatShape,
  gather,
  type HostTensor,
  type JsonConfig,
  layerNorm,
  mul,
  narrow,
  type RotaryTable,
  reshape,
  rope,
  ShapeError,
  silu,
  slice,
  split,
  type Tensor,
  type TensorSource,
  unsqueeze,
} from '@deftjs/tensor';
import { Modulation, modulate } from './modulation.ts';
import { gridPositions, patchGrid, unpatchify } from './patches.ts';
import { rotationBy } from './rotary.ts';
import { TimestepEmbedding } from './timestepEmbedding.ts';
import { joinHeads, splitHeads, toTokens } from './transformer2d.ts';
import { renamed } from './weights.ts';

export interface OmniGenConfig {
  readonly channels: number;
  readonly patchSize: number;
  readonly width: number;
  readonly inner: number;
  readonly layers: number;
  readonly heads: number;
  readonly eps: number;
  readonly vocabulary: number;
  /** Rows and columns of patches that positions are made for. */
  readonly positions: number;
  readonly timeWidth: number;
  readonly flipSinToCos: boolean;
  readonly frequencyShift: number;
  readonly rope: RopeScaling;
}

/** "su" rotary positions (LongRoPE, arXiv 2402.13753): frequencies divided by factors made for short or long sequences. */
export interface RopeScaling {
  readonly base: number;
  readonly shortFactors: readonly number[];
  readonly longFactors: readonly number[];
  /** The longest sequence that takes the short factors. */
  readonly shortLength: number;
  readonly longestLength: number;
}

/** The config, checked. @throws ConfigError */
export function readOmniGenConfig(json: JsonConfig): OmniGenConfig {
  const name = 'OmniGenTransformer2DModel';
  const read = configReader(name, json);
  const heads = read.count('num_attention_heads', 32);
  const width = read.count('hidden_size', 3072);
  if (heads === 0 || width % heads !== 0 || (width / heads) % 2 !== 0 || width % 4 !== 0) {
    read.refuse('num_attention_heads', `expected heads of an even width that divide hidden_size ${width}`);
  }
  if (read.count('num_key_value_heads', heads) !== heads) {
    read.refuse('num_key_value_heads', `not supported; expected ${heads}, as many as num_attention_heads`);
  }
  read.choice('timestep_activation_fn', ['silu'], 'silu');
  const pairs = width / heads / 2;
  const scaling = json.rope_scaling ?? null;
  if (!read.has('rope_scaling') || typeof scaling !== 'object' || Array.isArray(scaling)) {
    read.refuse('rope_scaling', 'expected an object with short_factor and long_factor');
  }
  const rope = configReader(`${name}: rope_scaling`, scaling as JsonConfig);
  rope.choice('type', ['su', 'longrope'], 'su');
  const factors = (key: string) =>
    rope.numbers(key, pairs) ?? rope.refuse(key, `expected a list of ${pairs} numbers`);
  const config = {
    channels: read.count('in_channels', 4),
    patchSize: read.count('patch_size', 2),
    width,
    inner: read.count('intermediate_size', 8192),
    layers: read.count('num_layers', 32),
    heads,
    eps: read.number('rms_norm_eps', 1e-5),
    vocabulary: read.count('vocab_size', 32064),
    positions: read.count('pos_embed_max_size', 192),
    timeWidth: read.count('time_step_dim', 256),
    flipSinToCos: read.boolean('flip_sin_to_cos', true),
    frequencyShift: read.number('downscale_freq_shift', 0),
    rope: {
      base: read.number('rope_base', 10000),
      shortFactors: factors('short_factor'),
      longFactors: factors('long_factor'),
      shortLength: read.count('original_max_position_embeddings', 4096),
      longestLength: read.count('max_position_embeddings', 131072),
    },
  };
  if (config.patchSize === 0) read.refuse('patch_size', 'expected at least one');
  rope.nothingBut(['original_max_position_embeddings']); // the model's own field of that name is the one that counts
  read.nothingBut(['pad_token_id']); // which token padding shows: no token attends to it
  return config;
}

type Positions = readonly (readonly number[])[] | Tensor;

export interface OmniGenInputs {
  /** Noisy latents [B, Z, H, W]. */
  readonly sample: Tensor;
  /** Times in [0, 1], 1 where the data is: f32 [B]. */
  readonly times: Tensor;
  /** The instructions: token ids, i32 [B, L]. */
  readonly ids: Tensor;
  /** The pictures of all instructions in their order, those of one size together: [n, Z, h, w]. */
  readonly images?: readonly Tensor[];
  /**
   * What stands at each place of the instructions, i32 [B, L], where they have pictures: k < B L is word k of `ids` in
   * reading order, B L + k the k-th patch of the pictures.
   */
  readonly places?: Tensor;
  /** Which tokens a token attends to: bool [B, N, N]. */
  readonly mask: Tensor;
  /** The positions of the N tokens: one list for each of the batch, or one for all; or, all below N, i32 [B, N]. */
  readonly positions: Positions;
}

export class OmniGenTransformer2DModel extends Module {
  readonly config: OmniGenConfig;
  readonly patch_embedding: PatchEmbedding;
  readonly time_token: TimestepEmbedding;
  readonly t_embedder: TimestepEmbedding;
  readonly embed_tokens: Embedding;
  readonly layers: readonly Layer[];
  readonly norm: RMSNorm;
  readonly norm_out: Modulation;
  readonly proj_out: Linear;

  /**
   * @param json diffusers' config.json
   * @throws ConfigError
   */
  constructor(json: JsonConfig) {
    super();
    const config = readOmniGenConfig(json);
    const { width, timeWidth, channels, patchSize } = config;
    this.config = config;
    this.patch_embedding = new PatchEmbedding(config);
    this.time_token = new TimestepEmbedding(timeWidth, width);
    this.t_embedder = new TimestepEmbedding(timeWidth, width);
    this.embed_tokens = new Embedding(config.vocabulary, width);
    this.layers = Array.from({ length: config.layers }, () => new Layer(config));
    this.norm = new RMSNorm(width, config.eps);
    this.norm_out = new Modulation(width, 2);
    this.proj_out = new Linear(width, patchSize ** 2 * channels);
  }

  /**
   * The velocity that the network predicts: [B, Z, H, W].
   * @throws ShapeError when H or W is no multiple of p or too large for the positions, the mask or the positions are
   *   for another number of tokens, or there are pictures and no places, or places for other instructions
   */
  forward({ sample, times, ids, images = [], places, mask, positions }: OmniGenInputs): Tensor {
    const { channels, patchSize, timeWidth, flipSinToCos, frequencyShift } = this.config;
    const grid = patchGrid('omniGen', sample, channels, patchSize);
    const outputs = grid[0] * grid[1];
    const [batch, words] = ids.shape as [number, number];
    const total = words + 1 + outputs;
    const placed = 'shape' in positions ? [positions.shape[1] ?? 0] : positions.map((row) => row.length);
    if (mask.shape.join() !== [batch, total, total].join() || placed.some((length) => length !== total)) {
      throw new ShapeError(
        `omniGen: expected a mask [${batch}, ${total}, ${total}] and ${total} positions; got ` +
          `${formatShape(mask.shape)} and ${placed}`,
      );
    }
    const waves = timestepEmbedding(times, timeWidth, { flipSinToCos, frequencyShift });
    let x = concat(
      [
        this.embedInstructions(ids, images, places), // [B, L, C]
        unsqueeze(this.time_token.forward(waves), 1), // [B, 1, C]
        this.patch_embedding.forward(sample, 'output'), // [B, M, C]
      ],
      1,
    ); // [B, N, C]
    const rotation = this.rotation(positions);
    const seen = unsqueeze(mask, 1); // [B, 1, N, N]
    for (const layer of this.layers) x = layer.forward(x, seen, rotation);
    const last = narrow(this.norm.forward(x), 1, words + 1, outputs); // [B, M, C]
    const [shift, scale] = this.norm_out.forward(this.t_embedder.forward(waves)) as [Tensor, Tensor];
    const tokens = this.proj_out.forward(modulate(layerNorm(last, null, null, 1e-6), shift, scale)); // [B, M, p p Z]
    return unpatchify(tokens, grid, patchSize, 'pqc');
  }

  /** Words and, in the places of pictures, their patches: [B, L] -> [B, L, C]. */
  private embedInstructions(ids: Tensor, images: readonly Tensor[], places?: Tensor): Tensor {
    const tokens = this.embed_tokens.forward(ids); // [B, L, C]
    if (images.length === 0) return tokens;
    if (places?.shape.join() !== ids.shape.join()) {
      throw new ShapeError(
        `omniGen: expected places ${formatShape(ids.shape)} for the pictures; got ${places ? formatShape(places.shape) : 'none'}`,
      );
    }
    const rows = (x: Tensor): Tensor => reshape(x, [-1, this.config.width]);
    const patches = images.map((latents) => rows(this.patch_embedding.forward(latents, 'input')));
    return gather(concat([rows(tokens), ...patches]), places);
  }

  /**
   * Angles n / (f_i base^(2 i / D)) with short or long factors f; cosines and sines weigh sqrt(1 + ln s / ln length),
   * where s is how far the longest sequence goes beyond the short one (LongRoPE, section 3.3). diffusers turns all rows
   * of a batch by the positions of the first; here every row has its own, which is what the model was trained with.
   */
  private rotation(positions: Positions): RotaryTable {
    if ('shape' in positions) {
      const all = this.rotation([Array.from({ length: positions.shape[1]! }, (_, i) => i)]); // [1, 1, N, D / 2]
      const turned = (table: Tensor): Tensor =>
        unsqueeze(gather(reshape(table, table.shape.slice(2)), positions), 1);
      return { cos: turned(all.cos), sin: turned(all.sin) }; // [B, 1, N, D / 2]
    }
    const { base, shortFactors, longFactors, shortLength, longestLength } = this.config.rope;
    const longest = positions.reduce((most, row) => row.reduce((a, n) => Math.max(a, n + 1), most), 0);
    const factors = longest > shortLength ? longFactors : shortFactors;
    const beyond = longestLength / shortLength;
    const scale = beyond <= 1 ? 1 : Math.sqrt(1 + Math.log(beyond) / Math.log(shortLength));
    const pairs = factors.length;
    const frequencies = factors.map((factor, i) => 1 / (factor * base ** (i / pairs)));
    const angles = positions.flatMap((row) => row.flatMap((n) => frequencies.map((f) => n * f)));
    return rotationBy(
      Float64Array.from(angles),
      [positions.length, 1, positions[0]?.length ?? 0, pairs],
      scale,
    ); // [B or 1, 1, N, D / 2]
  }
}

/** Patches of pictures, with one projection for those that instruct and one for the one that is drawn. */
class PatchEmbedding extends Module {
  readonly output_image_proj: Conv2d;
  readonly input_image_proj: Conv2d;
  /** Positions of a large grid [1, S S, C], from whose middle smaller ones are cut. */
  readonly pos_embed: Parameter;
  readonly #config: OmniGenConfig;

  constructor(config: OmniGenConfig) {
    super();
    const { channels, width, patchSize, positions } = config;
    this.output_image_proj = new Conv2d(channels, width, patchSize, { stride: patchSize });
    this.input_image_proj = new Conv2d(channels, width, patchSize, { stride: patchSize });
    this.pos_embed = new Parameter([1, positions ** 2, width], (shape) =>
      reshape(gridPositions(width, positions, positions, 64), shape),
    );
    this.pos_embed.trainable = false; // a table, though files hold it
    this.#config = config;
  }

  /** [B, Z, H, W] -> [B, H W / p^2, C]. */
  forward(latents: Tensor, role: 'input' | 'output'): Tensor {
    const { channels, patchSize, positions: size, width } = this.#config;
    const [rows, columns] = patchGrid('omniGen', latents, channels, patchSize);
    if (rows > size || columns > size) {
      throw new ShapeError(
        `omniGen: expected at most ${size} x ${size} patches; got ${formatShape(latents.shape)}`,
      );
    }
    const project = role === 'input' ? this.input_image_proj : this.output_image_proj;
    const [top, left] = [Math.floor((size - rows) / 2), Math.floor((size - columns) / 2)];
    const table = reshape(this.pos_embed.value, [size, size, width]);
    const cut = slice(table, [top, left, 0], [top + rows, left + columns, width]);
    return add(toTokens(project.forward(latents)), reshape(cut, [rows * columns, width]));
  }
}

/** A layer of the language model: attention, then SwiGLU, each after an RMS norm. */
class Layer extends Module {
  readonly input_layernorm: RMSNorm;
  readonly self_attn: SelfAttention;
  readonly post_attention_layernorm: RMSNorm;
  readonly mlp: GatedMlp;

  constructor(config: OmniGenConfig) {
    super();
    this.input_layernorm = new RMSNorm(config.width, config.eps);
    this.self_attn = new SelfAttention(config);
    this.post_attention_layernorm = new RMSNorm(config.width, config.eps);
    this.mlp = new GatedMlp(config);
  }

  /** [B, N, C], bool [B, 1, N, N] -> [B, N, C]. */
  forward(x: Tensor, mask: Tensor, rotation: RotaryTable): Tensor {
    const y = add(x, this.self_attn.forward(this.input_layernorm.forward(x), mask, rotation));
    return add(y, this.mlp.forward(this.post_attention_layernorm.forward(y)));
  }
}

class SelfAttention extends Module {
  readonly heads: number;
  readonly to_q: Linear;
  readonly to_k: Linear;
  readonly to_v: Linear;
  readonly to_out: readonly [Linear];

  constructor({ width, heads }: OmniGenConfig) {
    super();
    const linear = () => new Linear(width, width, { bias: false });
    this.heads = heads;
    this.to_q = linear();
    this.to_k = linear();
    this.to_v = linear();
    this.to_out = [linear()];
  }

  forward(x: Tensor, mask: Tensor, rotation: RotaryTable): Tensor {
    const query = rope(splitHeads(this.to_q.forward(x), this.heads), rotation, { pairs: 'halves' }); // [B, h, N, D]
    const key = rope(splitHeads(this.to_k.forward(x), this.heads), rotation, { pairs: 'halves' });
    const value = splitHeads(this.to_v.forward(x), this.heads);
    return this.to_out[0].forward(joinHeads(attention(query, key, value, { mask })));
  }
}

/** SwiGLU (arXiv 2002.05202): W2 (silu(g) u), g and u the halves of one projection. */
class GatedMlp extends Module {
  readonly gate_up_proj: Linear;
  readonly down_proj: Linear;

  constructor({ width, inner }: OmniGenConfig) {
    super();
    this.gate_up_proj = new Linear(width, 2 * inner, { bias: false });
    this.down_proj = new Linear(inner, width, { bias: false });
  }

  forward(x: Tensor): Tensor {
    const [gate, up] = split(this.gate_up_proj.forward(x), 2) as [Tensor, Tensor];
    return this.down_proj.forward(mul(silu(gate), up));
  }
}

/** What the checkpoint of the paper's authors calls things, and what they are called here. */
const authorsNames: readonly (readonly [RegExp, string])[] = [
  [/^llm\./, ''],
  [/^pos_embed$/, 'patch_embedding.pos_embed'],
  [/^x_embedder\.proj\./, 'patch_embedding.output_image_proj.'],
  [/^input_x_embedder\.proj\./, 'patch_embedding.input_image_proj.'],
  [/^final_layer\.adaLN_modulation\.1\./, 'norm_out.linear.'],
  [/^final_layer\.linear\./, 'proj_out.'],
  [/^(time_token|t_embedder)\.mlp\.0\./, '$1.linear_1.'],
  [/^(time_token|t_embedder)\.mlp\.2\./, '$1.linear_2.'],
  [/\.self_attn\.o_proj\./, '.self_attn.to_out.0.'],
];

const fused = /\.self_attn\.qkv_proj\.weight$/;
const projections = ['to_q', 'to_k', 'to_v'];

/**
 * The tensors of an OmniGen file under the names that the model has: diffusers' files as they are, those of the paper's
 * authors with their names changed and each fused qkv_proj [3 C, C] as its three parts.
 */
export function omniGenWeights(source: TensorSource): TensorSource {
  const named = renamed(source, (name) =>
    authorsNames.reduce((changed, [from, to]) => changed.replace(from, to), name),
  );
  const parts = new Map<string, { whole: string; part: number }>();
  const names = named.names.flatMap((name) => {
    if (!fused.test(name)) return [name];
    return projections.map((projection, part) => {
      const split = name.replace(fused, `.self_attn.${projection}.weight`);
      parts.set(split, { whole: name, part });
      return split;
    });
  });
  return {
    source: source.source,
    names,
    info(name) {
      const found = parts.get(name);
      if (found === undefined) return named.info(name);
      const info = named.info(found.whole);
      const [rows = 0, ...rest] = info.shape;
      return { ...info, shape: [rows / projections.length, ...rest] };
    },
    async read(name): Promise<HostTensor> {
      const found = parts.get(name);
      if (found === undefined) return named.read(name);
      const { data, shape, dtype } = await named.read(found.whole);
      const length = data.length / projections.length;
      return {
        dtype,
        shape: [shape[0]! / projections.length, ...shape.slice(1)],
        data: data.subarray(found.part * length, (found.part + 1) * length),
      };
    },
  };
}
