/** Arithmetic and memory traffic of kernels, for `explain` and benchmarks. */

import { bytesPerElement } from '../dtype.ts';
import type { Expr, Kernel } from '../kernel.ts';
import { numel } from '../shape.ts';
import { expressionsOf, lengthsOf, outputsOf, shapeOf } from './drafts.ts';
import { readsOf, walk } from './expression.ts';

export interface Cost {
  /** Arithmetic operations, a function of one number counting as one. */
  readonly flops: number;
  /** Bytes read and written if each element that is touched moves once. */
  readonly bytes: number;
}

/** What one run of a kernel costs. */
export function costOf(kernel: Kernel): Cost {
  const touched = new Map<number, number>();
  const touch = (binding: number, elements: number) => {
    const { buffer, dtype } = kernel.bindings[binding]!;
    touched.set(buffer, Math.max(touched.get(buffer) ?? 0, elements * bytesPerElement(dtype)));
  };
  for (const { binding, view, kind } of readsOf(...expressionsOf(kernel))) {
    const varying = view.shape.filter((_, axis) => kind === 'gather' || view.strides[axis] !== 0);
    touch(binding, numel(varying));
  }
  const lengths = lengthsOf(kernel);
  const written = outputsOf(kernel).reduce(
    (sum, { dtype }, i) => sum + lengths[i]! * bytesPerElement(dtype),
    0,
  );
  if (kernel.kind === 'contract') {
    for (const { binding, view } of [kernel.a, kernel.b]) {
      touch(binding, numel(view.shape.filter((_, axis) => view.strides[axis] !== 0)));
    }
  }
  if (kernel.kind === 'scatter') {
    touch(kernel.index.binding, kernel.count);
    touch(kernel.values.binding, kernel.outer * kernel.count * kernel.inner);
  }
  const read = [...touched.values()].reduce((sum, bytes) => sum + bytes, 0);
  return { flops: flopsOf(kernel), bytes: read + written };
}

function flopsOf(kernel: Kernel): number {
  const results = numel(shapeOf(kernel));
  switch (kernel.kind) {
    case 'map':
      return results * arithmetic(...kernel.outputs.map(({ expr }) => expr));
    case 'reduce':
      return (
        results * (numel(kernel.reduced) * (1 + arithmetic(kernel.body)) + arithmetic(kernel.output.expr))
      );
    case 'rows':
      return results * (kernel.folds.length + arithmetic(...expressionsOf(kernel)));
    case 'contract':
      return results * (2 * numel(kernel.k) + arithmetic(kernel.output.expr));
    case 'scatter':
      return kernel.outer * kernel.count * kernel.inner;
  }
}

/** Operations that one element of the expressions takes. */
function arithmetic(...roots: readonly Expr[]): number {
  const working: readonly Expr['kind'][] = ['unary', 'binary', 'select', 'cast'];
  return walk(...roots).filter(({ kind }) => working.includes(kind)).length;
}

/** "1.5 Mflop": a count with a decimal prefix and three digits at most. */
export function formatCount(count: number, unit: string): string {
  const prefixes = ['', 'k', 'M', 'G', 'T'];
  let scaled = count;
  let prefix = 0;
  for (; scaled >= 1000 && prefix < prefixes.length - 1; prefix += 1) scaled /= 1000;
  return `${Number(scaled.toPrecision(3))} ${prefixes[prefix]}${unit}`;
}
