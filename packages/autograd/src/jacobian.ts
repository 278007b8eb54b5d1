/**
 * Whole Jacobians: the derivative along every basis direction, all directions as one batch. Forwards there is one for
 * each element of the arguments, in reverse one for each element of the results; the smaller number decides.
 */
import {
  add,
  cast,
  DTypeError,
  equal,
  iota,
  isFloat,
  narrow,
  permute,
  reshape,
  type Tensor,
  type Tree,
  treeLeaves,
  treeWith,
} from '@deftjs/tensor';
import { jvp, vjp } from './transforms.ts';
import { vmap } from './vmap.ts';

/** For each tensor of R a tree like P, of tensors [...result's axes, ...argument's axes]. */
export type Jacobian<R, P> = R extends Tensor ? P : { [K in keyof R]: Jacobian<R[K], P> };

const sizeOf = (leaves: readonly Tensor[]): number => leaves.reduce((sum, { size }) => sum + size, 0);

/** For each leaf [count, ...shape]: direction i is 1 at element i, counted through all leaves, and 0 elsewhere. */
function basis(leaves: readonly Tensor[]): Tensor[] {
  const count = sizeOf(leaves);
  let start = 0;
  return leaves.map(({ shape, size, dtype }) => {
    const ones = equal(iota([count, size], 0), add(iota([count, size], 1), start));
    start += size;
    return reshape(cast(ones, dtype), [count, ...shape]);
  });
}

/** Directions [count, ...] cut into those of each leaf: [...leaf's axes, ...]. */
function cut(directions: Tensor, leaves: readonly Tensor[]): Tensor[] {
  let start = 0;
  return leaves.map(({ shape, size }) => {
    const own = narrow(directions, 0, start, size);
    start += size;
    return reshape(own, [...shape, ...directions.shape.slice(1)]);
  });
}

/** [...a, ...b] -> [...b, ...a], a being the first `rank` axes. */
function exchanged(x: Tensor, rank: number): Tensor {
  const axes = x.shape.map((_, axis) => axis);
  return permute(x, [...axes.slice(rank), ...axes.slice(0, rank)]);
}

/**
 * The function that returns f's Jacobian: for each tensor of the result, with shape s, a tree like the argument whose
 * tensors have the shapes [...s, ...argument's]. Builds one graph; nests with other transforms (the Hessian is
 * `jacobian(grad(f))`).
 * @throws DTypeError when a tensor of the argument or the result is not a float
 */
export function jacobian<P extends Tree, R extends Tree>(f: (x: P) => R): (x: P) => Jacobian<R, P> {
  return (x) => {
    const inputs = treeLeaves(x);
    const { value, pullback } = vjp(f, x);
    const outputs = treeLeaves(value);
    const wrong = [...inputs, ...outputs].find(({ dtype }) => !isFloat(dtype));
    if (wrong) throw new DTypeError(`jacobian: expected floats; got ${wrong.dtype}`);
    const blocks =
      sizeOf(inputs) < sizeOf(outputs)
        ? forwards(f, x, inputs, outputs)
        : transposed(
            treeLeaves(vmap((dy: R) => pullback(dy))(treeWith(value, basis(outputs)))).map((dx) =>
              cut(dx, outputs),
            ),
          );
    const trees = blocks.map((block) => treeWith(x, block));
    return withTrees(value, trees) as Jacobian<R, P>;
  };
}

/** blocks[result][argument] by one pushforward for each element of the arguments. */
function forwards<P extends Tree, R extends Tree>(
  f: (x: P) => R,
  x: P,
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
): Tensor[][] {
  const tangents = vmap((dx: P) => jvp(f, [x], [dx]).tangent)(treeWith(x, basis(inputs)));
  return treeLeaves(tangents).map((dy, i) =>
    cut(dy, inputs).map((block) => exchanged(block, block.rank - outputs[i]!.rank)),
  );
}

function transposed(blocks: readonly (readonly Tensor[])[]): Tensor[][] {
  return (blocks[0] ?? []).map((_, i) => blocks.map((row) => row[i]!));
}

/** The tree with a tree in the place of each tensor, in order. */
function withTrees(tree: Tree, trees: readonly Tree[]): Tree {
  const places = new Map(treeLeaves(tree).map((leaf, i) => [leaf, trees[i]!]));
  const walk = (node: Tree): Tree => {
    const tree = places.get(node as Tensor);
    if (tree !== undefined) return tree;
    if (Array.isArray(node)) return node.map((child) => walk(child as Tree));
    if (typeof node !== 'object' || node === null) return node;
    return Object.fromEntries(Object.entries(node).map(([key, child]) => [key, walk(child as Tree)]));
  };
  return walk(tree);
}
