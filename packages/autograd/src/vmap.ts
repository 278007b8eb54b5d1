/**
 * Functions of one item made functions of a batch. The function is traced on one item; then each op that depends on
 * it is applied to all items at once, by a rule that says where the batch axis goes: always to the front.
 */
import {
  add,
  and,
  apply,
  arange,
  expand,
  formatShapes,
  gather,
  less,
  lessEqual,
  matmul,
  mul,
  type Op,
  permute,
  placeholder,
  reshape,
  type Shape,
  ShapeError,
  scatterAdd,
  type Tensor,
  type Tree,
  treeLeaves,
  treeMap,
  treeWith,
  where,
} from '@deftjs/tensor';
import { appliedAt, stepsBetween } from './graph.ts';

/** An op applied to one item of each input, some of which have a batch. */
interface Batched {
  readonly op: Op;
  readonly attrs: Readonly<Record<string, unknown>> | null;
  /** With the batch in front, or the item itself where there is none. */
  readonly inputs: readonly Tensor[];
  readonly has: readonly boolean[];
  readonly size: number;
}

/** Input i with a batch in front, repeated if it has none. */
function over({ inputs, has, size }: Batched, i: number): Tensor {
  return has[i] ? inputs[i]! : expand(inputs[i]!, [size, ...inputs[i]!.shape]);
}

const all = (batched: Batched): Tensor[] => batched.inputs.map((_, i) => over(batched, i));

/** The op on whole batches, its attributes changed. */
const again =
  (change: (attrs: never, batched: Batched) => unknown) =>
  (batched: Batched): Tensor =>
    apply(batched.op, all(batched), change(batched.attrs as never, batched));

const later = ({ axes }: { axes: readonly number[] }) => ({ axes: axes.map((axis) => axis + 1) });

/** Axis `from` moved to place `to`. */
function moveAxis(x: Tensor, from: number, to: number): Tensor {
  return permute(
    x,
    x.shape
      .map((_, axis) => axis)
      .toSpliced(from, 1)
      .toSpliced(to, 0, from),
  );
}

/** Axes 0 and 1 as one: [a, b, ...] -> [a b, ...]. */
function joined(x: Tensor): Tensor {
  return reshape(x, [x.shape[0]! * x.shape[1]!, ...x.shape.slice(2)]);
}

/** [B, N, C, ...] -> [N, B C, ...]: items as groups of channels. */
function itemsAsGroups(x: Tensor): Tensor {
  const [size, n, channels, ...pixels] = x.shape as [number, number, number, ...number[]];
  return reshape(moveAxis(x, 0, 1), [n, size * channels, ...pixels]);
}

/** Positions [B, ...] among `extent` rows as positions among those of all items; outside stays outside. */
function rowsOfAll(index: Tensor, extent: number): Tensor {
  const [size, ...rest] = index.shape as [number, ...number[]];
  const start = reshape(mul(arange(size), extent), [size, ...rest.map(() => 1)]);
  return where(and(lessEqual(0, index), less(index, extent)), add(index, start), -1);
}

