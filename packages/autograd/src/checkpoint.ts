/**
 * Memory for time (Chen et al., "Training deep nets with sublinear memory cost", 2016): what a function computes on
 * its way is not kept for the derivative but computed once more when the derivative needs it.
 */
import { after, apply, isFloat, type Op, serialNow, type Tensor } from '@deftjs/tensor';
import { replay } from './graph.ts';
import { vjp } from './transforms.ts';

interface CheckpointAttrs {
  /** The function of everything that it was given and that it reached. */
  readonly f: (...x: readonly Tensor[]) => Tensor;
}

/** Inputs: the value, then what it was computed from. */
const checkpointOp: Op<CheckpointAttrs> = {
  name: 'checkpoint',
  infer: ([value]) => value!,
  reference: ([value]) => value!.data,
  lower: { kind: 'identity' },
  // Forwards nothing has to be kept: the tangent is the one that comes through the value.
  jvp: ([tangent]) => tangent ?? null,
  vjp: (dy, { inputs: [, ...x], attrs: { f } }) => {
    const late = x.map((input) => after(input, dy));
    return [null, ...vjp<readonly Tensor[], Tensor>(f, ...late).pullback(dy)];
  },
};

/**
 * The function f, whose intermediate values are computed again in the backward pass instead of kept. Values and
 * derivatives are the same; a chain of n layers in checkpoints of sqrt(n) keeps about 2 sqrt(n) activations. f may
 * close over other tensors that are differentiated, such as a module's parameters.
 */
export function checkpoint<A extends readonly unknown[]>(f: (...x: A) => Tensor): (...x: A) => Tensor {
  return (...x) => {
    const began = serialNow();
    const value = f(...x);
    const inputs = enteringSince(began, value);
    const attrs = { f: (...given: readonly Tensor[]) => replay(value, inputs, given) };
    return apply(checkpointOp, [value, ...inputs], attrs);
  };
}

/** The floats older than `began` that the value is computed from. Leaves are no variables: a derivative names each of its own. */
function enteringSince(began: number, value: Tensor): Tensor[] {
  const seen = new Set([value]);
  const entering: Tensor[] = [];
  // A set in iteration visits what is added.
  for (const x of seen) {
    if (x.source.kind !== 'applied') continue;
    if (x.serial >= began) for (const input of x.source.inputs) seen.add(input);
    else if (isFloat(x.dtype)) entering.push(x);
  }
  return entering;
}
