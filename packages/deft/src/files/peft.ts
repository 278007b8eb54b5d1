/**
 * PEFT adapters as two files in memory: adapter_model.safetensors and adapter_config.json.
 *
 * Keys are `base_model.model.<path of the layer>.<name>`, without the adapter's name: deft_P [m, r] and deft_R [r, n];
 * lora_A.weight and lora_B.weight. For convolutions LoRA's are four-dimensional; PEFT has no DEFT there, and deft_R is
 * written as the matrix [r, ci kh kw].
 */
import type { Module } from '@deftjs/autograd/nn';
import {
  formatShape,
  memorySource,
  openSafetensors,
  read,
  SafetensorsError,
  type Shape,
  sameShape,
  type Tensor,
  tensor,
  writeSafetensors,
} from '@deftjs/tensor';
import type { AdaptedRow } from '../adapt.ts';
import { type AdapterRequest, requireAdapters } from '../adapter.ts';
import type { Theta } from '../parametrization.ts';
import {
  type BaseModel,
  type ConfiguredLayer,
  type PeftConfig,
  readPeftConfig,
  writePeftConfig,
} from './peftConfig.ts';
import {
  type LayerShapes,
  layerShapes,
  type MountOptions,
  mountStored,
  nearest,
  readValues,
  type StoredAdapter,
  type StoredLayer,
  type StoredValues,
} from './storedAdapter.ts';

/** An adapter as PEFT stores it in a folder. */
export interface PeftFiles {
  /** adapter_model.safetensors */
  readonly weights: Uint8Array;
  /** adapter_config.json */
  readonly config: string;
}

const prefix = 'base_model.model.';

/** The file's name for one of a method's tensors: LoRA's are modules with a weight there. */
function fileName(name: string): string {
  return name.startsWith('lora_') ? `${name}.weight` : name;
}

function fileKey(path: string, name: string): string {
  return `${prefix}${path === '' ? '' : `${path}.`}${fileName(name)}`;
}

export interface WritePeftOptions {
  /** Default "default". */
  readonly adapterName?: string;
  /** Default: none named. */
  readonly base?: BaseModel;
}

/**
 * The two files of the adapter as it is now: the same bytes for the same values.
 * @throws Error when no layer has an adapter of the name, or PEFT has no format for it
 */
export async function writePeft(module: Module, options: WritePeftOptions = {}): Promise<PeftFiles> {
  const { adapterName = 'default', base } = options;
  const adapters = requireAdapters('writePeft', module, adapterName);
  const layers = adapters.map(({ path, layer, adapter }) => ({
    path,
    shape: layer.weight.shape,
    method: adapter.method,
    theta: Object.fromEntries(Object.entries(adapter.parameters).map(([name, { value }]) => [name, value])),
  }));
  return writePeftLayers(adapters[0]!.adapter.request, layers, base);
}

/** The two files of an adapter with these layers. @throws Error when PEFT has no format for it */
export async function writePeftLayers(
  request: AdapterRequest,
  layers: readonly (ConfiguredLayer & { readonly theta: Theta })[],
  base: BaseModel = { nameOrPath: null, autoMapping: null },
): Promise<PeftFiles> {
  const config = writePeftConfig(request, layers, base);
  const entries = layers.flatMap(({ path, theta }) => {
    const { deft_gate: gate, ...kept } = theta;
    return Object.entries(kept).map(async ([name, value]) => {
      const open = gate && name === 'deft_R' ? await opening(gate) : 1;
      const data = Float32Array.from(await read(value), (number) => open * number);
      return [fileKey(path, name), { dtype: 'f32', shape: value.shape, data }] as const;
    });
  });
  const weights = writeSafetensors(Object.fromEntries(await Promise.all(entries)), { format: 'pt' });
  return { weights, config };
}

/** What a gate lets through: PEFT has none, and R times this does the same. */
async function opening(gate: Tensor): Promise<number> {
  const [value] = await read(gate);
  return 1 / (1 + Math.exp(-value!));
}

export interface LoadPeftOptions extends MountOptions {
  /** What messages call the adapter; default "adapter". */
  readonly name?: string;
}

/**
 * Attaches the adapter in the files to the module's layers, whose base weights it was trained on. Everything is
 * checked first: when it throws, the model is untouched. Returns what was adapted.
 * @throws ConfigError, SafetensorsError naming the field or tensor: unsupported, missing, unexpected, of another shape
 * or not finite
 */
export async function loadPeft(
  module: Module,
  files: PeftFiles,
  options: LoadPeftOptions = {},
): Promise<AdaptedRow[]> {
  const { name = 'adapter', ...mounting } = options;
  const stored = await readPeft(files, { name, part: 'model', layers: layerShapes(module) });
  return mountStored({ model: module }, stored, mounting);
}

