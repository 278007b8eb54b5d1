/**
 * The graph as the compiler sees it: nodes in topological order that name their inputs by number, each value once.
 *
 * Two applications of one op to the same inputs with equal attributes are one node, and what no output needs is not
 * there. The walk keeps its own stack: graphs of a training step are thousands of nodes deep.
 */
import type { Graph } from '../device.ts';
import type { DType } from '../dtype.ts';
import { formatShape, formatShapes } from '../errors.ts';
import type { Op } from '../op.ts';
import { type Shape, sameShape } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

/** A value of the graph. Leaves (input i) have no op. */
export interface Node {
  readonly id: number;
  readonly shape: Shape;
  readonly dtype: DType;
  readonly op: Op | null;
  readonly attrs: unknown;
  readonly inputs: readonly number[];
}

export interface Ir {
  /** Inputs come before their consumers; nodes[id].id = id. The leaves are first, in the order of the inputs. */
  readonly nodes: readonly Node[];
  readonly inputCount: number;
  /** The node of each output, in order; one node can be several outputs. */
  readonly outputs: readonly number[];
  readonly donations: ReadonlyMap<number, number>;
}

const opIds = new WeakMap<Op, number>();
let nextOpId = 0;

function opId(op: Op): number {
  let id = opIds.get(op);
  if (id === undefined) {
    id = nextOpId++;
    opIds.set(op, id);
  }
  return id;
}

/** Text that is equal for equal attributes: keys sorted, and -0, NaN and infinities told apart. */
export function attrsKey(attrs: unknown): string {
  if (typeof attrs === 'number') return Object.is(attrs, -0) ? '-0' : String(attrs);
  if (typeof attrs !== 'object' || attrs === null) return JSON.stringify(attrs) ?? 'undefined';
  if (Array.isArray(attrs) || ArrayBuffer.isView(attrs)) {
    return `[${Array.from(attrs as ArrayLike<unknown>, attrsKey).join(',')}]`;
  }
  const record = attrs as Record<string, unknown>;
  const fields = Object.keys(record).sort();
  return `{${fields.map((field) => `${field}:${attrsKey(record[field])}`).join(',')}}`;
}

/** The tensors that the graph's outputs depend on, inputs before consumers, cut at the graph's inputs. */
export function topologicalOrder(graph: Graph): Tensor[] {
  const seen = new Set<Tensor>(graph.inputs);
  const order: Tensor[] = [];
  const stack: { tensor: Tensor; next: number }[] = [];
  const visit = (tensor: Tensor): void => {
    if (seen.has(tensor)) return;
    seen.add(tensor);
    stack.push({ tensor, next: 0 });
  };
  for (const output of graph.outputs) {
    visit(output);
    while (stack.length > 0) {
      const top = stack.at(-1)!;
      const { source } = top.tensor;
      if (source.kind !== 'applied') {
        const what = `a leaf of shape ${formatShape(top.tensor.shape)} (${source.kind})`;
        throw new Error(`internal: lower: ${what} is not among the graph's inputs`);
      }
      const input = source.inputs[top.next++];
      if (input !== undefined) visit(input);
      else order.push(stack.pop()!.tensor);
    }
  }
  return order;
}

/**
 * The graph with equal values computed once.
 * @throws Error when a leaf is not among the inputs, or a donation does not fit
 */
export function readGraph(graph: Graph): Ir {
  const nodes: Node[] = [];
  const ids = new Map<Tensor, number>();
  for (const input of graph.inputs) {
    ids.set(input, nodes.length);
    nodes.push({
      id: nodes.length,
      shape: input.shape,
      dtype: input.dtype,
      op: null,
      attrs: null,
      inputs: [],
    });
  }
  const known = new Map<string, number>();
  for (const tensor of topologicalOrder(graph)) {
    const { source } = tensor;
    if (source.kind !== 'applied') continue;
    const inputs = source.inputs.map((input) => ids.get(input)!);
    if (source.op.lower.kind === 'identity') {
      ids.set(tensor, inputs[0]!);
      continue;
    }
    const key = `${opId(source.op)} ${inputs.join(',')} ${attrsKey(source.attrs)}`;
    let id = known.get(key);
    if (id === undefined) {
      id = nodes.length;
      known.set(key, id);
      const { op, attrs } = source;
      nodes.push({ id, shape: tensor.shape, dtype: tensor.dtype, op, attrs, inputs });
    }
    ids.set(tensor, id);
  }
  checkDonations(graph);
  const outputs = graph.outputs.map((output) => ids.get(output)!);
  return { nodes, inputCount: graph.inputs.length, outputs, donations: graph.donations };
}

function checkDonations(graph: Graph): void {
  const taken = new Set<number>();
  for (const [output, input] of graph.donations) {
    const [to, from] = [graph.outputs[output], graph.inputs[input]];
    if (!to || !from)
      throw new Error(`internal: lower: donation ${output} = ${input} names no output or no input`);
    if (taken.has(input)) throw new Error(`internal: lower: input ${input} is donated twice`);
    if (to.dtype !== from.dtype || !sameShape(to.shape, from.shape)) {
      const shapes = formatShapes([to.shape, from.shape]);
      throw new Error(`internal: lower: a donated input differs from its output; got ${shapes}`);
    }
    taken.add(input);
  }
}

/** Text that is equal for two graphs exactly when one program computes both. */
export function graphKey(graph: Graph): string {
  const ids = new Map<Tensor, number>();
  const parts: string[] = [];
  for (const input of graph.inputs) {
    parts.push(`${ids.size}:${input.dtype}${formatShape(input.shape)}`);
    ids.set(input, ids.size);
  }
  for (const tensor of topologicalOrder(graph)) {
    const { source } = tensor;
    if (source.kind !== 'applied') continue;
    const inputs = source.inputs.map((input) => ids.get(input)!);
    parts.push(`${opId(source.op)} ${inputs.join(',')} ${attrsKey(source.attrs)}`);
    ids.set(tensor, ids.size);
  }
  parts.push(graph.outputs.map((output) => ids.get(output)!).join(','));
  parts.push([...graph.donations].map(([output, input]) => `${output}=${input}`).join(','));
  return parts.join(';');
}
