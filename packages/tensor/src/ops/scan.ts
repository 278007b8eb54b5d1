/**
 * Running sums. A run of b elements is a sum under a triangular mask, b^2 additions without a step between them; longer
 * axes are cut into runs, whose totals are summed up the same way:
 *
 *     y[r, i] = sum over j <= i of x[r, j] + sum over s < r of total[s]                        (1)
 *
 * A mask, not a product with a triangle of ones: what is not finite stays out of the sums before it.
 */
import { expectNumbers } from '../dtype.ts';
import { resolveAxis } from '../shape.ts';
import type { Tensor } from '../tensor.ts';
import { add, cast, lessEqual, where } from './elementwise.ts';
import { sum } from './expand.ts';
import { narrow, pad, reshape, transpose, unsqueeze } from './movement.ts';
import { iota } from './source.ts';

const run = 32;

/** Zeros before and after the last axis. */
function padLast(x: Tensor, before: number, after: number): Tensor {
  return pad(
    x,
    x.shape.map((_, axis) => (axis === x.rank - 1 ? [before, after] : [0, 0])),
  );
}

/** Running sums of a short last axis. */
function withinRun(x: Tensor): Tensor {
  const square = [x.shape.at(-1)!, x.shape.at(-1)!];
  return sum(where(lessEqual(iota(square, 1), iota(square, 0)), unsqueeze(x, -2), 0), -1);
}

/** Running sums of the last axis. */
function runningSums(x: Tensor): Tensor {
  const length = x.shape.at(-1)!;
  if (length <= run) return withinRun(x);
  const runs = Math.ceil(length / run);
  const rows = reshape(padLast(x, 0, runs * run - length), [...x.shape.slice(0, -1), runs, run]);
  const before = padLast(narrow(runningSums(sum(rows, -1)), -1, 0, runs - 1), 1, 0);
  const sums = add(withinRun(rows), unsqueeze(before, -1)); // (1)
  return narrow(reshape(sums, [...x.shape.slice(0, -1), runs * run]), -1, 0, length);
}

/**
 * y_i = x_0 + ... + x_i along `axis`. f16 is summed in f32 and rounded once; integers wrap. The derivative is the sum
 * from the other end.
 * @throws ShapeError when the axis is out of range, DTypeError for bool
 */
export function cumsum(x: Tensor, axis = -1): Tensor {
  expectNumbers('cumsum', x.dtype);
  const a = resolveAxis('cumsum', axis, x.rank);
  const wide = x.dtype === 'f16' ? cast(x, 'f32') : x;
  return cast(transpose(runningSums(transpose(wide, a, -1)), a, -1), x.dtype);
}
