/**
 * PEFT adapters as two files in memory: adapter_model.safetensors and adapter_config.json.
 *
 * Keys are `base_model.model.<path of the layer>.<name>`, without the adapter's name: deft_P [m, r] and deft_R [r, n];
 * lora_A.weight and lora_B.weight. For convolutions LoRA's are four-dimensional; PEFT has no DEFT there, and deft_R is
 * written as the matrix [r, ci kh kw].
 */
import type { Module, Parameter } from '@deftjs/autograd/nn';
import {
  asFloat32,
  formatShape,
  memorySource,
  openSafetensors,
  read,
  SafetensorsError,
  sameShape,
  tensor,
  writeSafetensors,
} from '@deftjs/tensor';
import { type AdaptedRow, expectFree, expectUngrouped, mount } from '../adapt.ts';
import { AdapterGroup, LayerAdapter, requireAdapters } from '../adapter.ts';
import { type AdaptedLayer, matrixShape } from '../linearMap.ts';
import type { Theta } from '../parametrization.ts';
import type { Method } from '../parametrizations/index.ts';
import { adaptableLayers, targetTest } from '../targets.ts';
import { type BaseModel, type PeftConfig, readPeftConfig, writePeftConfig } from './peftConfig.ts';

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
 * @throws Error when no layer has an adapter of the name
 */
export async function writePeft(module: Module, options: WritePeftOptions = {}): Promise<PeftFiles> {
  const { adapterName = 'default', base = { nameOrPath: null, autoMapping: null } } = options;
  const adapters = requireAdapters('writePeft', module, adapterName);
  const entries = adapters.flatMap(({ path, adapter }) => {
    const { deft_gate: gate, ...stored } = adapter.parameters;
    return Object.entries(stored).map(async ([name, { value }]) => {
      const open = gate && name === 'deft_R' ? await opening(gate) : 1;
      const data = Float32Array.from(await read(value), (number) => open * number);
      return [fileKey(path, name), { dtype: 'f32', shape: value.shape, data }] as const;
    });
  });
  return {
    weights: writeSafetensors(Object.fromEntries(await Promise.all(entries)), { format: 'pt' }),
    config: writePeftConfig(adapters[0]!.adapter.request, base),
  };
}

/** What a gate lets through: PEFT has none, and R times this does the same. */
async function opening({ value }: Parameter): Promise<number> {
  const [gate] = await read(value);
  return 1 / (1 + Math.exp(-gate!));
}

export interface LoadPeftOptions {
  /** Default "default". */
  readonly adapterName?: string;
  /** Whether the adapter will be trained further; default false: it is frozen, and dropout does not matter. */
  readonly trainable?: boolean;
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
  const { adapterName = 'default', trainable = false, name = 'adapter' } = options;
  const config = readPeftConfig(`${name}: adapter_config.json`, files.config);
  const source = `${name}: adapter_model.safetensors`;
  if (trainable && config.dropout > 0) {
    throw new Error(
      `${name}: adapter_config.json: dropout ${config.dropout} is not supported in training; expected 0`,
    );
  }
  const values = await readValues(source, files.weights);
  const layers = adaptableLayers(module);
  const adapted = adaptedPaths(source, [...values.keys()], layers);
  checkTargets(source, config, layers, adapted);
  const groups = new Map<Method, AdapterGroup>();
  const adapters = [...adapted].map((path) => {
    const layer = layers.get(path)!;
    expectFree(adapterName, path, layer);
    expectUngrouped(path, layer);
    const method = config.methodFor(matrixShape(layer.weight.shape)[0]);
    const expected = Object.entries(method.shapes(layer.weight.shape));
    const theta: Theta = Object.fromEntries(
      expected.map(([part, shape]) => {
        const key = fileKey(path, part);
        const found = values.get(key);
        if (!found) throw new SafetensorsError(source, 'it is missing', key);
        if (!sameShape(found.shape, shape)) {
          const shapes = `expected ${formatShape(shape)}; got ${formatShape(found.shape)}`;
          throw new SafetensorsError(source, `its shape does not fit the layer and config; ${shapes}`, key);
        }
        values.delete(key);
        return [part, tensor(found.data, shape)];
      }),
    );
    const group = groups.get(method) ?? new AdapterGroup(method);
    groups.set(method, group);
    return { path, layer, adapter: new LayerAdapter(group, config, theta) };
  });
  const [unused] = values.keys();
  if (unused !== undefined) throw new SafetensorsError(source, 'the config has no use for it', unused);
  const rows = mount(module, adapterName, adapters);
  for (const { adapter } of adapters) {
    for (const parameter of Object.values(adapter.parameters)) parameter.trainable = trainable;
  }
  return rows;
}

async function readValues(
  source: string,
  bytes: Uint8Array,
): Promise<Map<string, { shape: readonly number[]; data: Float32Array }>> {
  const file = await openSafetensors(memorySource(source, bytes));
  const entries = file.names.map(async (key) => {
    const values = await file.read(key);
    const data = asFloat32(values);
    if (!data.every(Number.isFinite)) throw new SafetensorsError(source, 'it holds NaN or infinity', key);
    return [key, { shape: values.shape, data }] as const;
  });
  return new Map(await Promise.all(entries));
}

/** The layers that the keys belong to, in the order of the model. @throws SafetensorsError for a key of no layer */
function adaptedPaths(
  source: string,
  keys: readonly string[],
  layers: ReadonlyMap<string, AdaptedLayer>,
): ReadonlySet<string> {
  const named = new Set<string>();
  for (const key of keys) {
    const path = /^base_model\.model\.(?:(.+)\.)?(?:deft_[PRWH]|lora_[AB]\.weight)$/.exec(key);
    if (!path) throw new SafetensorsError(source, `expected a key like ${prefix}<layer>.deft_P`, key);
    if (!layers.has(path[1] ?? '')) {
      throw new SafetensorsError(source, 'the model has no Linear or Conv2d layer of that path', key);
    }
    named.add(path[1] ?? '');
  }
  if (named.size === 0) throw new SafetensorsError(source, 'it holds no tensors');
  return new Set([...layers.keys()].filter((path) => named.has(path)));
}

/** The file must hold exactly the layers that its config targets. @throws SafetensorsError naming one that differs */
function checkTargets(
  source: string,
  { targetModules, excludeModules }: PeftConfig,
  layers: ReadonlyMap<string, AdaptedLayer>,
  adapted: ReadonlySet<string>,
): void {
  if (targetModules === null) return;
  const [meant, spared] = [targetTest(targetModules), targetTest(excludeModules ?? [])];
  for (const [path, layer] of layers) {
    const targeted = meant(path, layer) && !spared(path, layer);
    if (targeted === adapted.has(path)) continue;
    const problem = targeted
      ? `the config's target_modules include ${path}, for which there are no tensors`
      : `there are tensors for ${path}, which the config's target_modules do not include`;
    throw new SafetensorsError(source, problem);
  }
}
