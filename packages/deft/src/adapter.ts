/** An adapter on one layer: a method's theta as named parameters, and its correction to the layer's output. */
import { Adapter, type Module, Parameter } from '@deftjs/autograd/nn';
import { mul, type Tensor } from '@deftjs/tensor';
import { type AdaptedLayer, linearMapOf } from './linearMap.ts';
import type { Theta } from './parametrization.ts';
import type { Method } from './parametrizations/index.ts';
import { adaptableLayers, type Targets } from './targets.ts';

/** What was asked for when an adapter was attached: what its config file says. */
export interface AdapterRequest {
  readonly method: Method;
  readonly targetModules: Targets | null;
  readonly excludeModules: Targets | null;
}

/** The parameters are fields under the method's names, so that paths read `to_q.adapters.default.deft_P`. */
export class LayerAdapter extends Adapter<AdaptedLayer> {
  /** The method with this layer's rank, which a file may have lowered to what the layer has. */
  readonly method: Method;
  readonly request: AdapterRequest;
  /** t of W0 + t delta: 1 is the adapter as trained, 0 the base. A compiled function keeps what it was traced with. */
  strength = 1;
  readonly #parameters: Readonly<Record<string, Parameter>>;

  constructor(method: Method, request: AdapterRequest, theta: Theta) {
    super();
    this.method = method;
    this.request = request;
    this.#parameters = Object.fromEntries(
      Object.entries(theta).map(([name, value]) => {
        const parameter = new Parameter(value.shape, () => value);
        parameter.value = value;
        return [name, parameter];
      }),
    );
    Object.assign(this, this.#parameters);
  }

  /** The parameters by the method's names. */
  get parameters(): Readonly<Record<string, Parameter>> {
    return this.#parameters;
  }

  get #theta(): Theta {
    return Object.fromEntries(Object.entries(this.#parameters).map(([name, { value }]) => [name, value]));
  }

  #scaled(delta: Tensor): Tensor {
    return this.strength === 1 ? delta : mul(delta, this.strength);
  }

  override delta(x: Tensor, y0: Tensor, layer: AdaptedLayer): Tensor {
    return this.#scaled(this.method.apply(x, y0, this.#theta, linearMapOf(layer)));
  }

  /** What merging adds to the layer's weight: float32, of its shape. */
  deltaWeight(layer: AdaptedLayer): Tensor {
    return this.#scaled(this.method.delta(layer.weight.value, this.#theta));
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
