/**
 * Where a NaN comes from. Every value of the graph is computed and searched, in the order of the graph, for the first
 * that holds a NaN although nothing it is computed from does. The search looks at bits, on the host: devices may take
 * it that floats are numbers, and compute with that.
 */
import {
  alias,
  evaluate,
  formatShape,
  isFloat,
  observeOps,
  read,
  scope,
  type Tensor,
  type Tree,
  treeLeaves,
} from '@deftjs/tensor';
import { appliedAt, cotangentsAt } from './graph.ts';
import { differentiated, type Loss } from './transforms.ts';

/** A NaN; the message names the op, and the place in the program where that was applied. */
export class AnomalyError extends Error {
  override readonly name = 'AnomalyError';
  /** The op that gave the first NaN; for one in a backward pass, the op whose pullback did. */
  readonly op: string;
  /** The call stack of the op's application in the forward pass. */
  readonly origin: string;

  constructor(message: string, op: string, origin: string) {
    super(message);
    this.op = op;
    this.origin = origin;
  }
}

/** A step of the forward pass, or one in the pullback of a step. */
interface Origin {
  readonly stack: string;
  readonly pullbackOf: Tensor | null;
}

/**
 * The value and gradient of f as `valueAndGrad` gives them, after searching everything that they are computed from:
 * for finding a fault, since all values are held at once. Evaluates on the device set by `setDevice`.
 * @throws AnomalyError for the first NaN
 */
export async function detectAnomaly<P extends Tree, A extends readonly Tree[], L extends Loss>(
  f: (parameters: P, ...rest: A) => L,
  parameters: P,
  ...rest: A
): Promise<{ value: L; gradient: P }> {
  const origins = new Map<Tensor, Origin>();
  const seen = (pullbackOf: Tensor | null) => (made: Tensor) => {
    origins.set(made, { stack: new Error().stack ?? '', pullbackOf });
  };
  const traced = (x: P, ...others: A): L => observeOps(() => f(x, ...others), seen(null));
  const result = differentiated(traced, parameters, rest, (step, dy) =>
    observeOps(() => cotangentsAt(step, dy), seen(step.output)),
  );
  const nodes = beneath(treeLeaves([result.value, result.gradient]));
  await scope(async () => {
    const floats = nodes.filter(({ dtype }) => isFloat(dtype));
    const values = floats.map((x) => alias(x)); // evaluating the nodes themselves would end the graph
    await evaluate(values);
    const sick = new Map<Tensor, number>();
    for (const [i, node] of floats.entries()) {
      const place = firstNaN(await read(values[i]!));
      if (place >= 0) sick.set(node, place);
    }
    const first = floats.find((x) => sick.has(x) && !inputsOf(x).some((input) => sick.has(input)));
    if (first) throw anomalyAt(first, sick.get(first)!, origins);
  });
  return result;
}

function inputsOf({ source }: Tensor): readonly Tensor[] {
  return source.kind === 'applied' ? source.inputs : [];
}

/** Everything that the tensors are computed from, and they, in the order made: inputs first. */
function beneath(tensors: readonly Tensor[]): Tensor[] {
  const seen = new Set(tensors);
  // A set in iteration visits what is added.
  for (const x of seen) for (const input of inputsOf(x)) seen.add(input);
  return [...seen].sort((a, b) => a.serial - b.serial);
}

/** Position of the first NaN, told by its bits: an exponent of ones and a fraction that is not zero; -1 without one. */
function firstNaN(values: ArrayLike<number> & ArrayBufferView): number {
  if (values instanceof Float64Array) return values.findIndex(Number.isNaN);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.byteLength / 4);
  return bits.findIndex((word) => (word & 0x7fffffff) > 0x7f800000);
}

function anomalyAt(x: Tensor, place: number, origins: ReadonlyMap<Tensor, Origin>): AnomalyError {
  const where = `NaN at element ${place} of ${x.dtype} ${formatShape(x.shape)}`;
  if (x.source.kind !== 'applied') {
    return new AnomalyError(`detectAnomaly: a tensor that was given holds ${where}`, x.source.kind, '');
  }
  const origin = origins.get(x);
  const own = x.source.op.name;
  const forward = origin?.pullbackOf ?? null;
  if (!forward) {
    const stack = origin?.stack ?? '';
    return new AnomalyError(`detectAnomaly: ${own} gives ${where}${placeIn(stack)}`, own, stack);
  }
  const { op } = appliedAt({ inputs: [], output: forward });
  const stack = origins.get(forward)?.stack ?? '';
  const message = `detectAnomaly: the pullback of ${op.name} gives ${where}, in ${own}; ${op.name} was applied`;
  return new AnomalyError(`${message}${placeIn(stack)}`, op.name, stack);
}

/** Folders of the engine's own sources, whose frames say nothing about the user's program. */
const ownFrames = /[\\/](?:packages|@deftjs)[\\/](?:tensor|autograd)[\\/](?:src|dist)[\\/]/;

/** " at file:line:column": the innermost frame outside the engine. */
function placeIn(stack: string): string {
  const frame = stack
    .split('\n')
    .slice(1)
    .find((line) => !ownFrames.test(line));
  return frame === undefined ? '' : ` ${frame.trim()}`;
}
