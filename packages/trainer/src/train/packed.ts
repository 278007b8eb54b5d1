/**
 * What training steps change, as they have it and as it is kept.
 *
 * Steps have a few vectors, in which all trained tensors lie one after the other, so that their update is a few kernels.
 * Checkpoints, and whatever else looks at what was learnt, have every tensor under its name.
 */
import { type Module, trainableState } from '@deftjs/autograd/nn';
import { adamW, type Packing, type Vectors } from '@deftjs/autograd/optim';
import {
  alias,
  type Device,
  evaluate,
  type HostArray,
  read,
  type Tensor,
  type Tree,
  tensor,
  treeLeaves,
  treeMap,
  treeWith,
} from '@deftjs/tensor';
import type { Kept } from './steps.ts';

export type Weights = Record<string, Tensor>;

/** Everything that a step changes; `average` is the moving average of the weights, null where none is kept. */
export type StateOf<P extends Tree> = {
  readonly weights: P;
  readonly optimizer: { readonly step: Tensor; readonly m: P; readonly v: P };
  readonly average: P | null;
};

export type PackedState = StateOf<Vectors>;

function mapState<P extends Tree, Q extends Tree>(
  { weights, optimizer: { step, m, v }, average }: StateOf<P>,
  f: (part: P) => Q,
): StateOf<Q> {
  return {
    weights: f(weights),
    optimizer: { step, m: f(m), v: f(v) },
    average: average === null ? null : f(average),
  };
}

/** The state that training of the model starts from. */
export function packedState(
  model: Module,
  packed: Packing<Weights>,
  { keepsAverage }: { readonly keepsAverage: boolean },
): PackedState {
  // Steps use their state up, so it must not be the model's own tensors, nor one tensor twice.
  const copy = (): Vectors => packed.pack(treeMap(alias, trainableState(model)));
  const weights = copy();
  const optimizer = adamW().init(weights) as PackedState['optimizer'];
  return { weights, optimizer, average: keepsAverage ? copy() : null };
}

/** Vectors as the tensors that they are made of, computed on the device. */
export async function unpacked(packed: Packing<Weights>, vectors: Vectors, device: Device): Promise<Weights> {
  const weights = packed.unpack(vectors);
  await evaluate(treeLeaves(weights), device);
  return weights;
}

/** The values of every tensor of a tree. */
async function valuesOf(tree: Tree, device: Device): Promise<Map<Tensor, HostArray>> {
  const entries = treeLeaves(tree).map(async (x) => [x, await read(x, device)] as const);
  return new Map(await Promise.all(entries));
}

/**
 * Keeps states in checkpoints by the names of what is trained. Vectors are cut up and joined on the host: a device need
 * not have room for everything twice.
 */
export function keptByName(packed: Packing<Weights>, device: Device): Kept<PackedState, StateOf<Weights>> {
  return {
    like: (state) => mapState(state, packed.unpack),
    of: async (state) => {
      const values = await valuesOf(state, device);
      return mapState(state, (vectors) => {
        const shapes = packed.unpack(vectors);
        const cut = treeLeaves(shapes).map(({ shape, dtype, size }, i) => {
          const { vector, start } = packed.places[i]!;
          return tensor(values.get(vectors[vector]!)!.subarray(start, start + size), shape, dtype);
        });
        return treeWith(shapes, cut);
      });
    },
    stateOf: async (named) => {
      const values = await valuesOf(named, device);
      return mapState(named, (weights) => {
        const shapes = packed.pack(weights);
        const joined = new Map(Object.entries(shapes).map(([name, x]) => [name, new Float32Array(x.size)]));
        for (const [i, x] of treeLeaves(weights).entries()) {
          const { vector, start } = packed.places[i]!;
          joined.get(vector)!.set(values.get(x)!, start);
        }
        return treeMap(({ shape, dtype }, name) => tensor(joined.get(name)!, shape, dtype), shapes);
      });
    },
  };
}
