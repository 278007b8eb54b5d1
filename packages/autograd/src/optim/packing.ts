/**
 * Many parameters as a few flat vectors, so that a step over all of them is one kernel for each vector.
 *
 * Parameters of one type and one group share a vector, one after the other. Those whose size is a multiple of 4 come
 * before others: kernels then read and write all of them four elements at a time, and a gradient's kernel writes its place
 * of the packed gradient itself. Multiples of 64 come first, for bindings can begin there, and layers of one shape share
 * their code. Unpacking costs nothing: parameters are views of the vectors.
 */
import {
  concat,
  type DType,
  formatShape,
  narrow,
  reshape,
  ShapeError,
  Tensor,
  type Tree,
  treeLeaves,
  treeWith,
  visitLeaves,
} from '@deftjs/tensor';
import { matchesPath } from '../path.ts';
import { leavesAlike, type ParameterGroup } from './optimizer.ts';

/** Flat vectors by name: "f32" holds the f32 parameters of no group, "f32.0" those of the first group. */
export type Vectors = { readonly [name: string]: Tensor };

/** How the parameters of a tree lie in flat vectors, and back. */
export interface Packing<P extends Tree> {
  /** The groups that the packing was made with, for an optimizer of its vectors. */
  readonly groups: readonly ParameterGroup[];
  /** Where each parameter lies, in the order of `treeLeaves`: the name of its vector, and its first element there. */
  readonly places: readonly { readonly vector: string; readonly start: number }[];
  /** A tree like the parameters as vectors. @throws ShapeError when it does not fit, DTypeError when types are mixed */
  pack(tree: P): Vectors;
  /** Vectors as a tree like the parameters. @throws ShapeError when they do not fit */
  unpack(vectors: Vectors): P;
}

/** A parameter's place in its vector. */
interface Place {
  readonly leaf: number;
  readonly start: number;
}

/** The parameters of each vector in the order they lie in it, by name. */
function vectorsOf(parameters: Tree, groups: readonly ParameterGroup[]): Map<string, number[]> {
  const vectors = new Map<string, number[]>();
  let leaf = 0;
  visitLeaves(parameters, (value, path) => {
    if (!(value instanceof Tensor)) return;
    const group = groups.findIndex(({ match }) => matchesPath(match, path));
    const name = nameOf(value.dtype, group);
    vectors.set(name, [...(vectors.get(name) ?? []), leaf]);
    leaf += 1;
  });
  return vectors;
}

function nameOf(dtype: DType, group: number): string {
  return group < 0 ? dtype : `${dtype}.${group}`;
}

/**
 * A packing of parameters. Made once; a step keeps vectors of weights and moments, takes the gradient with respect to
 * the unpacked tree and packs it:
 *
 *     const packed = packing(parameters, groups);
 *     const optimizer = adamW({ groups: packed.groups });
 *     // in the step
 *     const { value, gradient } = valueAndGrad(loss)(packed.unpack(weights));
 *     const next = optimizer.update(weights, packed.pack(gradient), state, { learningRate });
 *
 * The numbers are those of the optimizer on the tree itself, bit for bit. It pays where parameters are many.
 * @param groups as for the optimizer, by paths of the tree
 */
export function packing<P extends Tree>(parameters: P, groups: readonly ParameterGroup[] = []): Packing<P> {
  const template = treeLeaves(parameters).map(({ shape, size }) => ({ shape, size }));
  const places = new Map<string, readonly Place[]>();
  const sizes = new Map<string, number>();
  for (const [name, leaves] of vectorsOf(parameters, groups)) {
    const oddness = (leaf: number): number =>
      [64, 4, 1].findIndex((unit) => template[leaf]!.size % unit === 0);
    const inOrder = leaves.toSorted((a, b) => oddness(a) - oddness(b));
    let start = 0;
    places.set(
      name,
      inOrder.map((leaf) => {
        const place = { leaf, start };
        start += template[leaf]!.size;
        return place;
      }),
    );
    sizes.set(name, start);
  }
  const placeOf: { vector: string; start: number }[] = [];
  for (const [vector, own] of places) for (const { leaf, start } of own) placeOf[leaf] = { vector, start };
  return {
    places: placeOf,
    groups: groups.map((group, i) => ({ ...group, match: (name) => name.endsWith(`.${i}`) })),
    pack(tree) {
      const [leaves] = leavesAlike('pack', parameters, { tensors: tree }) as [Tensor[]];
      return Object.fromEntries(
        [...places].map(([name, own]) => [name, concat(own.map(({ leaf }) => reshape(leaves[leaf]!, [-1])))]),
      );
    },
    unpack(vectors) {
      const leaves: Tensor[] = [];
      for (const [name, own] of places) {
        const vector = vectors[name];
        const size = sizes.get(name)!;
        if (vector?.rank !== 1 || vector.size !== size) {
          const got = vector ? formatShape(vector.shape) : `vectors ${Object.keys(vectors).join(', ')}`;
          throw new ShapeError(`unpack: vector "${name}" does not fit; expected [${size}]; got ${got}`);
        }
        for (const { leaf, start } of own) {
          const { shape, size: length } = template[leaf]!;
          leaves[leaf] = reshape(narrow(vector, 0, start, length), shape);
        }
      }
      return treeWith(parameters, leaves);
    },
  };
}
