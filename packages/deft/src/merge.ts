/** Folding adapters into the weights, and taking them out again. */
import type { Module } from '@deftjs/autograd/nn';
import { add, cast, type Device, evaluate, keep, type Tensor } from '@deftjs/tensor';
import { LayerAdapter } from './adapter.ts';
import type { AdaptedLayer } from './linearMap.ts';
import { adaptableLayers } from './targets.ts';

/** A merged model: a plain one, whose layers have no adapters until `unmerge`. */
export interface Merged extends Disposable {
  /** Paths of the layers whose weights changed. */
  readonly layers: readonly string[];
  /** Puts the base weights back, bit by bit as they were, and the adapters. Doing it again does nothing. */
  unmerge(): void;
}

/**
 * Adds the deltas of all adapters to the weights, W0 + sum of delta(W0) computed in float32 and stored in the weight's
 * type, and sets the adapters aside: the model computes the same with plain layers. Each delta sees the original W0.
 * @throws Error when no layer has an adapter, or one that is no weight change; the model is untouched then
 */
export async function merge(module: Module, device?: Device): Promise<Merged> {
  const adapted = [...adaptableLayers(module)].filter(([, { adapters }]) => Object.keys(adapters).length > 0);
  if (adapted.length === 0) throw new Error('merge: no layer has an adapter');
  const weights = adapted.map(([path, layer]) => mergedWeight(path, layer));
  await evaluate(weights, device);
  keep(weights);
  const before = adapted.map(([, layer], i) => {
    const saved = { layer, weight: layer.weight.value, adapters: layer.adapters };
    layer.weight.value = weights[i]!;
    layer.adapters = {};
    return saved;
  });
  const unmerge = (): void => {
    for (const { layer, weight, adapters } of before.splice(0)) {
      layer.weight.value = weight;
      layer.adapters = adapters;
    }
    for (const weight of weights) weight.dispose();
  };
  return { layers: adapted.map(([path]) => path), unmerge, [Symbol.dispose]: unmerge };
}

function mergedWeight(path: string, layer: AdaptedLayer): Tensor {
  const W0 = layer.weight.value;
  const W = Object.entries(layer.adapters).reduce(
    (sum, [name, adapter]) => {
      if (!(adapter instanceof LayerAdapter))
        throw new Error(`merge: adapter "${name}" of ${path} has no weight delta`);
      return add(sum, adapter.deltaWeight(layer));
    },
    cast(W0, 'f32'),
  );
  return cast(W, W0.dtype);
}
