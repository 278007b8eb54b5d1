/** Attaching adapters to a model and taking them off. */
import { type Module, namedParameters } from '@deftjs/autograd/nn';
import {
  type Device,
  evaluate,
  foldIn,
  formatShape,
  type Key,
  keyOf,
  read,
  type Shape,
  ShapeError,
  tensor,
} from '@deftjs/tensor';
import {
  AdapterGroup,
  type AdapterRequest,
  attachedAdapters,
  LayerAdapter,
  requireAdapters,
} from './adapter.ts';
import { type AdaptedLayer, matrixShape } from './linearMap.ts';
import { parameterCount, type Theta } from './parametrization.ts';
import { type Method, variantOf } from './parametrizations/index.ts';
import { endsWith, findTargets, type Targets } from './targets.ts';

export interface AttachOptions {
  readonly method: Method;
  readonly targetModules: Targets;
  readonly excludeModules?: Targets;
  /** Ranks of layers that differ from the method's: the first entry whose name ends the path, as in a list of targets. */
  readonly rankPattern?: Readonly<Record<string, number>>;
  /** The same for alpha. */
  readonly alphaPattern?: Readonly<Record<string, number>>;
  /** Default "default". Several adapters of one layer need different names; their corrections add up. */
  readonly adapterName?: string;
  /** The initial values are a pure function of the seed, the layer's path and its weight. */
  readonly seed: number;
  /** Where the initial values are computed; default: the current device. */
  readonly device?: Device;
}

/** One row of the table of what was adapted. */
export interface AdaptedRow {
  readonly path: string;
  /** Of the layer's weight. */
  readonly shape: Shape;
  readonly rank: number | null;
  /** How many numbers are trained. */
  readonly parameters: number;
}

/**
 * Attaches an adapter to every targeted Linear and Conv2d and freezes everything else but other adapters. Layers must
 * have their weights. Returns what was hit; when it throws, the model is untouched.
 * @throws Error when the targets match nothing (with the nearest names) or a name is taken, ShapeError when a layer is
 * smaller than the rank or has groups, SyntaxError for a bad pattern
 */
export async function attach(module: Module, options: AttachOptions): Promise<AdaptedRow[]> {
  const { method, targetModules, excludeModules, adapterName = 'default', seed, device } = options;
  const { rankPattern = {}, alphaPattern = {} } = options;
  const targets = [...findTargets(module, targetModules, excludeModules)];
  const variants = new Map<string, AdapterGroup>();
  const planned = targets.map(([path, layer]) => {
    const [rank, alpha] = [patternValue(rankPattern, path), patternValue(alphaPattern, path)];
    const key = JSON.stringify([rank, alpha]);
    const group = variants.get(key) ?? new AdapterGroup(variantOf(method, rank, alpha));
    variants.set(key, group);
    expectFree(adapterName, path, layer);
    expectRoom(path, layer, group.method.rank);
    return { path, layer, group };
  });
  const thetas = new Array<Theta>(planned.length);
  for (const group of variants.values()) {
    const members = planned.flatMap((plan, i) => (plan.group === group ? [i] : []));
    const fresh = members.map((i) => {
      const { path, layer } = planned[i]!;
      return { W0: layer.weight.value, key: keyOfPath(seed, path) };
    });
    group.method.init(fresh).forEach((theta, i) => {
      thetas[members[i]!] = theta;
    });
  }
  const values = await onHost(thetas, device);
  const request: AdapterRequest = {
    method,
    targetModules,
    excludeModules: excludeModules?.length ? excludeModules : null,
  };
  const fixed: Theta[] = [];
  for (const { layer, group } of planned)
    fixed.push((await group.method.fixed?.(layer.weight.value, device)) ?? {});
  const adapters = planned.map(({ path, layer, group }, i) => ({
    path,
    layer,
    adapter: new LayerAdapter(group, request, values[i]!, fixed[i]!),
  }));
  return mount(module, adapterName, adapters);
}