export interface ReadPeftOptions {
  /** What messages call the adapter. */
  readonly name: string;
  /** The part of a pipeline that it is for, which the files do not say. */
  readonly part: string;
  /** The layers of the model; absent: those that the file has, and what the config targets is not checked. */
  readonly layers?: LayerShapes;
}

/** The adapter in the files. @throws as `loadPeft` */
export async function readPeft(
  files: PeftFiles,
  { name, part, layers: known }: ReadPeftOptions,
): Promise<StoredAdapter> {
  const config = readPeftConfig(`${name}: adapter_config.json`, files.config);
  const source = `${name}: adapter_model.safetensors`;
  const values = await readValues(await openSafetensors(memorySource(source, files.weights)));
  const layers = known ?? shapesIn(values);
  const adapted = adaptedPaths(source, [...values.keys()], layers);
  if (known) checkTargets(source, config, layers, adapted);
  const request: AdapterRequest = {
    method: config.method,
    targetModules: config.targetModules,
    excludeModules: config.excludeModules,
    ...(config.blocks ? { blocks: config.blocks } : {}),
  };
  const stored = [...adapted].map((path): StoredLayer => {
    const shape = layers.get(path)!;
    const method = config.methodFor(path, shape);
    const theta: Theta = Object.fromEntries(
      Object.entries(method.shapes(shape)).map(([part, expected]) => {
        const key = fileKey(path, part);
        const found = values.get(key);
        if (!found) throw new SafetensorsError(source, 'it is missing', key);
        if (!sameShape(found.shape, expected)) {
          const shapes = `expected ${formatShape(expected)}; got ${formatShape(found.shape)}`;
          throw new SafetensorsError(source, `its shape does not fit the layer and config; ${shapes}`, key);
        }
        values.delete(key);
        return [part, tensor(found.data, expected)];
      }),
    );
    return { part, path, shape, method, request, theta: () => theta };
  });
  const [unused] = values.keys();
  if (unused !== undefined) throw new SafetensorsError(source, 'the config has no use for it', unused);
  return { format: 'PEFT', name, layers: stored, baseHash: null };
}

const keyPattern = /^base_model\.model\.(?:(.+)\.)?(deft_[PRWH]|lora_[AB]\.weight)$/;

/** The layers that the keys belong to, in the order of the model. @throws SafetensorsError for a key of no layer */
function adaptedPaths(source: string, keys: readonly string[], layers: LayerShapes): ReadonlySet<string> {
  const named = new Set<string>();
  for (const key of keys) {
    const found = keyPattern.exec(key);
    if (!found) throw new SafetensorsError(source, `expected a key like ${prefix}<layer>.deft_P`, key);
    const path = found[1] ?? '';
    if (!layers.has(path)) {
      const problem = 'the model has no Linear or Conv2d layer of that path';
      throw new SafetensorsError(source, `${problem}; ${nearest(path, layers.keys())}`, key);
    }
    named.add(path);
  }
  if (named.size === 0) throw new SafetensorsError(source, 'it holds no tensors');
  return new Set([...layers.keys()].filter((path) => named.has(path)));
}

/** The shapes of the weights that the tensors are for, as far as they say: [m, n] from [m, r] and [r, n]. */
function shapesIn(values: ReadonlyMap<string, StoredValues>): LayerShapes {
  const halves = new Map<string, { outputs: number; inputs: Shape }>();
  for (const [key, { shape }] of values) {
    const [, path = '', name] = keyPattern.exec(key) ?? [];
    if (name === undefined) continue;
    const half = halves.get(path) ?? { outputs: 0, inputs: [0] }; // PaRa says nothing of the inputs
    if (/^(deft_[PW]|lora_B)/.test(name)) halves.set(path, { ...half, outputs: shape[0] ?? 0 });
    else if (name !== 'deft_H') halves.set(path, { ...half, inputs: shape.slice(1) });
  }
  return new Map([...halves].map(([path, { outputs, inputs }]) => [path, [outputs, ...inputs]]));
}

/** The file must hold exactly the layers that its config targets. @throws SafetensorsError naming one that differs */
function checkTargets(
  source: string,
  { isTarget }: PeftConfig,
  layers: LayerShapes,
  adapted: ReadonlySet<string>,
): void {
  if (isTarget === null) return;
  for (const [path, shape] of layers) {
    const targeted = isTarget(path, shape);
    if (targeted === adapted.has(path)) continue;
    const problem = targeted
      ? `the config's target_modules include ${path}, for which there are no tensors`
      : `there are tensors for ${path}, which the config's target_modules do not include`;
    throw new SafetensorsError(source, problem);
  }
}
