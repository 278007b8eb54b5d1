/** An adapter on one layer: a method's theta as named parameters, and its correction to the layer's output. */
import { Adapter, type Module, Parameter } from '@deftjs/autograd/nn';
import { mul, type Tensor } from '@deftjs/tensor';
import { type AdaptedLayer, linearMapOf } from './linearMap.ts';
import type { LowRankChange } from './lowRankChange.ts';
import type { Theta } from './parametrization.ts';
import type { Method } from './parametrizations/index.ts';
import { adaptableLayers, type Targets } from './targets.ts';

/** What was asked for when an adapter was attached: what its config file says. */
export interface AdapterRequest {
  readonly method: Method;
  readonly targetModules: Targets | null;
  readonly excludeModules: Targets | null;
}

/**
 * The adapters of one method that were attached together. Their changes are made together, when the first of them is
 * asked for and again when a parameter has another value: in a traced step, once.
 */
export class AdapterGroup {
  readonly method: Method;
  readonly #members: LayerAdapter[] = [];
  #values: readonly Tensor[] = [];
  #changes: readonly LowRankChange[] = [];

  constructor(method: Method) {
    this.method = method;
  }

  /** Takes up a member; returns its number. */
  join(member: LayerAdapter): number {
    return this.#members.push(member) - 1;
  }

  changeOf(member: number): LowRankChange {
    const values = this.#members.flatMap(({ parameters }) =>
      Object.values(parameters).map(({ value }) => value),
    );
    if (values.length !== this.#values.length || values.some((value, i) => value !== this.#values[i])) {
      this.#values = values;
      this.#changes = this.method.changes(
        this.#members.map(({ parameters }) =>
          Object.fromEntries(Object.entries(parameters).map(([name, { value }]) => [name, value])),
        ),
      );
    }
    return this.#changes[member]!;
  }
}

/** The parameters are fields under the method's names, so that paths read `to_q.adapters.default.deft_P`. */
export class LayerAdapter extends Adapter<AdaptedLayer> {
  readonly request: AdapterRequest;
  /** t of W0 + t delta: 1 is the adapter as trained, 0 the base. A compiled function keeps what it was traced with. */
  strength = 1;
  readonly #parameters: Readonly<Record<string, Parameter>>;
  readonly #group: AdapterGroup;
  readonly #number: number;

  constructor(group: AdapterGroup, request: AdapterRequest, theta: Theta) {
    super();
    this.request = request;
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

  /** What the parameters stand for now, at strength 1. */
  get change(): LowRankChange {
    return this.#group.changeOf(this.#number);
  }

  #scaled(delta: Tensor): Tensor {
    return this.strength === 1 ? delta : mul(delta, this.strength);
  }

  override delta(x: Tensor, y0: Tensor, layer: AdaptedLayer): Tensor {
    return this.#scaled(this.change.apply(x, y0, linearMapOf(layer)));
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