/** The value of the first name that ends the path. */
function patternValue(pattern: Readonly<Record<string, number>>, path: string): number | undefined {
  return Object.entries(pattern).find(([name]) => endsWith(path, name))?.[1];
}

/** Puts adapters on their layers under the name, with exactly their parameters and those of other adapters thawed. */
export function mount(
  module: Module,
  adapterName: string,
  adapters: readonly {
    readonly path: string;
    readonly layer: AdaptedLayer;
    readonly adapter: LayerAdapter;
  }[],
): AdaptedRow[] {
  const others = new Set(
    attachedAdapters(module).flatMap(({ adapter }) => Object.values(adapter.parameters)),
  );
  for (const parameter of namedParameters(module).values()) {
    if (!others.has(parameter)) parameter.trainable = false;
  }
  return adapters.map(({ path, layer, adapter }) => {
    layer.adapters[adapterName] = adapter;
    const { shape } = layer.weight;
    return { path, shape, rank: adapter.method.rank, parameters: parameterCount(adapter.method, shape) };
  });
}

/** @throws Error when the name is none, or the layer has an adapter of the name already */
export function expectFree(adapterName: string, path: string, layer: AdaptedLayer): void {
  if (!/^[A-Za-z_][\w-]*$/.test(adapterName)) {
    throw new Error(`attach: an adapter's name is letters, digits, "_" and "-"; got "${adapterName}"`);
  }
  if (Object.hasOwn(layer.adapters, adapterName)) {
    throw new Error(
      `attach: ${called(path)} has an adapter named "${adapterName}" already; detach it or choose another name`,
    );
  }
}

function expectRoom(path: string, layer: AdaptedLayer, rank: number | null): void {
  expectUngrouped(path, layer);
  if (rank === null) return;
  const { shape } = layer.weight;
  const limit = Math.min(...matrixShape(shape));
  if (rank > limit) {
    throw new ShapeError(
      `attach: rank ${rank} is too large for ${called(path)} with weight ${formatShape(shape)}; expected at most ${limit}`,
    );
  }
}

/** @throws ShapeError for a grouped convolution: its weight is not one matrix from inputs to outputs */
export function expectUngrouped(path: string, layer: AdaptedLayer): void {
  const groups = 'options' in layer ? (layer.options.groups ?? 1) : 1;
  if (groups !== 1)
    throw new ShapeError(`attach: ${called(path)} is a convolution in groups; expected 1; got ${groups}`);
}

function called(path: string): string {
  return path === '' ? 'the module itself' : path;
}

/** The stream of random numbers that belongs to a path. */
function keyOfPath(seed: number, path: string): Key {
  return Array.from(path).reduce((key, character) => foldIn(key, character.codePointAt(0)!), keyOf(seed));
}

/** The thetas with their values computed, all in one program, and brought to the host: no device or scope owns them. */
export async function onHost(thetas: readonly Theta[], device: Device | undefined): Promise<Theta[]> {
  await evaluate(
    thetas.flatMap((theta) => Object.values(theta)),
    device,
  );
  return Promise.all(
    thetas.map(async (theta) => {
      const entries = Object.entries(theta).map(async ([name, x]) => {
        const value = tensor(await read(x), x.shape, x.dtype);
        x.dispose();
        return [name, value] as const;
      });
      return Object.fromEntries(await Promise.all(entries));
    }),
  );
}

/** Takes the adapter off every layer that has it. What was frozen stays so. @throws Error when no layer has it */
export function detach(module: Module, adapterName = 'default'): void {
  for (const { layer } of requireAdapters('detach', module, adapterName)) delete layer.adapters[adapterName];
}

/**
 * Sets t of W0 + t delta for the adapter on every layer: 0 is the base, 1 the adapter as trained.
 * @throws Error when no layer has it
 */
export function setAdapterStrength(module: Module, strength: number, adapterName = 'default'): void {
  for (const { adapter } of requireAdapters('setAdapterStrength', module, adapterName))
    adapter.strength = strength;
}
