/**
 * CLIP's text encoder (arXiv 2103.00020): a causal transformer over token ids, as transformers' CLIPTextModel.
 *
 *   B batch, L tokens, C width
 */
import { Embedding, LayerNorm, Linear, Module, normal } from '@deftjs/autograd/nn';
import {
  add,
  arange,
  argmax,
  cast,
  configReader,
  equal,
  formatShape,
  gather,
  type JsonConfig,
  mul,
  narrow,
  reshape,
  ShapeError,
  type Tensor,
  type TensorSource,
} from '@deftjs/tensor';
import { ClipEncoder, type ClipEncoderConfig, readClipEncoderConfig } from './clipEncoder.ts';
import { renamed } from './weights.ts';

export interface ClipTextConfig extends ClipEncoderConfig {
  readonly vocabulary: number;
  readonly positions: number;
  readonly endToken: number;
}

/** The config, checked. @throws ConfigError */
export function readClipTextConfig(json: JsonConfig): ClipTextConfig {
  const read = configReader('CLIPTextModel', json);
  read.choice('model_type', ['clip_text_model'], 'clip_text_model');
  return {
    ...readClipEncoderConfig(read, { width: 512, inner: 2048, heads: 8 }),
    vocabulary: read.count('vocab_size', 49408),
    positions: read.count('max_position_embeddings', 77),
    endToken: read.count('eos_token_id', 49407),
  };
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
  readonly encoder: ClipEncoder;
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
    this.encoder = new ClipEncoder(config, true);
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
    const hiddenStates = this.encoder.forward(this.embeddings.forward(ids));
    const lastHiddenState = this.final_layer_norm.forward(hiddenStates.at(-1)!);
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

/** The name; null for the constant 0, 1, 2 ... that older files hold. */
export function withoutPositionIds(name: string): string | null {
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
