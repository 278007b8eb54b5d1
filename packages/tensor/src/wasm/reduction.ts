/** What all reduce kernels share: their axes, and the end of their code. */
import type { ReduceKernel } from '../kernel.ts';
import { contiguousStrides, numel } from '../shape.ts';
import type { Affine } from '../view.ts';
import type { Local } from './assembler.ts';
import { Expressions, type LoopAxis } from './expressions.ts';
import { affineFunctions, type MergedAxis, mergeGroups } from './space.ts';
import type { KernelFunction } from './target.ts';

/** A reduction over merged axes. */
export interface Reduction {
  readonly kernel: ReduceKernel;
  readonly outer: readonly MergedAxis[];
  readonly reduced: readonly MergedAxis[];
  readonly outputs: number;
  readonly length: number;
  /** Where the result is stored. */
  readonly stored: Affine;
}

/** The kernel's axes, merged. */
export function reduction(kernel: ReduceKernel): Reduction {
  const { shape, reduced } = kernel;
  // The epilogue's functions, and the output, do not depend on the reduced axes.
  const extend = ({ offset, strides }: Affine): Affine => ({
    offset,
    strides: [...strides, ...reduced.map(() => 0)],
  });
  const stored = extend({ offset: 0, strides: contiguousStrides(shape) });
  const functions = [...affineFunctions([kernel.body]), ...affineFunctions([kernel.output.expr]).map(extend)];
  const merged = mergeGroups([shape, reduced], [stored, ...functions]);
  return {
    kernel,
    outer: merged.filter(({ group }) => group === 0),
    reduced: merged.filter(({ group }) => group === 1),
    outputs: numel(shape),
    length: numel(reduced),
    stored,
  };
}

/** The epilogue of the folded value at the index that the axes hold, stored. */
export function writeResult(
  { context, body, bindings, outputs }: KernelFunction,
  { kernel, stored }: Pick<Reduction, 'kernel' | 'stored'>,
  axes: readonly LoopAxis[],
  folded: Local,
  lanes: 1 | 4,
): void {
  const expressions = new Expressions(context, axes, bindings, 4);
  expressions.lanes = lanes;
  expressions.folded = [{ local: folded, level: 3 }];
  const { expr } = kernel.output;
  expressions.store(expressions.value(expr).local, expr.type, outputs[0]!, stored);
  for (const level of [1, 2, 3]) body.append(expressions.section(level));
}
