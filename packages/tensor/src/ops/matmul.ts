/**
 * Matrix products over the last two axes, leading axes batched.
 *
 *     Y = A B          dA = dY B^T         dB = A^T dY          dY = dA B + A dB (tangents)
 */
import { isFloat, sameDType } from '../dtype.ts';
import { DTypeError, formatShapes, ShapeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { broadcastShapes, numel, sameShape } from '../shape.ts';
import { apply, type Tensor } from '../tensor.ts';
import { add } from './elementwise.ts';
import { expand } from './expand.ts';
import { reshape, transpose } from './movement.ts';

export const matmulOp: Op<null> = {
  name: 'matmul',
  infer: ([a, b]) => {
    const dtype = sameDType('matmul', [a!.dtype, b!.dtype]);
    if (!isFloat(dtype)) throw new DTypeError(`matmul: expected floats; got ${dtype}`);
    const [rank, batch] = [a!.shape.length, a!.shape.slice(0, -2)];
    if (rank < 2 || !sameShape(batch, b!.shape.slice(0, -2)) || a!.shape[rank - 1] !== b!.shape[rank - 2]) {
      throw new ShapeError(`matmul: inner extents must be equal; got ${formatShapes([a!.shape, b!.shape])}`);
    }
    return { shape: [...batch, a!.shape[rank - 2]!, b!.shape[rank - 1]!], dtype };
  },
  reference: ([a, b], _attrs, output) => {
    const [m, n] = output.shape.slice(-2) as [number, number];
    const k = a!.shape.at(-1)!;
    const out = new Float64Array(numel(output.shape));
    for (let i = 0; i < out.length; i += 1) {
      const row = Math.floor(i / n);
      const batch = Math.floor(row / m);
      for (let j = 0; j < k; j += 1)
        out[i]! += a!.data[row * k + j]! * b!.data[(batch * k + j) * n + (i % n)]!;
    }
    return out;
  },
  lower: {
    kind: 'contract',
    contraction: (a, b) => ({
      batch: a.slice(0, -2),
      m: a.slice(-2, -1),
      n: b.slice(-1),
      k: a.slice(-1),
      a: (view) => view,
      b: (view) => view,
    }),
  },
  vjp: (dy, { inputs: [a, b] }) => [
    apply(matmulOp, [dy, transpose(b!)], null),
    apply(matmulOp, [transpose(a!), dy], null),
  ],
  jvp: ([da, db], { inputs: [a, b] }) => {
    const left = da ? apply(matmulOp, [da, b!], null) : null;
    const right = db ? apply(matmulOp, [a!, db], null) : null;
    return left && right ? add(left, right) : (left ?? right);
  },
};

/**
 * The matrix product of the last two axes: [..., M, K] x [..., K, N] -> [..., M, N]; leading axes broadcast.
 * A shared right factor ([K, N]) multiplies all rows of the left one as one large matrix.
 * @throws ShapeError when the inner extents differ or an operand has fewer than two axes
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  if (a.rank < 2 || b.rank < 2) {
    throw new ShapeError(`matmul: expected at least two axes; got ${formatShapes([a.shape, b.shape])}`);
  }
  if (b.rank === 2 && a.rank > 2 && a.shape.at(-1) === b.shape[0]) {
    const rows = reshape(a, [numel(a.shape.slice(0, -1)), a.shape.at(-1)!]);
    return reshape(apply(matmulOp, [rows, b], null), [...a.shape.slice(0, -1), b.shape[1]!]);
  }
  const batch = broadcastShapes('matmul', [a.shape.slice(0, -2), b.shape.slice(0, -2)]);
  return apply(
    matmulOp,
    [expand(a, [...batch, ...a.shape.slice(-2)]), expand(b, [...batch, ...b.shape.slice(-2)])],
    null,
  );
}

/** x W^T + bias: [..., in] -> [..., out] with the weight [out, in] as PyTorch stores it. @throws ShapeError */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor | null): Tensor {
  if (x.rank < 2 || weight.rank !== 2 || x.shape.at(-1) !== weight.shape[1]) {
    throw new ShapeError(
      `linear: expected x [..., in] and a weight [out, in]; got ${formatShapes([x.shape, weight.shape])}`,
    );
  }
  if (bias && !sameShape(bias.shape, [weight.shape[0]!])) {
    throw new ShapeError(`linear: the bias must be [${weight.shape[0]}]; got ${formatShapes([bias.shape])}`);
  }
  const y = matmul(x, transpose(weight));
  return bias ? add(y, bias) : y;
}
