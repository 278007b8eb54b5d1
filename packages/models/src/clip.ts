/**
 * CLIP (arXiv 2103.00020): texts and pictures in one space, where the angle between a text and a picture that it
 * describes is small. As transformers' CLIPModel.
 *
 *   N pictures, M texts, P width of the common space
 */
import { constant, Linear, Module, normal, Parameter } from '@deftjs/autograd/nn';
import {
  ConfigError,
  configReader,
  div,
  exp,
  type JsonConfig,
  matmul,
  mul,
  sqrt,
  square,
  sum,
  type Tensor,
  type TensorSource,
  transpose,
} from '@deftjs/tensor';
import { CLIPTextModel, withoutPositionIds } from './clipText.ts';
import { CLIPVisionModel } from './clipVision.ts';
import { renamed } from './weights.ts';

export interface ClipOutput {
  /** Pictures in the common space, of length one [N, P]. */
  readonly imageEmbeds: Tensor;
  /** Texts in the common space, of length one [M, P]. */
  readonly textEmbeds: Tensor;
  /** Cosines of pictures and texts, times the learned scale [N, M]. */
  readonly logitsPerImage: Tensor;
}

export class CLIPModel extends Module {
  readonly text_model: CLIPTextModel;
  readonly vision_model: CLIPVisionModel;
  readonly visual_projection: Linear;
  readonly text_projection: Linear;
  /** The logarithm of the scale. */
  readonly logit_scale: Parameter;

  /**
   * @param json transformers' config.json
   * @throws ConfigError
   */
  constructor(json: JsonConfig) {
    super();
    const read = configReader('CLIPModel', json);
    read.choice('model_type', ['clip'], 'clip');
    const projectionWidth = read.count('projection_dim', 512);
    const factor = read.number('initializer_factor', 1);
    this.text_model = new CLIPTextModel(partOf(json, 'text_config'));
    this.vision_model = new CLIPVisionModel(partOf(json, 'vision_config'));
    const projection = (width: number) => {
      const layer = new Linear(width, projectionWidth, { bias: false });
      layer.weight.initializer = normal(width ** -0.5 * factor);
      return layer;
    };
    this.visual_projection = projection(this.vision_model.config.width);
    this.text_projection = projection(this.text_model.config.width);
    this.logit_scale = new Parameter([], constant(read.number('logit_scale_init_value', 2.6592)));
  }

  /** Pictures [N, K, H, W], normalised as the image processor does, in the common space: [N, P]. @throws ShapeError */
  embedPictures(pictures: Tensor): Tensor {
    return unitLength(this.visual_projection.forward(this.vision_model.forward(pictures).pooled));
  }

  /** Texts as token ids, i32 [M, L], in the common space: [M, P]. @throws ShapeError */
  embedTexts(ids: Tensor): Tensor {
    return unitLength(this.text_projection.forward(this.text_model.forward(ids).pooled));
  }

  /** @throws ShapeError */
  forward(ids: Tensor, pictures: Tensor): ClipOutput {
    const [imageEmbeds, textEmbeds] = [this.embedPictures(pictures), this.embedTexts(ids)];
    const cosines = matmul(imageEmbeds, transpose(textEmbeds)); // [N, M]
    return { imageEmbeds, textEmbeds, logitsPerImage: mul(cosines, exp(this.logit_scale.value)) };
  }
}

function partOf(json: JsonConfig, key: string): JsonConfig {
  const part = json[key] ?? {};
  if (typeof part !== 'object' || Array.isArray(part)) {
    throw new ConfigError(`CLIPModel: ${key}: expected an object; got ${JSON.stringify(part)}`);
  }
  return part as JsonConfig;
}

/** Rows of length one. */
function unitLength(x: Tensor): Tensor {
  return div(x, sqrt(sum(square(x), -1, true)));
}

/** The tensors of a CLIPModel file under the names that the model has, whichever version wrote it. */
export function clipWeights(source: TensorSource): TensorSource {
  return renamed(source, withoutPositionIds);
}
