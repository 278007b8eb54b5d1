/**
 * LoRA adapters in one file, as diffusers and kohya's tools write them (names: `loraKeys.ts`):
 *
 *     down [r, n] (for convolutions four-dimensional), up [m, r], alpha []:  W = W0 + (alpha / r) up down      (1)
 *
 * diffusers' alpha and its config are JSON text in the header, under `lora_adapter_metadata`; without them alpha is r.
 * DEFT and PaRa are written so too, exactly: their change of a given W0 is a product of rank r. The header then holds the
 * hash of W0 (`baseHash`) under `deft_base_sha256`.
 */
import type { Module } from '@deftjs/autograd/nn';
import {
  ConfigError,
  cast,
  type Device,
  type HostTensor,
  type JsonConfig,
  type JsonValue,
  memorySource,
  openSafetensors,
  parseConfig,
  read,
  reshape,
  SafetensorsError,
  type Shape,
  type Tensor,
  type TensorSource,
  tensor,
  writeSafetensors,
} from '@deftjs/tensor';
import type { AdaptedRow } from '../adapt.ts';
import { type AdapterRequest, requireAdapters } from '../adapter.ts';
import { factorsOf } from '../algebra.ts';
import { matrixShape } from '../linearMap.ts';
import type { Theta, WeightChange } from '../parametrization.ts';
import type { Method } from '../parametrizations/index.ts';
import { type Lora, lora } from '../parametrizations/lora.ts';
import { baseHash } from './baseHash.ts';
import {
  isKohyaKey,
  kohyaNames,
  type LoraKey,
  type LoraRole,
  partNames,
  pathInModel,
  readDiffusersKeys,
  readKohyaKeys,
  refuseOthers,
} from './loraKeys.ts';
import { type PeftConfig, readPeftConfig } from './peftConfig.ts';
import {
  type LayerShapes,
  layerShapes,
  type MountOptions,
  mountStored,
  nearest,
  type Parts,
  readValues,
  type StoredAdapter,
  type StoredLayer,
  type StoredValues,
} from './storedAdapter.ts';

const metadataKey = 'lora_adapter_metadata';
const baseHashKey = 'deft_base_sha256';

export interface ReadLoraOptions {
  /** The layers of the models; absent: those that the file has, which needs diffusers' names. */
  readonly models?: Parts<LayerShapes>;
  /** The part that keys are for which name none; default: the only model, or "unet". */
  readonly defaultPart?: string;
  /** The header's metadata, where the source is a safetensors file. */
  readonly metadata?: ReadonlyMap<string, string>;
}

/** Down, up and alpha of one layer. */
type LoraTensors = Partial<Record<LoraRole, { readonly key: string; readonly values: StoredValues }>>;

/**
 * The LoRA adapter in the file, in either style.
 * @throws SafetensorsError, ConfigError naming the key or field: unknown, of another method, of another shape, missing,
 * not finite
 */
export async function readLora(file: TensorSource, options: ReadLoraOptions = {}): Promise<StoredAdapter> {
  const { source, names } = file;
  const { models, metadata = new Map<string, string>() } = options;
  const only = models && Object.keys(models).length === 1 ? Object.keys(models)[0]! : 'unet';
  const { defaultPart = only } = options;
  if (names.length === 0) throw new SafetensorsError(source, 'it holds no tensors');
  refuseOthers(source, names);
  const isKohya = names.every(isKohyaKey);
  if (isKohya && !models) {
    throw new SafetensorsError(
      source,
      "kohya's names can be read only with the base model's at hand; give the base",
    );
  }
  const keys = isKohya
    ? readKohyaKeys(source, names, models!)
    : readDiffusersKeys(source, names, defaultPart);
  const values = await readValues(file);
  const tensors = new Map<string, LoraKey & { tensors: LoraTensors }>();
  for (const [key, found] of keys) {
    const { part, role } = found;
    const path = models ? resolved(source, key, found, models) : found.path;
    const layer = tensors.get(`${part}.${path}`) ?? { ...found, path, tensors: {} };
    if (layer.tensors[role]) throw new SafetensorsError(source, `a second ${role} of ${part}.${path}`, key);
    tensors.set(`${part}.${path}`, {
      ...layer,
      tensors: { ...layer.tensors, [role]: { key, values: values.get(key)! } },
    });
  }
  const configs = isKohya ? new Map<string, PeftConfig>() : configsIn(source, metadata, tensors.values());
  const layers = [...tensors.values()].map(({ part, path, tensors: found }) =>
    storedLayer(source, part, path, found, models?.[part]?.get(path), configs.get(part)),
  );
  return {
    format: isKohya ? 'kohya LoRA' : 'diffusers LoRA',
    name: source,
    layers: withRequests(layers, models),
    baseHash: metadata.get(baseHashKey) ?? null,
  };
}

