/** Concatenation along one axis; the cotangent is cut back into the parts. */
import { sameDType } from '../dtype.ts';
import { formatShapes, ShapeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { numel, resolveAxis } from '../shape.ts';
import { apply, type Tensor } from '../tensor.ts';
import { narrow, unsqueeze } from './movement.ts';
import { zerosLike } from './source.ts';

export const concatOp: Op<{ readonly axis: number }> = {
  name: 'concat',
  infer: (inputs, { axis }) => {
    const first = inputs[0]!.shape;
    const fits = ({ shape }: { shape: readonly number[] }): boolean =>
      shape.length === first.length && shape.every((extent, i) => i === axis || extent === first[i]);
    if (!inputs.every(fits)) {
      throw new ShapeError(
        `concat: shapes differ outside axis ${axis}; got ${formatShapes(inputs.map(({ shape }) => shape))}`,
      );
    }
    return {
      shape: first.with(
        axis,
        inputs.reduce((sum, { shape }) => sum + shape[axis]!, 0),
      ),
      dtype: sameDType(
        'concat',
        inputs.map(({ dtype }) => dtype),
      ),
    };
  },
  reference: (inputs, { axis }, output) => {
    const out = new Float64Array(numel(output.shape));
    const inner = numel(output.shape.slice(axis + 1));
    const row = output.shape[axis]! * inner;
    let start = 0;
    for (const { data, shape } of inputs) {
      const own = shape[axis]! * inner;
      data.forEach((value, i) => {
        out[Math.floor(i / own) * row + start + (i % own)] = value;
      });
      start += own;
    }
    return out;
  },
  lower: { kind: 'concat', axis: ({ axis }) => axis },
  vjp: (dy, { inputs, attrs: { axis } }) => {
    let start = 0;
    return inputs.map(({ shape }) => {
      const part = narrow(dy, axis, start, shape[axis]!);
      start += shape[axis]!;
      return part;
    });
  },
  jvp: (tangents, { inputs, attrs }) =>
    apply(
      concatOp,
      inputs.map((x, i) => tangents[i] ?? zerosLike(x)),
      attrs,
    ),
};

/**
 * The tensors joined along one axis.
 * @throws ShapeError when other axes differ or there is no tensor, DTypeError when types differ
 */
export function concat(tensors: readonly Tensor[], axis = 0): Tensor {
  if (tensors.length === 0) throw new ShapeError('concat: expected at least one tensor');
  if (tensors.length === 1) return tensors[0]!;
  return apply(concatOp, tensors, { axis: resolveAxis('concat', axis, tensors[0]!.rank) });
}

/** Tensors of one shape joined along a new axis. @throws ShapeError when shapes differ or there is no tensor */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  return concat(
    tensors.map((x) => unsqueeze(x, axis)),
    axis,
  );
}
