/** Drafts into a plan: values become buffers, and each kernel numbers the ones it reads. */
import type { DType } from '../dtype.ts';
import type { Kernel, Output, Plan, PlanBuffer } from '../kernel.ts';
import { type Draft, mapOperands, valuesRead } from './drafts.ts';
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
  const finishOutput = <T extends Output>(output: T): T => {
    const part = parts.get(output.buffer);
    const place = part
      ? { buffer: bufferOf(part.whole), offset: part.start }
      : { buffer: bufferOf(output.buffer) };
    return { ...output, ...place, expr: bind(output.expr) };
  };
  const operand = <T extends { readonly binding: number }>(read: T): T => ({
    ...read,
    binding: bindingOf.get(read.binding)!,
  });
  switch (draft.kind) {
    case 'map':
      return { ...draft, bindings, outputs: draft.outputs.map(finishOutput) };
    case 'attend': {
      const outputs = draft.outputs.map((output) => ({ ...output, ...finishOutput(output) }));
      return { ...draft, bindings, outputs, operands: mapOperands(draft.operands, operand)! };
    }
    case 'reduce':
      return { ...draft, bindings, body: bind(draft.body), output: finishOutput(draft.output) };
    case 'rows': {
      const folds = draft.folds.map(({ fold, body }) => ({ fold, body: bind(body) }));
      return { ...draft, bindings, folds, outputs: draft.outputs.map(finishOutput) };
    }
    case 'contract':
      return {
        ...draft,
        bindings,
        a: operand(draft.a),
        b: operand(draft.b),
        output: finishOutput(draft.output),
      };
    case 'scatter':
      return {
        ...draft,
        bindings,
        index: operand(draft.index),
        values: operand(draft.values),
        output: finishOutput(draft.output),
      };
  }
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
