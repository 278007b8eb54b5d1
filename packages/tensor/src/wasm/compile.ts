/** From plans to modules. */
import { shapeOf } from '../compiler/drafts.ts';
import { foldsApart } from '../compiler/folds.ts';
import { DTypeError } from '../errors.ts';
import type { Kernel, Plan } from '../kernel.ts';
import { numel } from '../shape.ts';
import { ModuleBuilder } from './assembler.ts';
import { writeAttend } from './attend.ts';
import { writeAttendGradient } from './attendGradient.ts';
import { writeContract } from './contract.ts';
import { writeMap } from './map.ts';
import { isManyColumns, writeReduce } from './reduce.ts';
import { writeRows } from './rows.ts';
import { writeScatter } from './scatter.ts';
import { writeMain } from './tape.ts';
import type { Target, WrittenKernel } from './target.ts';

/** A plan's kernels in code, in order; kernels without output elements vanish. */
export interface CompiledPlan {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly kernels: readonly { readonly kernel: Kernel; readonly written: WrittenKernel }[];
}

export interface CompileSettings {
  readonly relaxed: boolean;
  readonly threads: number;
  /** Puts a constant table into the memory that the module will have: its address. */
  table(values: Int32Array): number;
}

/** @throws DTypeError when the plan has f64 */
export function compilePlan(plan: Plan, { relaxed, threads, table }: CompileSettings): CompiledPlan {
  if (plan.buffers.some(({ dtype }) => dtype === 'f64')) {
    throw new DTypeError('wasm: kernels compute in f32; expected f32, f16, i32, u32 or bool; got f64');
  }
  const module = new ModuleBuilder(threads > 1);
  const target: Target = { module, relaxed, table, lengths: plan.buffers.map(({ length }) => length) };
  const kernels = plan.kernels
    .flatMap((kernel) => (isManyColumns(kernel) ? foldsApart(kernel) : [kernel]))
    .filter((kernel) => numel(shapeOf(kernel)) > 0)
    .map((kernel) => ({ kernel, written: writeKernel(target, kernel) }));
  writeMain(module, threads > 1);
  return { bytes: module.encode(), kernels };
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