function resolved(source: string, key: string, { part, path }: LoraKey, models: Parts<LayerShapes>): string {
  const layers = models[part];
  if (!layers) {
    const parts = Object.keys(models).join(', ');
    throw new SafetensorsError(source, `it is for the part ${part}; the model has: ${parts}`, key);
  }
  const found = pathInModel(part, path, layers);
  if (found !== null) return found;
  throw new SafetensorsError(
    source,
    `no layer of the model has this path; ${nearest(path, layers.keys())}`,
    key,
  );
}

/** The config that the header has for each part: its fields may begin with the part's name. */
function configsIn(
  source: string,
  metadata: ReadonlyMap<string, string>,
  layers: Iterable<{ readonly part: string }>,
): ReadonlyMap<string, PeftConfig> {
  const text = metadata.get(metadataKey);
  if (text === undefined) return new Map();
  const fields = parseConfig(`${source}: ${metadataKey}`, text);
  const parts = [...new Set(Array.from(layers, ({ part }) => part))];
  const isSplit = Object.keys(fields).some((key) => partNames.test(key));
  return new Map(
    parts.flatMap((part): [string, PeftConfig][] => {
      const own: [string, JsonValue][] = isSplit
        ? Object.entries(fields).flatMap(([key, value]): [string, JsonValue][] =>
            key.startsWith(`${part}.`) ? [[key.slice(part.length + 1), value]] : [],
          )
        : Object.entries(fields);
      if (own.length === 0) return [];
      const config: JsonConfig = { peft_type: 'LORA', ...Object.fromEntries(own) };
      if (config.peft_type !== 'LORA') {
        throw new ConfigError(
          `${source}: ${metadataKey}: peft_type: expected LORA; got ${JSON.stringify(config.peft_type)}`,
        );
      }
      return [[part, readPeftConfig(`${source}: ${metadataKey}`, JSON.stringify(config))]];
    }),
  );
}

/** A layer without what was requested, which is known when all layers are. */
type UnrequestedLayer = Omit<StoredLayer, 'request'>;

function storedLayer(
  source: string,
  part: string,
  path: string,
  { down, up, alpha }: LoraTensors,
  known: Shape | undefined,
  config: PeftConfig | undefined,
): UnrequestedLayer {
  if (!down || !up) {
    throw new SafetensorsError(
      source,
      `${part}.${path} has no ${down ? 'up' : 'down'} matrix`,
      (down ?? up ?? alpha)!.key,
    );
  }
  const rank = down.values.shape[0] ?? 0;
  const shape = known ?? [up.values.shape[0] ?? 0, ...down.values.shape.slice(1)];
  // Some tools write linear layers as 1 x 1 convolutions, and the other way round: only the numbers must fit.
  const [m, n] = matrixShape(shape);
  expectMatrix(source, down, [rank, n]);
  expectMatrix(source, up, [m, rank]);
  const method = methodOf(source, path, shape, rank, alpha, config);
  const { lora_A, lora_B } = method.shapes(shape);
  const theta: Theta = { lora_A: tensor(down.values.data, lora_A!), lora_B: tensor(up.values.data, lora_B!) };
  return { part, path, shape, method, theta: () => theta };
}

