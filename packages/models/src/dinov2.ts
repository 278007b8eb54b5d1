/**
 * DINOv2 (arXiv 2304.07193) as transformers' Dinov2Model: a vision transformer whose layers scale what they add, each
 * channel by a learned number.
 *
 *   B batch, K channels, H W pixels, p pixels across a patch, L = 1 + (H / p) (W / p) tokens, C width
 */
import { constant, LayerNorm, type Linear, Module, Parameter } from '@deftjs/autograd/nn';
import { add, configReader, gelu, type JsonConfig, mul, type Tensor } from '@deftjs/tensor';
import { expectPatches } from './clipVision.ts';
import { readVitConfig, VitAttention, type VitConfig, VitEmbeddings, VitEncoder, vitLinear } from './vit.ts';

export class Dinov2Model extends Module {
  readonly config: VitConfig;
  readonly embeddings: Dinov2Embeddings;
  readonly encoder: VitEncoder<Dinov2Layer>;
  readonly layernorm: LayerNorm;

  /**
   * @param json transformers' config.json
   * @throws ConfigError
   */
  constructor(json: JsonConfig) {
    super();
    const read = configReader('Dinov2Model', json);
    read.choice('model_type', ['dinov2'], 'dinov2');
    read.only({ drop_path_rate: 0, use_swiglu_ffn: false });
    const config = readVitConfig(read, { eps: 1e-6, patchSize: 14 });
    const inner = Math.trunc(config.width * read.number('mlp_ratio', 4));
    const layerScale = read.number('layerscale_value', 1);
    this.config = config;
    this.embeddings = new Dinov2Embeddings(config, read.boolean('use_mask_token', true));
    this.encoder = new VitEncoder(
      Array.from({ length: config.layers }, () => new Dinov2Layer(config, inner, layerScale)),
    );
    this.layernorm = new LayerNorm(config.width, { eps: config.eps });
  }

  /**
   * Tokens of pictures, the class token first: [B, L, C].
   * @param pictures [B, K, H, W], normalised as the model's image processor does
   * @throws ShapeError when there is not one whole patch
   */
  forward(pictures: Tensor): Tensor {
    expectPatches('dinov2', pictures, this.config);
    const tokens = this.embeddings.forward(pictures);
    return this.layernorm.forward(this.encoder.layer.reduce((x, layer) => layer.forward(x), tokens));
  }
}

class Dinov2Embeddings extends VitEmbeddings {
  /** What hidden patches are in the model's own training; here only so that the checkpoint is whole. */
  readonly mask_token: Parameter | null;

  constructor(config: VitConfig, masks: boolean) {
    super(config);
    this.mask_token = masks ? new Parameter([1, config.width], constant(0)) : null;
  }
}

class LayerScale extends Module {
  readonly lambda1: Parameter;

  constructor(width: number, value: number) {
    super();
    this.lambda1 = new Parameter([width], constant(value));
  }

  forward(x: Tensor): Tensor {
    return mul(x, this.lambda1.value);
  }
}

class Mlp extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;

  constructor(config: VitConfig, inner: number) {
    super();
    this.fc1 = vitLinear(config.width, inner, config);
    this.fc2 = vitLinear(inner, config.width, config);
  }

  forward(x: Tensor): Tensor {
    return this.fc2.forward(gelu(this.fc1.forward(x)));
  }
}

class Dinov2Layer extends Module {
  readonly norm1: LayerNorm;
  readonly attention: VitAttention;
  readonly layer_scale1: LayerScale;
  readonly norm2: LayerNorm;
  readonly mlp: Mlp;
  readonly layer_scale2: LayerScale;

  constructor(config: VitConfig, inner: number, layerScale: number) {
    super();
    const { width, eps } = config;
    this.norm1 = new LayerNorm(width, { eps });
    this.attention = new VitAttention(config);
    this.layer_scale1 = new LayerScale(width, layerScale);
    this.norm2 = new LayerNorm(width, { eps });
    this.mlp = new Mlp(config, inner);
    this.layer_scale2 = new LayerScale(width, layerScale);
  }

  forward(x: Tensor): Tensor {
    const y = add(x, this.layer_scale1.forward(this.attention.forward(this.norm1.forward(x))));
    return add(y, this.layer_scale2.forward(this.mlp.forward(this.norm2.forward(y))));
  }
}
