/** What kernels are generated into: a module of functions, and constant tables that they read. */
import type { DType } from '../dtype.ts';
import type { Kernel, Output } from '../kernel.ts';
import { type Code, FunctionBuilder, type Local, type ModuleBuilder } from './assembler.ts';
import type { Pointer } from './expressions.ts';
import { type Context, openContext } from './lanes.ts';
import type { Tables } from './tables.ts';

export interface Target {
  readonly module: ModuleBuilder;
  readonly relaxed: boolean;
  /** Elements of a plan buffer, from where the kernel's views count. */
  lengthOf(buffer: number): number;
  readonly tables: Tables;
}

/** A function to be called for chunks 0 ... chunks - 1, in any order and by any thread. */
export interface Phase {
  readonly index: number;
  readonly chunks: number;
}

/** A kernel in code: its phases follow each other; every chunk of one ends before the next begins. */
export interface WrittenKernel {
  readonly phases: readonly Phase[];
  /** Bytes that each thread needs for itself while it runs a chunk. */
  readonly scratchBytes: number;
  /** Bytes shared by the chunks of all phases. */
  readonly sharedBytes: number;
}

/** A kernel function, (args, chunk, scratch): args is the address of its buffers' addresses. */
export interface KernelFunction {
  readonly context: Context;
  readonly fn: FunctionBuilder;
  readonly body: Code;
  readonly chunk: Local;
  readonly scratch: Local;
  /** The buffers that expressions name, in the kernel's order. */
  readonly bindings: readonly Pointer[];
  readonly outputs: readonly Pointer[];
  /** Address of the bytes that chunks share. */
  readonly shared: Local;
}

/** The outputs of a kernel, each with its buffer. */
export function outputsOf(kernel: Kernel): readonly Output[] {
  return 'outputs' in kernel ? kernel.outputs : [kernel.output];
}

export function openKernel(target: Target, kernel: Kernel): KernelFunction {
  const fn = new FunctionBuilder(['i32', 'i32', 'i32']);
  let slot = 0;
  const pointer = (dtype: DType): Pointer => {
    const local = fn.local('i32');
    fn.entry
      .get(0)
      .op('i32.load', 4 * slot)
      .set(local);
    slot += 1;
    return { local, dtype };
  };
  const bindings = kernel.bindings.map(({ dtype }) => pointer(dtype));
  const outputs = outputsOf(kernel).map(({ dtype }) => pointer(dtype));
  const shared = pointer('u32').local;
  const context = openContext(target.module, fn, target.relaxed);
  return { context, fn, body: fn.body, chunk: 1, scratch: 2, bindings, outputs, shared };
}
