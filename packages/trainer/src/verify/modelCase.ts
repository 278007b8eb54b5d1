/** Models against their libraries: outputs, and for the trainable ones loss and gradients. */
import { valueAndGrad } from '@deftjs/autograd';
import { type Module, stateOf, withState } from '@deftjs/autograd/nn';
import {
  AutoencoderKL,
  CLIPModel,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  clipTextWeights,
  clipTextWithProjectionWeights,
  clipWeights,
  Dinov2Model,
  DiTTransformer2DModel,
  type FluxPositions,
  FluxTransformer2DModel,
  type JsonConfig,
  loadWeights,
  OmniGenTransformer2DModel,
  omniGenWeights,
  T5EncoderModel,
  type TensorSource,
  t5Weights,
  UNet2DConditionModel,
  ViTModel,
  vaeWeights,
  vitWeights,
} from '@deftjs/models';
import { openWeights } from '@deftjs/models/node';
import { concat, type Device, meanSquaredError, notEqual, read, reshape, type Tensor } from '@deftjs/tensor';
import { type Check, compareAll, outputBound } from './check.ts';
import type { GoldenFolder } from './goldenFolder.ts';

/** The inputs of a case by name. A name that the case lacks gives undefined. */
type Inputs = Readonly<Record<string, Tensor>>;

/** How a case of a class is computed: a network with a loss has `out`, the others results of several names. */
interface ModelCase<M extends Module> {
  readonly create: (config: JsonConfig) => M;
  readonly weights?: (source: TensorSource) => TensorSource;
  readonly forward: (model: M, inputs: Inputs) => Tensor | Readonly<Record<string, Tensor>>;
}

const modelCase = <M extends Module>(made: ModelCase<M>) => made as unknown as ModelCase<Module>;

/** By the class that the config names. */
const modelCases: Readonly<Record<string, ModelCase<Module>>> = {
  UNet2DConditionModel: modelCase({
    create: (config) => new UNet2DConditionModel(config),
    forward(unet, { sample, timestep, context, text_embeds: textEmbeds, time_ids: timeIds }) {
      const added = textEmbeds && timeIds && { textEmbeds, timeIds };
      return unet.forward(sample!, timestep!, context!, added);
    },
  }),
  AutoencoderKL: modelCase({
    create: (config) => new AutoencoderKL(config),
    weights: vaeWeights,
    forward(vae, { sample }) {
      const { mean, logvar } = vae.encode(sample!);
      const flat = (x: Tensor) => reshape(x, [x.shape[0]!, -1]);
      return concat([flat(mean), flat(logvar), flat(vae.decode(mean))], 1);
    },
  }),
  CLIPTextModel: modelCase({
    create: (config) => new CLIPTextModel(config),
    weights: clipTextWeights,
    forward(model, { input_ids: ids }) {
      const { lastHiddenState, pooled } = model.forward(ids!);
      return { last_hidden_state: lastHiddenState, pooled };
    },
  }),
  CLIPTextModelWithProjection: modelCase({
    create: (config) => new CLIPTextModelWithProjection(config),
    weights: clipTextWithProjectionWeights,
    forward(model, { input_ids: ids }) {
      const { textEmbeds, hiddenStates } = model.forward(ids!);
      return { text_embeds: textEmbeds, penultimate: hiddenStates.at(-2)! };
    },
  }),
  CLIPModel: modelCase({
    create: (config) => new CLIPModel(config),
    weights: clipWeights,
    forward(model, { input_ids: ids, pixel_values: pictures }) {
      const { imageEmbeds, textEmbeds, logitsPerImage } = model.forward(ids!, pictures!);
      return { image_embeds: imageEmbeds, text_embeds: textEmbeds, logits_per_image: logitsPerImage };
    },
  }),
  Dinov2Model: modelCase({
    create: (config) => new Dinov2Model(config),
    forward: (model, { pixel_values: pictures }) => ({ last_hidden_state: model.forward(pictures!) }),
  }),
  ViTModel: modelCase({
    create: (config) => new ViTModel(config),
    weights: vitWeights,
    forward: (model, { pixel_values: pictures }) => ({ last_hidden_state: model.forward(pictures!) }),
  }),
  DiTTransformer2DModel: modelCase({
    create: (config) => new DiTTransformer2DModel(config),
    forward: (dit, { sample, timestep, class_labels: labels }) => dit.forward(sample!, timestep!, labels!),
  }),
  FluxTransformer2DModel: modelCase({
    create: (config) => new FluxTransformer2DModel(config),
    forward(
      flux,
      { sample, context, pooled, timestep, guidance, img_ids: positions, txt_ids: textPositions },
    ) {
      return flux.forward({
        sample: sample!,
        context: context!,
        pooled: pooled!,
        levels: timestep!,
        ...(guidance && { guidance }),
        positions: rowsOf(positions!) as unknown as FluxPositions,
        textPositions: rowsOf(textPositions!) as unknown as FluxPositions,
      });
    },
  }),
  OmniGenTransformer2DModel: modelCase({
    create: (config) => new OmniGenTransformer2DModel(config),
    weights: omniGenWeights,
    forward(omniGen, { sample, timestep, input_ids: ids, attention_mask: mask, position_ids: positions }) {
      return omniGen.forward({
        sample: sample!,
        times: timestep!,
        ids: ids!,
        mask: notEqual(mask!, 0),
        positions: rowsOf(positions!),
      });
    },
  }),
  T5EncoderModel: modelCase({
    create: (config) => new T5EncoderModel(config),
    weights: t5Weights,
    forward(model, { input_ids: ids, attention_mask: mask }) {
      return { last_hidden_state: model.forward(ids!, mask && notEqual(mask, 0)) };
    },
  }),
};

