/** An adapter on one layer: a method's theta as named parameters, and its correction to the layer's output. */
import { Adapter, type Module, Parameter } from '@deftjs/autograd/nn';
import {
  type Device,
  dropout,
  evaluate,
  type Key,
  keep,
  mul,
  narrow,
  randomBits,
  reshape,
  type Tensor,
  zerosLike,
} from '@deftjs/tensor';
import { type AdaptedLayer, linearMapOf } from './linearMap.ts';
import type { Theta, WeightChange } from './parametrization.ts';
import type { Method } from './parametrizations/index.ts';
import { adaptableLayers, type Targets } from './targets.ts';

/** What was asked for when an adapter was attached: what its config file says. */
export interface AdapterRequest {
  readonly method: Method;
  readonly targetModules: Targets | null;
  readonly excludeModules: Targets | null;
  /** Of the layers that a list of names means, those of some blocks; absent: all. */
  readonly blocks?: BlockChoice;
}

/** PEFT's layers_to_transform and layers_pattern: the numbers of blocks, and the names of lists of blocks. */
export interface BlockChoice {
  readonly numbers: readonly number[] | number;
  readonly lists: readonly string[] | string | null;
}

/**
 * The adapters of one method that were attached together. Their changes are made together, when the first of them is
 * asked for and again when a parameter has another value: in a traced step, once.
 */
export class AdapterGroup {
  readonly method: Method;
  /** For dropout: every member has a stream of its own under it. */
  dropoutKey: Key | Tensor | null = null;
  readonly #members: LayerAdapter[] = [];
  #values: readonly Tensor[] = [];
  #changes: readonly WeightChange[] = [];

  constructor(method: Method) {
    this.method = method;
  }

  /** Takes up a member; returns its number. */
  join(member: LayerAdapter): number {
    return this.#members.push(member) - 1;
  }

  /** The changes of all members, made anew when a parameter has another value. */
  get changes(): readonly WeightChange[] {
    const thetas = this.#members.map(({ parameters, fixed }) => ({
      ...Object.fromEntries(Object.entries(parameters).map(([name, { value }]) => [name, value])),
      ...fixed,
    }));
    const values = thetas.flatMap((theta) => Object.values(theta));
    if (values.length !== this.#values.length || values.some((value, i) => value !== this.#values[i])) {
      this.#values = values;
      this.#changes = this.method.changes(thetas);
    }
    return this.#changes;
  }

  /** x with entries dropped for a member, in training. @throws Error when no key was given */
  dropped(x: Tensor, member: number): Tensor {
    const { dropout: probability } = this.method;
    if (probability === 0) return x;
    if (this.dropoutKey === null) {
      throw new Error(
        `adapter: dropout ${probability} needs a key in training; call withDropout(module, key, run), or setTraining(module, false)`,
      );
    }
    const keys = randomBits(this.dropoutKey, [this.#members.length, 2]);
    return dropout(x, probability, reshape(narrow(keys, 0, member, 1), [2]));
  }
}

/** The parameters are fields under the method's names, so that paths read `to_q.adapters.default.deft_P`. */
export class LayerAdapter extends Adapter<AdaptedLayer> {
  readonly request: AdapterRequest;
  /** t of W0 + t delta: 1 is the adapter as trained, 0 the base. A compiled function keeps what it was traced with. */
  strength = 1;
  readonly #parameters: Readonly<Record<string, Parameter>>;
  readonly #fixed: Theta;
  readonly #group: AdapterGroup;
  readonly #number: number;

  /** @param fixed tensors that are never trained */
  constructor(group: AdapterGroup, request: AdapterRequest, theta: Theta, fixed: Theta = {}) {
    super();
    this.request = request;
    this.#fixed = fixed;
    this.#parameters = Object.fromEntries(
      Object.entries(theta).map(([name, value]) => {
        const parameter = new Parameter(value.shape, () => value);
        parameter.value = value;
        return [name, parameter];
      }),
    );
    Object.assign(this, this.#parameters);
    this.#group = group;
    this.#number = group.join(this);
  }

  /** The method with this layer's rank, which a file may have lowered to what the layer has. */
  get method(): Method {
    return this.#group.method;
  }

  /** The parameters by the method's names. */
  get parameters(): Readonly<Record<string, Parameter>> {
    return this.#parameters;
  }

  /** Tensors of the method that are never trained, by its names. */
  get fixed(): Theta {
    return this.#fixed;
  }

  get group(): AdapterGroup {
    return this.#group;
  }

  /** What the parameters stand for now, at strength 1. */
  get change(): WeightChange {
    return this.#group.changes[this.#number]!;
  }

  #scaled(delta: Tensor): Tensor {
    return this.strength === 1 ? delta : mul(delta, this.strength);
  }

  override delta(x: Tensor, y0: Tensor, layer: AdaptedLayer): Tensor {
    if (this.strength === 0) return zerosLike(y0);
    const seen = this.training ? this.#group.dropped(x, this.#number) : x;
    return this.#scaled(this.change.apply(seen, y0, linearMapOf(layer, seen === x)));
  }

  /** What merging adds to the layer's weight: float32, of its shape. */
  deltaWeight(layer: AdaptedLayer): Tensor {
    return this.#scaled(this.change.delta(layer.weight.value));
  }
}

/** A layer and its adapter of some name. */
export interface AttachedAdapter {
  readonly path: string;
  readonly layer: AdaptedLayer;
  readonly adapter: LayerAdapter;
}

/** The adapters of the name in the tree, in the order of the layers; of all names when none is given. */
export function attachedAdapters(module: Module, adapterName?: string): AttachedAdapter[] {
  return [...adaptableLayers(module)].flatMap(([path, layer]) =>
    Object.entries(layer.adapters).flatMap(([name, adapter]) =>
      adapter instanceof LayerAdapter && (adapterName === undefined || name === adapterName)
        ? [{ path, layer, adapter }]
        : [],
    ),
  );
}

/** As `attachedAdapters`. @throws Error when there are none of the name, naming those that there are */
export function requireAdapters(op: string, module: Module, adapterName: string): AttachedAdapter[] {
  const found = attachedAdapters(module, adapterName);
  if (found.length > 0) return found;
  const names = new Set(
    [...adaptableLayers(module).values()].flatMap(({ adapters }) => Object.keys(adapters)),
  );
  const there = names.size === 0 ? 'none' : [...names].join(', ');
  throw new Error(`${op}: no adapter is named "${adapterName}"; there are: ${there}`);
}

/** The groups of the adapters of the name, each once; of all names when none is given. */
function groupsOf(module: Module, adapterName?: string): Set<AdapterGroup> {
  return new Set(attachedAdapters(module, adapterName).map(({ adapter }) => adapter.group));
}

/**
 * The result of `run` while the key decides what dropout drops: the same key, the same entries. A compiled step takes a
 * u32 tensor [2], so that every call has a key of its own.
 */
export function withDropout<R>(module: Module, key: Key | Tensor, run: () => R): R {
  const before = [...groupsOf(module)].map((group) => [group, group.dropoutKey] as const);
  try {
    for (const [group] of before) group.dropoutKey = key;
    return run();
  } finally {
    for (const [group, saved] of before) group.dropoutKey = saved;
  }
}

/**
 * Computes the factors of every change once, for evaluation: until a parameter has another value, the model's outputs
 * are computed from them and no decomposition runs again.
 */
export async function cacheChanges(module: Module, device?: Device): Promise<void> {
  const tensors = [...groupsOf(module)].flatMap(({ changes }) => changes.flatMap((change) => change.tensors));
  await evaluate(tensors, device);
  keep(tensors);
}
