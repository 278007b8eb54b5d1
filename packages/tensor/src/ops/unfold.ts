/**
 * Sliding windows along one axis, a view, and their adjoint: what overlapping windows say of one element adds up.
 *
 *     y[.., p, .., k] = x[.., p step + k dilation, ..]        dx[.., a, ..] = sum over p step + k dilation = a of dy[.., p, .., k]
 */
import { formatShape, ShapeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { resolveAxis } from '../shape.ts';
import { apply, type Tensor } from '../tensor.ts';
import { windowView } from '../view.ts';
import { add } from './elementwise.ts';
import { movement, narrow, pad, spreadOut, squeeze } from './movement.ts';

interface Windows {
  readonly axis: number;
  readonly size: number;
  readonly step: number;
  readonly dilation: number;
}

export const unfoldOp: Op<Windows> = movement(
  'unfold',
  (input, { axis, size, step, dilation }) => {
    const reach = dilation * (size - 1) + 1;
    if (reach > input[axis]!) {
      throw new ShapeError(
        `unfold: a window of ${reach} is longer than axis ${axis} of ${formatShape(input)}`,
      );
    }
    return [...input.with(axis, Math.floor((input[axis]! - reach) / step) + 1), size];
  },
  (view, { axis, size, step, dilation }) => windowView(view, axis, size, step, dilation),
  (dy, input, { axis, size, step, dilation }) => {
    const steps = input.map((_, i) => (i === axis ? step : 1));
    const places = Array.from({ length: size }, (_, k) => {
      const spread = spreadOut(squeeze(narrow(dy, -1, k, 1), -1), steps);
      const after = input[axis]! - k * dilation - spread.shape[axis]!;
      return pad(
        spread,
        input.map((_, i) => (i === axis ? [k * dilation, after] : [0, 0])),
      );
    });
    return places.reduce((sum, place) => add(sum, place));
  },
);

/**
 * Windows of `size` elements along `axis`: the axis becomes the window's position, every `step`-th, and the place in
 * the window is a new last axis, `dilation` elements apart (torch.Tensor.unfold). A view: no copy.
 * @throws ShapeError when a window does not fit, or size, step or dilation are not whole numbers >= 1
 */
export function unfold(
  x: Tensor,
  axis: number,
  size: number,
  { step = 1, dilation = 1 }: { readonly step?: number; readonly dilation?: number } = {},
): Tensor {
  if (![size, step, dilation].every((v) => Number.isInteger(v) && v >= 1)) {
    throw new ShapeError(
      `unfold: size, step and dilation must be whole numbers >= 1; got ${formatShape([size, step, dilation])}`,
    );
  }
  return apply(unfoldOp, [x], { axis: resolveAxis('unfold', axis, x.rank), size, step, dilation });
}
