/** From plans to modules. */
import { shapeOf } from '../compiler/drafts.ts';
import { foldsApart } from '../compiler/folds.ts';
import { kernelKey } from '../compiler/kernelKey.ts';
import { type Span, spanned } from '../compiler/spans.ts';
import { bytesPerElement, type DType } from '../dtype.ts';
import { DTypeError } from '../errors.ts';
import type { Kernel, Plan } from '../kernel.ts';
import { numel } from '../shape.ts';
import { ModuleBuilder } from './assembler.ts';
import { writeAttend } from './attend.ts';
import { writeAttendGradient } from './attendGradient.ts';
import { barriers } from './barriers.ts';
import { writeContract } from './contract.ts';
import { writeMap } from './map.ts';
import { isManyColumns, writeReduce } from './reduce.ts';
import { writeRows } from './rows.ts';
import { writeScatter } from './scatter.ts';
import { Tables } from './tables.ts';
import { writeMain } from './tape.ts';
import { outputsOf, type Target, type WrittenKernel } from './target.ts';

/** An address that a kernel is given: so many bytes into a buffer of the plan. */
export interface BufferPointer {
  readonly buffer: number;
  readonly offsetBytes: number;
}

/** A kernel in code. */
export interface CompiledKernel {
  readonly kernel: Kernel;
  readonly written: WrittenKernel;
  /** Of its bindings, then of its outputs. */
  readonly pointers: readonly BufferPointer[];
  /** Whether threads must meet before it. */
  readonly waits: boolean;
}

/** A plan's kernels in code, in order; kernels without output elements vanish. */
export interface CompiledPlan {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly kernels: readonly CompiledKernel[];
  /** What belongs at the address that the module is told. */
  readonly tables: Int32Array;
}

export interface CompileSettings {
  readonly relaxed: boolean;
  readonly threads: number;
}

/** @throws DTypeError when the plan has f64 */
export function compilePlan(plan: Plan, { relaxed, threads }: CompileSettings): CompiledPlan {
  if (plan.buffers.some(({ dtype }) => dtype === 'f64')) {
    throw new DTypeError('wasm: kernels compute in f32; expected f32, f16, i32, u32 or bool; got f64');
  }
  const module = new ModuleBuilder(threads > 1);
  const lengths = plan.buffers.map(({ length }) => length);
  const target = { module, relaxed, tables: new Tables() };
  /** Kernels that differ in nothing but their buffers are one function: layers of one shape. */
  const known = new Map<string, WrittenKernel>();
  const compiled = (whole: Kernel): Omit<CompiledKernel, 'waits'> => {
    const { kernel, spans } = spanned(whole, (buffer) => buffer);
    const spanOf = (buffer: number): Span => spans.get(buffer) ?? { start: 0, end: 0 }; // a split kernel names others
    const lengthOf = (buffer: number): number =>
      Math.min(lengths[buffer]!, spanOf(buffer).end) - spanOf(buffer).start;
    const key = kernelKey(kernel, lengthOf);
    const written = known.get(key) ?? writeKernel({ ...target, lengthOf }, kernel);
    known.set(key, written);
    const pointer = (buffer: number, dtype: DType, offset = 0): BufferPointer => ({
      buffer,
      offsetBytes: (spanOf(buffer).start + offset) * bytesPerElement(dtype),
    });
    const pointers = [
      ...kernel.bindings.map(({ buffer, dtype }) => pointer(buffer, dtype)),
      ...outputsOf(kernel).map(({ buffer, dtype, offset }) => pointer(buffer, dtype, offset)),
    ];
    return { kernel, written, pointers };
  };
  const apart = plan.kernels
    .flatMap((kernel) => (isManyColumns(kernel) ? foldsApart(kernel) : [kernel]))
    .filter((kernel) => numel(shapeOf(kernel)) > 0);
  const waits = barriers(plan, apart);
  const kernels = apart.map((kernel, i) => ({ ...compiled(kernel), waits: waits[i]! }));
  writeMain(module, threads > 1);
  return { bytes: module.encode(), kernels, tables: target.tables.words() };
}

function writeKernel(target: Target, kernel: Kernel): WrittenKernel {
  switch (kernel.kind) {
    case 'map':
      return writeMap(target, kernel);
    case 'reduce':
      return writeReduce(target, kernel);
    case 'rows':
      return writeRows(target, kernel);
    case 'contract':
      return writeContract(target, kernel);
    case 'scatter':
      return writeScatter(target, kernel);
    case 'attend':
      return kernel.operands.cotangent ? writeAttendGradient(target, kernel) : writeAttend(target, kernel);
  }
}
