/** Arithmetic and memory traffic of kernels, for `explain` and benchmarks. */

import { bytesPerElement } from '../dtype.ts';
import type { AttendKernel, Expr, Kernel, Operand } from '../kernel.ts';
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
  if (kernel.kind === 'contract' || kernel.kind === 'attend') {
    const operands: Operand[] =
      kernel.kind === 'attend' ? Object.values(kernel.operands) : [kernel.a, kernel.b];
    for (const { binding, view } of operands) {
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

/** Products of attention: those of the scores, and those that its results are; a gradient has the scores' own. */
function attendFlops(kernel: AttendKernel): number {
  const { batch, queries, keys, width, valueWidth, causal, operands, outputs } = kernel;
  const deep = { mean: valueWidth, logSum: 0, query: width, key: width, value: valueWidth };
  const ofScores = width + (operands.cotangent ? valueWidth : 0);
  const depth = outputs.reduce((sum, { result }) => sum + deep[result], ofScores);
  return (causal ? 1 : 2) * numel(batch) * queries * keys * depth;
}

function flopsOf(kernel: Kernel): number {
  const results = numel(shapeOf(kernel));
  switch (kernel.kind) {
    case 'attend':
      return attendFlops(kernel);
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
