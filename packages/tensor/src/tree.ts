/** Trees: tensors in arrays and records, nested as the user likes. Leaves are visited in a fixed order (sorted keys). */
import { Tensor } from './tensor.ts';

/** A tensor, or arrays and records of trees. Numbers, strings, booleans and null may stand beside tensors. */
export type Tree =
  | Tensor
  | number
  | string
  | boolean
  | null
  | undefined
  | readonly Tree[]
  | { readonly [key: string]: Tree };

/** @internal Whether a value is a record, whose fields are trees: no instance of a class. */
export function isRecord(tree: unknown): tree is { readonly [key: string]: Tree } {
  if (typeof tree !== 'object' || tree === null) return false;
  const prototype = Object.getPrototypeOf(tree);
  return prototype === Object.prototype || prototype === null;
}

/**
 * Calls `visit` with each leaf that is not a tree of its own, and the path to it ("state.m.0").
 * @throws TypeError naming the path of a value that no tree may hold
 */
export function visitLeaves(
  tree: Tree,
  visit: (leaf: Tensor | number | string | boolean | null, path: string) => void,
): void {
  const walk = (node: Tree, path: string): void => {
    if (node instanceof Tensor || node === null || ['number', 'string', 'boolean'].includes(typeof node)) {
      visit(node as Tensor, path);
    } else if (node === undefined) {
      // An absent option: no leaf.
    } else if (Array.isArray(node)) {
      for (const [i, child] of node.entries()) walk(child as Tree, join(path, String(i)));
    } else if (isRecord(node)) {
      for (const key of Object.keys(node).sort()) walk(node[key]!, join(path, key));
    } else {
      throw new TypeError(
        `tree: expected tensors, numbers, arrays and plain records; got ${String(node)} at "${path}"`,
      );
    }
  };
  walk(tree, '');
}

function join(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`;
}

/** The tensors of a tree, in order. @throws TypeError */
export function treeLeaves(tree: Tree): Tensor[] {
  const leaves: Tensor[] = [];
  visitLeaves(tree, (leaf) => {
    if (leaf instanceof Tensor) leaves.push(leaf);
  });
  return leaves;
}

/** The same tree with `change` of each tensor in its place. @throws TypeError */
export function treeMap<T extends Tree>(change: (leaf: Tensor, path: string) => Tensor, tree: T): T {
  const walk = (node: Tree, path: string): Tree => {
    if (node instanceof Tensor) return change(node, path);
    if (Array.isArray(node)) return node.map((child, i) => walk(child as Tree, join(path, String(i))));
    if (!isRecord(node)) return node;
    // Visited in sorted order, like treeLeaves; kept in the order written.
    const changed = new Map(
      Object.keys(node)
        .sort()
        .map((key) => [key, walk(node[key]!, join(path, key))]),
    );
    return Object.fromEntries(Object.keys(node).map((key) => [key, changed.get(key)!]));
  };
  visitLeaves(tree, () => {});
  return walk(tree, '') as T;
}

/**
 * @internal A function that gives the same tree with other tensors, in order, in the places of its own. It walks no tree that it
 * has walked before, so compiled functions can afford it at every call.
 * @throws TypeError
 */
export function treeBuilder<T extends Tree>(tree: T): (leaves: readonly Tensor[]) => T {
  let count = 0;
  const builderOf = (node: Tree): ((leaves: readonly Tensor[]) => Tree) => {
    if (node instanceof Tensor) {
      const place = count;
      count += 1;
      return (leaves) => leaves[place]!;
    }
    if (Array.isArray(node)) {
      const children = node.map((child) => builderOf(child as Tree));
      return (leaves) => children.map((child) => child(leaves));
    }
    if (!isRecord(node)) return () => node;
    // Counted in sorted order, like treeLeaves; kept in the order written.
    const sorted = new Map(
      Object.keys(node)
        .sort()
        .map((key) => [key, builderOf(node[key]!)]),
    );
    const fields = Object.keys(node).map((key) => [key, sorted.get(key)!] as const);
    return (leaves) => Object.fromEntries(fields.map(([key, child]) => [key, child(leaves)]));
  };
  visitLeaves(tree, () => {});
  const build = builderOf(tree);
  return (leaves) => {
    if (leaves.length !== count) throw new Error(`internal: ${leaves.length} tensors for a tree of ${count}`);
    return build(leaves) as T;
  };
}

/** The same tree with the given tensors in the places of its own, in order. @throws TypeError */
export function treeWith<T extends Tree>(tree: T, leaves: readonly Tensor[]): T {
  return treeBuilder(tree)(leaves);
}