/** A recorded matrix as numbers: models want positions on the host. */
function rowsOf({ source, shape }: Tensor): number[][] {
  if (source.kind !== 'host' || shape.length !== 2) throw new Error('expected a recorded matrix');
  const [rows, columns] = shape as readonly [number, number];
  const values = Array.from(source.values, Number);
  return Array.from({ length: rows }, (_, i) => values.slice(i * columns, (i + 1) * columns));
}

/** The class of the model in the config of a folder: diffusers and transformers name it differently. */
function classOf(config: JsonConfig): string {
  const { _class_name: diffusers, architectures } = config;
  if (typeof diffusers === 'string') return diffusers;
  return Array.isArray(architectures) ? String(architectures[0]) : 'none';
}

/** The network in a folder, and what it computes from inputs. @throws ConfigError, WeightsError, SafetensorsError */
export async function loadModelCase(
  path: string,
  config: JsonConfig,
): Promise<{ model: Module; forward: (inputs: Inputs) => Tensor | Readonly<Record<string, Tensor>> }> {
  const found = modelCases[classOf(config)];
  if (found === undefined) {
    throw new Error(`no such model: ${classOf(config)}; expected ${Object.keys(modelCases).join(', ')}`);
  }
  const model = found.create(config);
  await using file = await openWeights(path);
  await loadWeights(model, found.weights?.(file) ?? file);
  return { model, forward: (inputs) => found.forward(model, inputs) };
}

/** Checks a model's outputs, loss and recorded gradients. */
export async function checkModel(golden: GoldenFolder, device: Device): Promise<Check[]> {
  const { model, forward } = await loadModelCase(golden.path, golden.json('config.json'));
  const inputs = golden.under('in/');
  if ('target' in golden.tensors) {
    const paths = new Set(Object.keys(golden.under('grad/')));
    const theta = stateOf(model, (path) => paths.has(path));
    return checkLoss(golden, { model, forward, theta, nameOf: (path) => path }, device);
  }
  const results = forward(inputs);
  const computed = results as Readonly<Record<string, Tensor>>;
  return compareAll(computed, golden.under('out/'), outputBound, device);
}

/** What a loss case differentiates: parameters of the model by path, and what the case calls their gradients. */
export interface LossCase {
  readonly model: Module;
  readonly forward: (inputs: Inputs) => Tensor | Readonly<Record<string, Tensor>>;
  readonly theta: Readonly<Record<string, Tensor>>;
  readonly nameOf: (path: string) => string;
}

/** Checks `out`, `loss` = mean((out - target)^2), and its gradients `grad/*` and `grad_in/*`. */
export async function checkLoss(
  golden: GoldenFolder,
  { model, forward, theta, nameOf }: LossCase,
  device: Device,
): Promise<Check[]> {
  const inputs = golden.under('in/');
  const varied = Object.keys(golden.under('grad_in/'));
  const { value, gradient } = valueAndGrad((variables: { theta: typeof theta; inputs: Inputs }) =>
    withState(model, variables.theta, () => {
      const out = forward({ ...inputs, ...variables.inputs }) as Tensor;
      return [meanSquaredError(out, golden.get('target')), out] as const;
    }),
  )({ theta, inputs: Object.fromEntries(varied.map((name) => [name, inputs[name]!])) });
  const computed: Record<string, Tensor> = { loss: reshape(value[0], [1]), out: value[1] };
  for (const [name, tensor] of Object.entries(gradient.inputs)) computed[`grad_in/${name}`] = tensor;
  for (const [path, tensor] of Object.entries(gradient.theta)) computed[`grad/${nameOf(path)}`] = tensor;
  const recorded = Object.entries(golden.tensors).filter(([name]) =>
    /^(out|loss|grad\/.*|grad_in\/.*)$/.test(name),
  );
  const { zero, others } = await splitGradients(recorded, device);
  return [
    ...(await compareAll(computed, others, outputBound, device)),
    ...(await compareAll(computed, zero.tensors, roundingBound, device, { relativeTo: zero.largest })),
  ];
}

/** How large rounding leaves a gradient that is zero in exact arithmetic, relative to the largest gradient of its case. */
const roundingBound = 2 ** -20;

/**
 * Some gradients are zero in exact arithmetic (softmax does not see the bias of keys), and what was recorded of them is
 * what rounding left: less than one part in 2^23 of the largest gradient. The relative error of such numbers means
 * nothing; ours have to be as small.
 */
async function splitGradients(recorded: readonly (readonly [string, Tensor])[], device: Device) {
  const sizes = new Map<string, number>();
  for (const [name, tensor] of recorded) {
    if (!name.startsWith('grad')) continue;
    const values = Array.from(await read(tensor, device));
    sizes.set(
      name,
      values.reduce((most, value) => Math.max(most, Math.abs(value)), 0),
    );
  }
  const largest = Math.max(...sizes.values());
  const isZero = (name: string) => (sizes.get(name) ?? largest) < largest * 2 ** -23;
  return {
    zero: { tensors: Object.fromEntries(recorded.filter(([name]) => isZero(name))), largest },
    others: Object.fromEntries(recorded.filter(([name]) => !isZero(name))),
  };
}
