/** What the rest of the graph asks of each node: a buffer, or to be evaluated in how many kernels. */
import type { Ir, Node } from './ir.ts';

/** Lowerings that are loops of their own. */
export function startsKernel(node: Node): boolean {
  const kind = node.op?.lower.kind;
  return kind === 'reduce' || kind === 'contract' || kind === 'scatter' || kind === 'attend';
}

/** The inputs of a node that must be read from buffers, whatever they are computed from. */
function bufferInputs(node: Node): readonly number[] {
  switch (node.op?.lower.kind) {
    case 'attend':
    case 'contract':
    case 'scatter':
      return node.inputs;
    case 'gather':
    case 'after':
      return node.inputs.slice(0, 1);
    default:
      return [];
  }
}

/**
 * The nodes that must be in a buffer: outputs, results of loops, and what a loop or a table reads. A demand on a view
 * is one on what it views.
 */
export function demandedNodes(ir: Ir): Set<number> {
  const demanded = new Set(ir.outputs);
  for (const node of ir.nodes.toReversed()) {
    if (startsKernel(node) || node.op === null) demanded.add(node.id);
    for (const input of bufferInputs(node)) demanded.add(input);
    if (node.op?.lower.kind === 'view' && demanded.has(node.id)) demanded.add(node.inputs[0]!);
  }
  return demanded;
}

const manyUsers = 8;

/**
 * In how many kernels each node would be evaluated if exactly `values` had buffers; beyond 8 the count stops.
 */
export function countUsers(ir: Ir, values: ReadonlySet<number>): number[] {
  const users = ir.nodes.map(() => new Set<number>());
  for (const node of ir.nodes.toReversed()) {
    const kernels = values.has(node.id) ? [node.id] : users[node.id]!;
    for (const input of node.inputs) {
      const known = users[input]!;
      for (const kernel of kernels) if (known.size < manyUsers) known.add(kernel);
    }
  }
  return users.map(({ size }) => size);
}

/** The nodes that each node is an input of. */
export function consumersOf(ir: Ir): number[][] {
  const consumers = ir.nodes.map((): number[] => []);
  for (const { id, inputs } of ir.nodes) for (const input of new Set(inputs)) consumers[input]!.push(id);
  return consumers;
}