function expectMatrix(
  source: string,
  { key, values: { shape } }: NonNullable<LoraTensors['down']>,
  [rows, columns]: readonly [number, number],
): void {
  const isFlat = shape.length === 2 || shape.length === 4;
  const [m, n] = isFlat ? matrixShape(shape) : [0, 0];
  if (!isFlat || m !== rows || n !== columns || rows === 0) {
    throw new SafetensorsError(
      source,
      `its shape does not fit the layer; expected [${rows}, ${columns}] as a matrix; got [${shape.join(', ')}]`,
      key,
    );
  }
}

function methodOf(
  source: string,
  path: string,
  shape: Shape,
  rank: number,
  alpha: LoraTensors['alpha'],
  config: PeftConfig | undefined,
): Method {
  if (alpha) {
    const [value] = alpha.values.data;
    if (alpha.values.data.length !== 1 || !(value! > 0)) {
      throw new SafetensorsError(
        source,
        `expected one number > 0; got ${[...alpha.values.data].slice(0, 3)}`,
        alpha.key,
      );
    }
    return lora({ rank, alpha: value! });
  }
  if (!config) return lora({ rank });
  const method = config.methodFor(path, shape);
  if (method.name !== 'lora' || method.rank !== rank) {
    throw new ConfigError(
      `${source}: ${metadataKey}: r: it says rank ${method.rank} for ${path}, whose tensors have rank ${rank}`,
    );
  }
  return method;
}

/** The layers in the order of the models, methods of equal options made one, and what was requested by part. */
function withRequests(
  layers: readonly UnrequestedLayer[],
  models: Parts<LayerShapes> | undefined,
): readonly StoredLayer[] {
  const methods = new Map<string, Method>();
  const shared = (method: Method): Method => {
    const key = JSON.stringify(method.options);
    methods.set(key, methods.get(key) ?? method);
    return methods.get(key)!;
  };
  return [...new Set(layers.map(({ part }) => part))].flatMap((part) => {
    const own = layers.filter((layer) => layer.part === part);
    const order = models && [...models[part]!.keys()];
    const sorted = order ? own.sort((a, b) => order.indexOf(a.path) - order.indexOf(b.path)) : own;
    const request: AdapterRequest = {
      method: shared(sorted[0]!.method),
      targetModules: sorted.map(({ path }) => path),
      excludeModules: null,
    };
    return sorted.map((layer) => ({ ...layer, method: shared(layer.method), request }));
  });
}

export interface LoadLoraOptions extends MountOptions {
  /** What messages call the file; default "adapter". */
  readonly name?: string;
}

/**
 * Attaches the LoRA adapter in a safetensors file, of diffusers or kohya's tools, to the parts of a pipeline.
 * @throws as `readLora` and `mountStored`; the models are untouched then
 */
export async function loadLora(
  models: Parts<Module>,
  bytes: Uint8Array,
  options: LoadLoraOptions = {},
): Promise<AdaptedRow[]> {
  const { name = 'adapter', ...mounting } = options;
  const file = await openSafetensors(memorySource(name, bytes));
  const shapes = Object.fromEntries(
    Object.entries(models).map(([part, model]) => [part, layerShapes(model)]),
  );
  return mountStored(
    models,
    await readLora(file, { models: shapes, metadata: file.header.metadata }),
    mounting,
  );
}

/** A layer of a LoRA file that is to be written. */
export interface WrittenLora {
  readonly part: string;
  readonly path: string;
  readonly shape: Shape;
  readonly rank: number;
  readonly alpha: number;
  /** [r, n] */
  readonly down: Float32Array;
  /** [m, r] */
  readonly up: Float32Array;
}

type NamedLayer = { readonly part: string; readonly path: string; readonly shape: Shape };

/** A LoRA layer as it is: its own matrices and alpha. */
export async function loraAsItIs(
  { part, path, shape }: NamedLayer,
  { options: { rank, alpha, rsLora } }: Lora,
  { lora_A, lora_B }: Theta,
  device?: Device,
): Promise<WrittenLora> {
  const [down, up] = [await valuesOf(lora_A!, device), await valuesOf(lora_B!, device)];
  return { part, path, shape, rank, alpha: rsLora ? alpha * Math.sqrt(rank) : alpha, down, up };
}

/**
 * The change of a weight W0 as LoRA with alpha = r.
 * @throws Error for a change of a whole weight
 */
