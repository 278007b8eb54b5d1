/** Drafts into a plan: values become buffers, and each kernel numbers the ones it reads. */
import type { DType } from '../dtype.ts';
import type { Kernel, Output, Plan, PlanBuffer } from '../kernel.ts';
import { type Draft, valuesRead, withExpressions, withLoopReads, withOutputs } from './drafts.ts';
import { mapReads } from './expression.ts';
import type { Part } from './parts.ts';

/** The draft with bindings and buffers in place of values. */
function finishKernel(
  draft: Kernel,
  bufferOf: (value: number) => number,
  parts: ReadonlyMap<number, Part>,
  dtypeOf: (value: number) => DType,
): Kernel {
  const values = valuesRead(draft);
  const bindings = values.map((value) => ({ buffer: bufferOf(value), dtype: dtypeOf(value) }));
  const bindingOf = new Map(values.map((value, binding) => [value, binding]));
  const bind = mapReads((read) => ({ ...read, binding: bindingOf.get(read.binding)! }));
  const placed = <T extends Output>(output: T): T => {
    const part = parts.get(output.buffer);
    if (part) return { ...output, buffer: bufferOf(part.whole), offset: part.start };
    return { ...output, buffer: bufferOf(output.buffer) };
  };
  const bound = withLoopReads(withExpressions(draft, bind) as Kernel, (read) => ({
    ...read,
    binding: bindingOf.get(read.binding)!,
  }));
  return { ...withOutputs(bound, placed), bindings };
}

/** A value and the buffer that holds it. */
export interface Placed {
  readonly value: number;
  readonly buffer: PlanBuffer;
}

/** The plan of drafts in the order they run, with every value that they name placed in a buffer. */
export function finish(
  drafts: readonly Draft[],
  placed: readonly Placed[],
  slots: readonly number[],
  ends: { readonly inputs: readonly number[]; readonly outputs: readonly number[] },
  parts: ReadonlyMap<number, Part>,
): Plan {
  const indices = new Map(placed.map(({ value }, index) => [value, index]));
  const bufferOf = (value: number): number => indices.get(value)!;
  const dtypeOf = (value: number): DType => placed[bufferOf(value)]!.buffer.dtype;
  return {
    kernels: drafts
      .filter((draft) => draft.kind !== 'whole')
      .map((draft) => finishKernel(draft, bufferOf, parts, dtypeOf)),
    buffers: placed.map(({ buffer }) => buffer),
    slots,
    inputs: ends.inputs.map(bufferOf),
    outputs: ends.outputs.map(bufferOf),
  };
}
