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
import { numel, type Shape, sameShape } from '../shape.ts';
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

/**
 * Text that is equal for equal attributes, and tells -0, NaN and infinities apart. Fields come in the order in which the
 * op wrote them: sorting them would take longer than all else, and another order is only another text.
 */
export function attrsKey(attrs: unknown): string {
  if (typeof attrs === 'number') return Object.is(attrs, -0) ? '-0' : `${attrs}`;
  if (typeof attrs !== 'object' || attrs === null) return JSON.stringify(attrs) ?? 'undefined';
  let text = '';
  if (Array.isArray(attrs) || ArrayBuffer.isView(attrs)) {
    const list = attrs as ArrayLike<unknown>;
    for (let i = 0; i < list.length; i += 1) text += `${attrsKey(list[i])},`;
    return `[${text}]`;
  }
  const record = attrs as Record<string, unknown>;
  for (const field of Object.keys(record)) text += `${field}:${attrsKey(record[field])},`;
  return `{${text}}`;
}

type Applied = Tensor & { readonly source: Extract<Tensor['source'], { kind: 'applied' }> };

function isApplied(tensor: Tensor): tensor is Applied {
  return tensor.source.kind === 'applied';
}

/** The tensor itself, or what it is another name for. */
function unnamed(tensor: Tensor): Tensor {
  let named = tensor;
  while (named.source.kind === 'applied' && named.source.op.lower.kind === 'identity') {
    named = named.source.inputs[0]!;
  }
  return named;
}

/**
 * The applied tensors that the graph's outputs are computed by, inputs before consumers, cut at the graph's inputs; and
 * the number of each tensor, the inputs first.
 */
function applicationsOf(graph: Graph): { order: Applied[]; numbers: ReadonlyMap<Tensor, number> } {
  const numbers = new Map<Tensor, number>(graph.inputs.map((input, i) => [input, i]));
  const order: Applied[] = [];
  // Two stacks in step: tensors on the way to the one that is visited, and which of its inputs comes next.
  const path: Applied[] = [];
  const next: number[] = [];
  const visit = (tensor: Tensor): void => {
    if (numbers.has(tensor)) return;
    numbers.set(tensor, -1); // on its way
    if (!isApplied(tensor)) {
      const what = `a leaf of shape ${formatShape(tensor.shape)} (${tensor.source.kind})`;
      throw new Error(`internal: lower: ${what} is not among the graph's inputs`);
    }
    path.push(tensor);
    next.push(0);
  };
  for (const output of graph.outputs) {
    visit(unnamed(output));
    while (path.length > 0) {
      const top = path.length - 1;
      const input = path[top]!.source.inputs[next[top]!];
      if (input === undefined) {
        const done = path.pop()!;
        numbers.set(done, graph.inputs.length + order.length);
        order.push(done);
        next.pop();
      } else {
        next[top]! += 1;
        visit(unnamed(input));
      }
    }
  }
  return { order, numbers };
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
  for (const tensor of applicationsOf(graph).order) {
    const { op, attrs, inputs: operands } = tensor.source;
    const inputs: readonly number[] = operands.map((input) => ids.get(unnamed(input))!);
    const key = `${opId(op)} ${inputs.join(',')} ${attrsKey(attrs)}`;
    let id = known.get(key);
    if (id === undefined) {
      const { shape, dtype } = tensor;
      id =
        op.lower.kind === 'after'
          ? addAfter(nodes, op, inputs[0]!)
          : op.lower.kind === 'concat'
            ? addConcat(nodes, { shape, dtype, op, attrs, inputs }, op.lower.axis)
            : addNode(nodes, { shape, dtype, op, attrs, inputs });
      known.set(key, id);
    }
    ids.set(tensor, id);
  }
  checkDonations(graph);
  const outputs = graph.outputs.map((output) => ids.get(unnamed(output))!);
  return { nodes, inputCount: graph.inputs.length, outputs, donations: graph.donations };
}

