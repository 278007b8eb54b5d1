/** Nodes whose derivative is not that of what they compute. */
import type { Op } from '../op.ts';
import { apply, type Tensor } from '../tensor.ts';

/** The identity, through which no derivative flows. */
export const stopGradientOp: Op<null> = {
  name: 'stopGradient',
  infer: ([x]) => x!,
  reference: ([x]) => x!.data,
  lower: { kind: 'view', view: (view) => view },
  vjp: () => [null],
  jvp: () => null,
};

/** `x`, taken as a constant by every derivative. */
export function stopGradient(x: Tensor): Tensor {
  return apply(stopGradientOp, [x], null);
}