/** One rule for each op that is not elementwise, not an identity and not of attention. */
const rules: Readonly<Record<string, (batched: Batched) => Tensor>> = {
  after: again((attrs) => attrs),
  reshape: again(({ shape }: { shape: Shape }, { size }) => ({ shape: [size, ...shape] })),
  permute: again(({ axes }: { axes: readonly number[] }) => ({ axes: [0, ...axes.map((axis) => axis + 1)] })),
  slice: again((attrs: { starts: Shape; shape: Shape; steps: Shape }, { size }) => ({
    starts: [0, ...attrs.starts],
    shape: [size, ...attrs.shape],
    steps: [1, ...attrs.steps],
  })),
  pad: again(({ before, after }: { before: Shape; after: Shape }) => ({
    before: [0, ...before],
    after: [0, ...after],
  })),
  unfold: again((attrs: { axis: number }) => ({ ...attrs, axis: attrs.axis + 1 })),
  expand: (batched) => {
    const [x, { shape }] = [over(batched, 0), batched.attrs as unknown as { shape: Shape }];
    const aligned = [...shape.slice(x.rank - 1).map(() => 1), ...x.shape.slice(1)];
    return expand(reshape(x, [batched.size, ...aligned]), [batched.size, ...shape]);
  },
  sum: again(later),
  max: again(later),
  argmax: again(later),
  concat: again(({ axis }: { axis: number }) => ({ axis: axis + 1 })),
  gather: (batched) => {
    const { axis } = batched.attrs as unknown as { axis: number };
    const [table, index] = batched.inputs as [Tensor, Tensor];
    if (!batched.has[1]) return gather(table, index, axis + 1);
    if (!batched.has[0]) return moveAxis(gather(table, index, axis), axis, 0);
    const rows = moveAxis(table, axis + 1, 1); // [B, extent, before..., after...]
    const picked = gather(joined(rows), rowsOfAll(index, rows.shape[1]!)); // [B, index..., before..., after...]
    const own = index.rank - 1;
    return permute(
      picked,
      picked.shape.map((_, i) => (i === 0 || i > axis + own ? i : i <= axis ? i + own : i - axis)),
    );
  },
  scatterAdd: (batched) => {
    const { axis, extent } = batched.attrs as unknown as { axis: number; extent: number };
    const [x, index] = [over(batched, 0), batched.inputs[1]!];
    if (!batched.has[1]) return scatterAdd(x, index, extent, axis + 1);
    const rows = moveAxis(x, axis + 1, 1); // [B, count, before..., after...]
    const places = joined(rowsOfAll(index, extent));
    const sums = scatterAdd(joined(rows), places, batched.size * extent);
    return moveAxis(reshape(sums, [batched.size, extent, ...rows.shape.slice(2)]), 1, axis + 1);
  },
  // The item without a batch has one axis less: it broadcasts.
  matmul: ({ inputs: [a, b] }) => matmul(a!, b!),
  conv2d: (batched) => {
    const { op, attrs, size, inputs, has } = batched;
    if (!has[0]) {
      const y = apply(op, [inputs[0]!, joined(inputs[1]!)], attrs);
      return reshape(y, [size, y.shape[0]! / size, ...y.shape.slice(1)]);
    }
    const y = apply(op, [joined(inputs[0]!), itemsAsGroups(over(batched, 1))], groupsOf(batched));
    const [n, channels, ...pixels] = y.shape as [number, number, ...number[]];
    return moveAxis(reshape(y, [n, size, channels / size, ...pixels]), 1, 0);
  },
  conv2dWeight: (batched) => {
    const y = apply(batched.op, all(batched).map(itemsAsGroups), groupsOf(batched));
    return reshape(y, [batched.size, y.shape[0]! / batched.size, ...y.shape.slice(1)]);
  },
};

function groupsOf({ attrs, size }: Batched): unknown {
  return { ...attrs, groups: (attrs as unknown as { groups: number }).groups * size };
}

/** A node for derivatives only: the functions among its attributes, its rules, get batches too. */
function identity(batched: Batched): Tensor {
  const { op, attrs } = batched;
  const mapped =
    attrs &&
    Object.fromEntries(
      Object.entries(attrs).map(([name, value]) => [
        name,
        typeof value === 'function' ? vmap(value as (...x: Tree[]) => Tree) : value,
      ]),
    );
  return apply(op, all(batched), mapped);
}

function batch(batched: Batched): Tensor {
  const { op, attrs } = batched;
  const rule = rules[op.name];
  if (rule) return rule(batched);
  // Both take any axes in front of those they are about.
  if (op.lower.kind === 'elementwise' || op.lower.kind === 'attend') return apply(op, all(batched), attrs);
  if (op.lower.kind === 'identity') return identity(batched);
  throw new Error(`vmap: there is no rule for the op "${op.name}"`);
}

/**
 * The function of batches that applies f to each item: every tensor of the arguments and of the result has the batch
 * as its first axis. What f closes over is the same for all items. Composes with derivatives in any order.
 * @throws ShapeError when the tensors do not have one first extent in common
 */
export function vmap<A extends readonly Tree[], R extends Tree>(f: (...x: A) => R): (...x: A) => R {
  return (...x) => {
    const leaves = treeLeaves(x);
    const size = leaves[0]?.shape[0];
    if (size === undefined || leaves.some(({ shape }) => shape[0] !== size)) {
      throw new ShapeError(
        `vmap: expected tensors of one first extent; got ${formatShapes(leaves.map(({ shape }) => shape)) || 'none'}`,
      );
    }
    const variables = leaves.map(({ shape, dtype }) => placeholder(shape.slice(1), dtype));
    const result = f(...(treeWith(x as Tree, variables) as unknown as A));
    const known = new Map(variables.map((variable, i) => [variable, leaves[i]!]));
    for (const step of stepsBetween(new Set(variables), treeLeaves(result))) {
      const { op, attrs } = appliedAt(step);
      const inputs = step.inputs.map((item) => known.get(item) ?? item);
      const has = step.inputs.map((item) => known.has(item));
      known.set(step.output, batch({ op, attrs: attrs as Batched['attrs'], inputs, has, size }));
    }
    return treeMap((y) => known.get(y) ?? expand(y, [size, ...y.shape]), result);
  };
}
