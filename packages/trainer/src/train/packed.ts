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

async function mapState<P extends Tree, Q extends Tree>(
  { weights, optimizer: { step, m, v }, average }: StateOf<P>,
  f: (part: P) => Promise<Q>,
): Promise<StateOf<Q>> {
  return {
    weights: await f(weights),
    optimizer: { step, m: await f(m), v: await f(v) },
    average: average === null ? null : await f(average),
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

/** The same on the host, cut out of the vectors there: a device need not have room for everything twice. */
async function cutOnHost(packed: Packing<Weights>, vectors: Vectors, device: Device): Promise<Weights> {
  const entries = Object.entries(vectors).map(
    async ([name, vector]) => [name, await read(vector, device)] as const,
  );
  const values = Object.fromEntries(await Promise.all(entries));
  const shapes = packed.unpack(vectors);
  const cut = treeLeaves(shapes).map(({ shape, dtype, size }, i) => {
    const { vector, start } = packed.places[i]!;
    return tensor(values[vector]!.subarray(start, start + size), shape, dtype);
  });
  return treeWith(shapes, cut);
}

/** And back: the vectors of tensors on the host. */
async function joinedOnHost(packed: Packing<Weights>, weights: Weights): Promise<Vectors> {
  const leaves = treeLeaves(weights);
  const shapes = packed.pack(weights);
  const values = new Map<string, Float32Array>();
  for (const [name, { size }] of Object.entries(shapes)) values.set(name, new Float32Array(size));
  for (const [i, { vector, start }] of packed.places.entries()) {
    values.get(vector)!.set(await read(leaves[i]!), start);
  }
  const joined = Object.entries(shapes).map(([name, { shape, dtype }]) => {
    return [name, tensor(values.get(name)!, shape, dtype)] as const;
  });
  return Object.fromEntries(joined);
}

/** Keeps states in checkpoints by the names of what is trained. */
export function keptByName(packed: Packing<Weights>, device: Device): Kept<PackedState, StateOf<Weights>> {
  return {
    of: (state) => mapState(state, (vectors) => cutOnHost(packed, vectors, device)),
    stateOf: (named) => mapState(named, (weights) => joinedOnHost(packed, weights)),
  };
}