function addNode(nodes: Node[], node: Omit<Node, 'id'>): number {
  return nodes.push({ id: nodes.length, ...node }) - 1;
}

/**
 * The same value for readers of its own: the views of it, over what they view. What it waits for has been read by now,
 * and kernels keep the order of the nodes.
 */
function addAfter(nodes: Node[], op: Op, of: number): number {
  const { id: _, ...node } = nodes[of]!;
  if (node.op?.lower.kind !== 'view') return addNode(nodes, { ...node, op, attrs: null, inputs: [of] });
  return addNode(nodes, { ...node, inputs: [addAfter(nodes, op, node.inputs[0]!)] });
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

/** Parts that one kernel joins: each is a buffer of its own, and kernels bind eight. */
export const maxParts = 6;

/** A concatenation: a whole where its inputs lie one after the other, except those that start in the middle of a quad. */
function addConcat(nodes: Node[], concat: Omit<Node, 'id'>, axisOf: (attrs: unknown) => number): number {
  const { shape, dtype, op, attrs } = concat;
  const axis = axisOf(attrs);
  const add = (inputs: readonly number[]): number => {
    const extent = inputs.reduce((sum, input) => sum + nodes[input]!.shape[axis]!, 0);
    const joined = joinParts(nodes, { op, attrs, dtype }, axis, inputs);
    return addNode(nodes, { ...concat, shape: shape.with(axis, extent), inputs: joined });
  };
  const isOneAfterTheOther = numel(shape.slice(0, axis)) === 1;
  const sections = isOneAfterTheOther ? sectionsOf(nodes, concat.inputs) : [];
  if (sections.length < 2) return add(concat.inputs);
  const inputs = sections.map((section) => (section.length === 1 ? section[0]! : add(section)));
  return addNode(nodes, { ...concat, op: { ...op!, lower: { kind: 'whole', axis: axisOf } }, inputs });
}

/** The inputs that have elements, cut wherever a multiple of 4 elements lies before. */
function sectionsOf(nodes: readonly Node[], inputs: readonly number[]): number[][] {
  const sections: number[][] = [];
  let start = 0;
  for (const input of inputs) {
    const length = numel(nodes[input]!.shape);
    if (length === 0) continue;
    if (start % 4 === 0) sections.push([input]);
    else sections.at(-1)!.push(input);
    start += length;
  }
  return sections;
}

/** The inputs of a concatenation, neighbours joined by nodes of their own until there are few enough. */
function joinParts(
  nodes: Node[],
  { op, attrs, dtype }: Omit<Node, 'id' | 'shape' | 'inputs'>,
  axis: number,
  parts: readonly number[],
): readonly number[] {
  if (parts.length <= maxParts) return parts;
  const joined: number[] = [];
  for (let start = 0; start < parts.length; start += maxParts) {
    const inputs = parts.slice(start, start + maxParts);
    const shapes = inputs.map((input) => nodes[input]!.shape);
    const extent = shapes.reduce((sum, shape) => sum + shape[axis]!, 0);
    const id = nodes.length;
    if (inputs.length > 1) nodes.push({ id, shape: shapes[0]!.with(axis, extent), dtype, op, attrs, inputs });
    joined.push(inputs.length > 1 ? id : inputs[0]!);
  }
  return joinParts(nodes, { op, attrs, dtype }, axis, joined);
}

/** Text that is equal for two graphs only when one program computes both. */
export function graphKey(graph: Graph): string {
  const { order, numbers } = applicationsOf(graph);
  let text = '';
  for (const input of graph.inputs)
    text += `${numbers.get(input)!}:${input.dtype}${formatShape(input.shape)};`;
  for (const { source } of order) {
    text += `${opId(source.op)} `;
    for (const input of source.inputs) text += `${numbers.get(unnamed(input))!},`;
    text += `${attrsKey(source.attrs)};`;
  }
  for (const output of graph.outputs) text += `${numbers.get(unnamed(output))!},`;
  for (const [output, input] of graph.donations) text += `;${output}=${input}`;
  return text;
}
