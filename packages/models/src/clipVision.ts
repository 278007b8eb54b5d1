/**
 * CLIP's picture encoder (arXiv 2103.00020): a vision transformer over patches, as transformers' CLIPVisionModel.
 *
 *   B batch, K channels, H W pixels, p pixels across a patch, L = 1 + (H / p) (W / p) tokens, C width
 */
import { Conv2d, Embedding, LayerNorm, Linear, Module, normal, Parameter } from '@deftjs/autograd/nn';
import {
  add,
  concat,
  configReader,
  expand,
  formatShape,
  type JsonConfig,
  narrow,
  reshape,
  ShapeError,
  squeeze,
  type Tensor,
  type TensorSource,
} from '@deftjs/tensor';
import { ClipEncoder, type ClipEncoderConfig, readClipEncoderConfig } from './clipEncoder.ts';
import { withoutPositionIds } from './clipText.ts';
import { patchPositions } from './patchPositions.ts';
import { toTokens } from './transformer2d.ts';
import { renamed } from './weights.ts';

export interface ClipVisionConfig extends ClipEncoderConfig {
  readonly channels: number;
  /** Pixels across the pictures that the positions were learned on; other sizes get interpolated ones. */
  readonly pictureSize: number;
  readonly patchSize: number;
}

/** The config, checked. @throws ConfigError */
export function readClipVisionConfig(json: JsonConfig): ClipVisionConfig {
  const read = configReader('CLIPVisionModel', json);
  read.choice('model_type', ['clip_vision_model'], 'clip_vision_model');
  const config = {
    ...readClipEncoderConfig(read, { width: 768, inner: 3072, heads: 12 }),
    channels: read.count('num_channels', 3),
    pictureSize: read.count('image_size', 224),
    patchSize: read.count('patch_size', 32),
  };
  if (config.patchSize === 0 || config.patchSize > config.pictureSize) {
    read.refuse('patch_size', `expected 1 to image_size ${config.pictureSize}`);
  }
  return config;
}

export interface ClipVisionOutput {
  /** After the last layer, not normalised [B, L, C]. */
  readonly lastHiddenState: Tensor;
  /** The class token, normalised [B, C]. */
  readonly pooled: Tensor;
  /** Before the first layer and after each one: layers + 1 of [B, L, C]. */
  readonly hiddenStates: readonly Tensor[];
}

/** Parameters are named as transformers 5 names them; files of older versions say vision_model. before each name. */
export class CLIPVisionModel extends Module {
  readonly config: ClipVisionConfig;
  readonly embeddings: Embeddings;
  /** The library's spelling. */
  readonly pre_layrnorm: LayerNorm;
  readonly encoder: ClipEncoder;
  readonly post_layernorm: LayerNorm;

  /**
   * @param json transformers' config.json
   * @throws ConfigError
   */
  constructor(json: JsonConfig) {
    super();
    const config = readClipVisionConfig(json);
    this.config = config;
    this.embeddings = new Embeddings(config);
    this.pre_layrnorm = new LayerNorm(config.width, { eps: config.eps });
    this.encoder = new ClipEncoder(config, false);
    this.post_layernorm = new LayerNorm(config.width, { eps: config.eps });
  }

  /**
   * @param pictures [B, K, H, W], normalised as the model's image processor does
   * @throws ShapeError when there is not one whole patch
   */
  forward(pictures: Tensor): ClipVisionOutput {
    expectPatches('clipVision', pictures, this.config);
    const hiddenStates = this.encoder.forward(this.pre_layrnorm.forward(this.embeddings.forward(pictures)));
    const lastHiddenState = hiddenStates.at(-1)!;
    const pooled = this.post_layernorm.forward(squeeze(narrow(lastHiddenState, 1, 0, 1), 1));
    return { lastHiddenState, pooled, hiddenStates };
  }
}

/** CLIPVisionModelWithProjection: pictures into the space that texts are embedded in. */
export class CLIPVisionModelWithProjection extends Module {
  readonly vision_model: CLIPVisionModel;
  readonly visual_projection: Linear;

  /** @throws ConfigError */
  constructor(json: JsonConfig) {
    super();
    this.vision_model = new CLIPVisionModel(json);
    const { width, projectionWidth, initializerFactor } = this.vision_model.config;
    this.visual_projection = new Linear(width, projectionWidth, { bias: false });
    this.visual_projection.weight.initializer = normal(width ** -0.5 * initializerFactor);
  }

  /** As CLIPVisionModel's, and imageEmbeds [B, P]: the pooled state projected. */
  forward(pictures: Tensor): ClipVisionOutput & { readonly imageEmbeds: Tensor } {
    const output = this.vision_model.forward(pictures);
    return { ...output, imageEmbeds: this.visual_projection.forward(output.pooled) };
  }
}

/** The tensors of a CLIPVisionModel file under the names that the model has, whichever version wrote it. */
export function clipVisionWeights(source: TensorSource): TensorSource {
  return renamed(source, (name) => withoutPositionIds(name)?.replace(/^vision_model\./, '') ?? null);
}

/** @throws ShapeError unless the pictures are [B, channels, H, W] with H and W of at least one patch */
export function expectPatches(
  model: string,
  pictures: Tensor,
  { channels, patchSize }: { readonly channels: number; readonly patchSize: number },
): void {
  const [, given, ...extents] = pictures.shape;
  if (pictures.rank !== 4 || given !== channels || extents.some((extent) => extent < patchSize)) {
    const expected = `[B, ${channels}, H, W] with H and W at least ${patchSize}`;
    throw new ShapeError(`${model}: expected pictures ${expected}; got ${formatShape(pictures.shape)}`);
  }
}

class Embeddings extends Module {
  readonly class_embedding: Parameter;
  readonly patch_embedding: Conv2d;
  readonly position_embedding: Embedding;

  constructor(config: ClipVisionConfig) {
    super();
    const { channels, width, pictureSize, patchSize, initializerRange, initializerFactor } = config;
    const patches = Math.floor(pictureSize / patchSize) ** 2;
    this.class_embedding = new Parameter([width], normal(width ** -0.5 * initializerFactor));
    this.patch_embedding = new Conv2d(channels, width, patchSize, { stride: patchSize, bias: false });
    this.position_embedding = new Embedding(1 + patches, width);
    this.patch_embedding.weight.initializer = normal(initializerRange * initializerFactor);
    this.position_embedding.weight.initializer = normal(initializerRange * initializerFactor);
  }

  /** [B, K, H, W] -> [B, L, C]. */
  forward(pictures: Tensor): Tensor {
    const patches = this.patch_embedding.forward(pictures); // [B, C, H / p, W / p]
    const [batch, width, tall, wide] = patches.shape as [number, number, number, number];
    const classToken = expand(reshape(this.class_embedding.value, [1, 1, width]), [batch, 1, width]);
    const learned = reshape(this.position_embedding.weight.value, [1, -1, width]);
    return add(concat([classToken, toTokens(patches)], 1), patchPositions(learned, tall, wide));
  }
}