export async function loraOfChange(
  { part, path, shape }: NamedLayer,
  change: WeightChange,
  W0: Tensor,
  device?: Device,
): Promise<WrittenLora> {
  const { B, A } = factorsOf(change, reshape(cast(W0, 'f32'), matrixShape(shape)));
  const rank = A.shape[0]!;
  return {
    part,
    path,
    shape,
    rank,
    alpha: rank,
    down: await valuesOf(A, device),
    up: await valuesOf(B, device),
  };
}

async function valuesOf(x: Tensor, device: Device | undefined): Promise<Float32Array> {
  return Float32Array.from(await read(x, device));
}

export type LoraStyle = 'diffusers' | 'kohya';

/**
 * The bytes of a LoRA file.
 *
 * kohya: alpha is a tensor; SDXL's layers have Stability's names, others diffusers'. diffusers: alpha / r is multiplied
 * into up, since older versions take alpha for r.
 * @param models the layers of the models: which names are written depends on the whole
 * @param base the hash of what the file is exact on; null when it is exact on any base
 */
export function writeLoraLayers(
  style: LoraStyle,
  layers: readonly WrittenLora[],
  models: Parts<LayerShapes>,
  base: string | null,
): Uint8Array {
  const names = style === 'kohya' ? kohyaNames(models) : null;
  const tensors = layers.flatMap(({ part, path, shape, rank, alpha, down, up }): [string, HostTensor][] => {
    const { lora_A, lora_B } = lora({ rank }).shapes(shape);
    const f32 = (data: Float32Array, of: Shape): HostTensor => ({ dtype: 'f32', shape: of, data });
    if (names) {
      const name = names.get(`${part}.${path}`)!.names[0]!;
      return [
        [`${name}.lora_down.weight`, f32(down, lora_A!)],
        [`${name}.lora_up.weight`, f32(up, lora_B!)],
        [`${name}.alpha`, f32(Float32Array.of(alpha), [])],
      ];
    }
    const scaled = alpha === rank ? up : up.map((value) => value * (alpha / rank));
    return [
      [`${part}.${path}.lora_A.weight`, f32(down, lora_A!)],
      [`${part}.${path}.lora_B.weight`, f32(scaled, lora_B!)],
    ];
  });
  const metadata = { format: 'pt', ...(base === null ? {} : { [baseHashKey]: base }) };
  return writeSafetensors(Object.fromEntries(tensors), metadata);
}

export interface WriteLoraOptions {
  readonly style: LoraStyle;
  /** Default "default". */
  readonly adapterName?: string;
  readonly device?: Device;
}

/**
 * The adapter of the name on the parts of a pipeline as a LoRA file. DEFT and PaRa become LoRA exactly, relative to the
 * weights that the models have now.
 * @throws Error when no layer has it, or it trains whole weights
 */
export async function writeLora(models: Parts<Module>, options: WriteLoraOptions): Promise<Uint8Array> {
  const { style, adapterName = 'default', device } = options;
  const layers: WrittenLora[] = [];
  const bases: [string, Tensor][] = [];
  for (const [part, model] of Object.entries(models)) {
    for (const { path, layer, adapter } of requireAdapters('writeLora', model, adapterName)) {
      const { shape } = layer.weight;
      const { method, change, parameters } = adapter;
      const W0 = layer.weight.value;
      const named = { part, path, shape };
      if (method.name === 'lora') {
        const theta = Object.fromEntries(
          Object.entries(parameters).map(([name, { value }]) => [name, value]),
        );
        layers.push(await loraAsItIs(named, method, theta, device));
      } else layers.push(await loraOfChange(named, change, W0, device));
      if (dependsOnBase(method)) bases.push([`${part}.${path}`, W0]);
    }
  }
  const shapes = Object.fromEntries(
    Object.entries(models).map(([part, model]) => [part, layerShapes(model)]),
  );
  return writeLoraLayers(style, layers, shapes, bases.length === 0 ? null : await baseHash(bases, device));
}

/** Whether the change that a theta stands for depends on W0: an additive one does not. */
export function dependsOnBase({ name }: Method): boolean {
  return name !== 'lora' && name !== 'full';
}
