/** Which module binding each of a kernel's bindings and outputs is, and which can be declared as quads. */
import { expressionsOf } from '../compiler/drafts.ts';
import { readsOf, walk } from '../compiler/expression.ts';
import type { DType } from '../dtype.ts';
import type { Expr, Kernel, Output } from '../kernel.ts';
import type { Binding, Module } from './module.ts';
import { type Coordinate, isQuadView } from './point.ts';

/** What a kernel's emitter knows of the program's buffers, by index into `Plan.buffers`. */
export interface Buffers {
  /** The place (program.ts) that holds the buffer. */
  place(buffer: number): number;
  length(buffer: number): number;
  /** Elements of the buffer that lie before what the kernel's views and outputs count from. */
  start(buffer: number): number;
}

export interface Access {
  readonly binding: Binding;
  readonly dtype: DType;
}

export interface OutputAccess extends Access {
  /** Element of the buffer where the output begins, a multiple of 4. */
  readonly offset: number;
}

/** Indices of the bindings that a kernel reads; a kernel that was split keeps the others, too. */
function bindingsRead(kernel: Kernel): Set<number> {
  switch (kernel.kind) {
    case 'map':
      return new Set(readsOf(...kernel.outputs.map(({ expr }) => expr)).map(({ binding }) => binding));
    case 'reduce':
      return new Set(readsOf(kernel.body, kernel.output.expr).map(({ binding }) => binding));
    case 'rows':
      return new Set(readsOf(...expressionsOf(kernel)).map(({ binding }) => binding));
    case 'contract': {
      const epilogue = readsOf(kernel.output.expr).map(({ binding }) => binding);
      return new Set([kernel.a.binding, kernel.b.binding, ...epilogue]);
    }
    case 'attend':
      return new Set(Object.values(kernel.operands).map(({ binding }) => binding));
    case 'scatter':
      return new Set([kernel.index.binding, kernel.values.binding]);
  }
}

export class KernelBindings {
  readonly #accesses: ReadonlyMap<number, Access>;
  readonly #outputs: ReadonlyMap<Output, OutputAccess>;

  /** Binds everything that the kernel reads and writes to the module. */
  constructor(module: Module, buffers: Buffers, kernel: Kernel, outputs: readonly Output[]) {
    const bind = (buffer: number, dtype: DType, written: boolean): Access => ({
      binding: module.bind(
        buffers.place(buffer),
        dtype,
        { start: buffers.start(buffer), end: buffers.length(buffer) },
        written,
      ),
      dtype,
    });
    this.#accesses = new Map(
      [...bindingsRead(kernel)].map((index) => {
        const { buffer, dtype } = kernel.bindings[index]!;
        return [index, bind(buffer, dtype, false)];
      }),
    );
    this.#outputs = new Map(
      outputs.map((output) => {
        const { buffer, dtype, offset = 0 } = output;
        return [output, { ...bind(buffer, dtype, true), offset }];
      }),
    );
  }

  /** The kernel's i-th binding. */
  at(index: number): Access {
    return this.#accesses.get(index)!;
  }

  output(output: Output): OutputAccess {
    return this.#outputs.get(output)!;
  }

  /**
   * Declares as quads the bindings that the expressions read, and the outputs write, only four aligned neighbours
   * at a time along the quad axis.
   * @param others bindings with accesses that the expressions do not show
   */
  declareQuads(
    roots: readonly Expr[],
    outputs: readonly Output[],
    coordinates: readonly Coordinate[],
    quad: Coordinate,
    others: readonly Binding[] = [],
  ): void {
    const single = new Set<Binding>(others);
    const used = new Set<Binding>(outputs.map((output) => this.output(output).binding));
    for (const read of readsOf(...roots)) {
      const { binding } = this.at(read.binding);
      used.add(binding);
      const indexed =
        read.kind === 'load' || (read.stride % 4 === 0 && isUniformAlong(read.index, quad.axis));
      if (!indexed || !isQuadView(read.view, coordinates, quad)) single.add(binding);
    }
    for (const binding of used) binding.quads = !single.has(binding);
  }
}

/** Whether an expression has one value along an axis. */
function isUniformAlong(root: Expr, axis: number): boolean {
  return walk(root).every((expr) => {
    switch (expr.kind) {
      case 'load':
      case 'gather':
        return expr.view.strides[axis] === 0 && expr.view.guards.every((guard) => guard.strides[axis] === 0);
      case 'coordinate':
        return expr.strides[axis] === 0;
      case 'inside':
        return expr.guards.every((guard) => guard.strides[axis] === 0);
      default:
        return true;
    }
  });
}
