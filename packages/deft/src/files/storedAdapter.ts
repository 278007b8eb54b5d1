/**
 * Adapters as files hold them, before they are on a model: for each layer a method and what its theta is. Formats read
 * into this and write from it; a model takes it by `mountStored`, and tools that go layer by layer take it as it is.
 */
import type { Module } from '@deftjs/autograd/nn';
import {
  asFloat32,
  type Device,
  SafetensorsError,
  type Shape,
  type Tensor,
  type TensorSource,
} from '@deftjs/tensor';
import { type AdaptedRow, expectFree, expectUngrouped, mount, onHost } from '../adapt.ts';
import { AdapterGroup, type AdapterRequest, LayerAdapter } from '../adapter.ts';
import type { Theta, WeightChange } from '../parametrization.ts';
import type { Method } from '../parametrizations/index.ts';
import { adaptableLayers, nearestNames } from '../targets.ts';
import { baseHash } from './baseHash.ts';

/** Something for each part of a pipeline, by the name that diffusers gives it: unet, transformer, text_encoder. */
export type Parts<T> = Readonly<Record<string, T>>;

/** The weights of a model's layers by the path of the layer. */
export type LayerShapes = ReadonlyMap<string, Shape>;

/** One layer's adapter. */
export interface StoredLayer {
  readonly part: string;
  readonly path: string;
  /** Of the layer's weight. */
  readonly shape: Shape;
  readonly method: Method;
  /** The same for all layers of one file and part: what its config says. */
  readonly request: AdapterRequest;
  /** Theta, float32. Files of whole weights hold W0 + D and need W0; for others it may be null. */
  theta(W0: Tensor | null): Theta;
}

export interface StoredAdapter {
  /** What messages call it: "PEFT", "kohya". */
  readonly format: string;
  /** What messages call the file. */
  readonly name: string;
  readonly layers: readonly StoredLayer[];
  /** `baseHash` of the weights that it was made for, where the file says so: it is exact on them alone. */
  readonly baseHash: string | null;
}

export interface MountOptions {
  /** Default "default". */
  readonly adapterName?: string;
  /** Whether the adapter will be trained further; default false: it is frozen. */
  readonly trainable?: boolean;
  /** Take an adapter that says that it was made for another base; default false. */
  readonly anyBase?: boolean;
  readonly device?: Device;
}

/** The change that the layer's adapter makes of the weight W0. */
export async function changeOf(
  { method, theta }: Pick<StoredLayer, 'method' | 'theta'>,
  W0: Tensor,
  device?: Device,
): Promise<{ readonly theta: Theta; readonly change: WeightChange }> {
  const values = theta(W0);
  const fixed = (await method.fixed?.(W0, device)) ?? {};
  return { theta: values, change: method.changes([{ ...values, ...fixed }])[0]! };
}

/** The shapes of the weights of a model's Linear and Conv2d layers. */
export function layerShapes(module: Module): LayerShapes {
  return new Map([...adaptableLayers(module)].map(([path, { weight }]) => [path, weight.shape]));
}

/**
 * Attaches the adapter to the models. Everything is checked first: when it throws, the models are untouched.
 * @throws Error when a name is taken or a layer is not Linear or Conv2d, or the adapter was made for another base
 */
export async function mountStored(
  models: Parts<Module>,
  adapter: StoredAdapter,
  options: MountOptions = {},
): Promise<AdaptedRow[]> {
  const { adapterName = 'default', trainable = false, anyBase = false, device } = options;
  const layersOf = Object.fromEntries(
    Object.entries(models).map(([part, model]) => [part, adaptableLayers(model)]),
  );
  const found = adapter.layers.map((stored) => {
    const layer = layersOf[stored.part]?.get(stored.path);
    if (!layer) {
      throw new Error(
        `${adapter.name}: ${stored.part}.${stored.path} is no Linear or Conv2d layer of the model`,
      );
    }
    expectFree(adapterName, stored.path, layer);
    expectUngrouped(stored.path, layer);
    return { ...stored, layer };
  });
  if (adapter.baseHash !== null && !anyBase) {
    const weights = found.map(({ part, path, layer }) => [`${part}.${path}`, layer.weight.value] as const);
    expectBase(adapter, await baseHash(weights, device));
  }
  const thetas = await onHost(
    found.map(({ theta, layer }) => theta(layer.weight.value)),
    device,
  );
  const groups = new Map<Method, AdapterGroup>();
  const adapters: { part: string; path: string; layer: (typeof found)[0]['layer']; adapter: LayerAdapter }[] =
    [];
  for (const [i, { part, path, layer, method, request }] of found.entries()) {
    const group = groups.get(method) ?? new AdapterGroup(method);
    groups.set(method, group);
    const fixed = (await method.fixed?.(layer.weight.value, device)) ?? {};
    adapters.push({ part, path, layer, adapter: new LayerAdapter(group, request, thetas[i]!, fixed) });
  }
  for (const { adapter: added } of adapters) {
    for (const parameter of Object.values(added.parameters)) parameter.trainable = trainable;
  }
  return Object.entries(models).flatMap(([part, model]) => {
    const own = adapters.filter((one) => one.part === part);
    return own.length === 0 ? [] : mount(model, adapterName, own);
  });
}

/** @throws Error when the adapter says that it was made for a base of another hash */
export function expectBase({ name, baseHash: expected }: StoredAdapter, hash: string): void {
  if (expected === null || expected === hash) return;
  throw new Error(
    `${name}: it was made for another base, on which alone it is exact: weights of SHA-256 ${expected.slice(0, 12)}...; got ${hash.slice(0, 12)}...`,
  );
}

/** A file's tensor, float32. */
export interface StoredValues {
  readonly shape: Shape;
  readonly data: Float32Array;
}

/** Every tensor of the file as float32. @throws SafetensorsError naming one that holds NaN or infinity */
export async function readValues(file: TensorSource): Promise<Map<string, StoredValues>> {
  const entries = file.names.map(async (key) => {
    const values = await file.read(key);
    const data = asFloat32(values);
    if (!data.every(Number.isFinite))
      throw new SafetensorsError(file.source, 'it holds NaN or infinity', key);
    return [key, { shape: values.shape, data }] as const;
  });
  return new Map(await Promise.all(entries));
}

/** For a message about a name that no layer has: the nearest that there are. */
export function nearest(written: string, names: Iterable<string>): string {
  const near = nearestNames(written, [...names]);
  return near.length === 0 ? 'the model has no such layer at all' : `nearest: ${near.join(', ')}`;
}
