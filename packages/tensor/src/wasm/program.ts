/** Programs of the wasm device: a plan's kernels in one module, and the tape that runs them. */
import { formulasOf } from '../compiler/formulas.ts';
import type { Program, Storage } from '../device.ts';
import { bytesPerElement } from '../dtype.ts';
import { DisposedError } from '../errors.ts';
import type { Kernel, Plan, PlanBuffer } from '../kernel.ts';
import type { CompiledPlan } from './compile.ts';
import type { WasmDevice, WasmStorage } from './device.ts';
import { describeKernel } from './explain.ts';
import type { BlockSet } from './memory.ts';
import { recordWords } from './tape.ts';
import { outputsOf } from './target.ts';

/** Where a plan buffer is: two buffers at one place share its bytes. */
function placeOf(buffer: PlanBuffer): string {
  switch (buffer.role) {
    case 'temporary':
      return `slot ${buffer.slot}`;
    case 'input':
      return `input ${buffer.index}`;
    case 'output':
      return buffer.donated === undefined ? `output ${buffer.index}` : `input ${buffer.donated}`;
  }
}

/** Before which kernels threads must meet: those that touch what was written, or write what was read, since they met. */
export function barriers(plan: Plan, kernels: readonly Kernel[]): boolean[] {
  let [read, written] = [new Set<string>(), new Map<string, number>()];
  const places = (list: readonly { readonly buffer: number }[]) =>
    list.map(({ buffer }) => placeOf(plan.buffers[buffer]!));
  return kernels.map((kernel) => {
    const reads = places(kernel.bindings);
    const writes = outputsOf(kernel).map(({ buffer }) => [placeOf(plan.buffers[buffer]!), buffer] as const);
    // Kernels that write one buffer write ranges apart.
    const wait =
      reads.some((place) => written.has(place)) ||
      writes.some(([place, buffer]) => (written.get(place) ?? buffer) !== buffer || read.has(place));
    if (wait) [read, written] = [new Set(), new Map()];
    for (const place of reads) read.add(place);
    for (const [place, buffer] of writes) written.set(place, buffer);
    return wait;
  });
}

/** A range of the device's memory. */
export interface Range {
  readonly start: number;
  readonly bytes: number;
}

export class WasmProgram implements Program {
  readonly kernelCount: number;
  readonly temporaryBytes: number;
  private readonly device: WasmDevice;
  private readonly plan: Plan;
  private readonly id: number;
  private readonly compiled: CompiledPlan;
  /** The memory that the program owns. */
  private readonly blocks: BlockSet;
  private readonly slots: readonly number[];
  private readonly tape: Range;
  /** One such range for each thread, one after the other. */
  private readonly scratch: Range;
  /** Addresses of argument words, and the plan buffer that each one points into. */
  private readonly pointers: readonly {
    readonly at: number;
    readonly buffer: number;
    readonly offsetBytes: number;
  }[];
  /** Whether any kernel has work for a second thread. */
  private readonly parallel: boolean;
  private disposed = false;

  /** @throws DeviceError when the memory is used up; the blocks are the caller's to free then */
  constructor(device: WasmDevice, plan: Plan, compiled: CompiledPlan, id: number, blocks: BlockSet) {
    this.device = device;
    this.plan = plan;
    this.compiled = compiled;
    this.id = id;
    this.blocks = blocks;
    const { kernels } = compiled;
    this.kernelCount = kernels.length;
    this.slots = plan.slots.map((bytes) => blocks.allocate(bytes));
    // Partial results of reductions lie in one block: a kernel that uses it waits for the last one that did.
    const sharedBytes = Math.max(0, ...kernels.map(({ written }) => written.sharedBytes));
    const scratchBytes = Math.max(0, ...kernels.map(({ written }) => written.scratchBytes));
    const shared = blocks.allocate(sharedBytes);
    // An odd number of cache lines apart, threads do not compete for the same sets of their caches.
    const ownBytes = Math.ceil(scratchBytes / 4096) * 4096 + 64;
    this.scratch = { start: blocks.allocate(ownBytes * device.threads), bytes: ownBytes };
    const slotBytes = plan.slots.reduce((sum, bytes) => sum + bytes, 0);
    this.temporaryBytes = slotBytes + sharedBytes + ownBytes * device.threads;

    const phases = kernels.flatMap(({ written }, kernel) =>
      written.phases.map((phase, i) => ({ ...phase, kernel, isFirst: i === 0 })),
    );
    this.parallel = device.threads > 1 && phases.some(({ chunks }) => chunks > 1);
    const bytes = 4 * recordWords * phases.length;
    this.tape = { start: blocks.allocate(bytes), bytes };
    const buffers = kernels.map(({ kernel, startOf }) =>
      [...kernel.bindings.map((binding) => ({ ...binding, offset: 0 })), ...outputsOf(kernel)].map(
        ({ buffer, dtype, offset = 0 }) => ({
          buffer,
          offsetBytes: (startOf(buffer) + offset) * bytesPerElement(dtype),
        }),
      ),
    );
    const args = buffers.map((list) => blocks.allocate(4 * (list.length + 1)));
    this.pointers = buffers.flatMap((list, k) =>
      list.map((place, i) => ({ at: args[k]! + 4 * i, ...place })),
    );
    const waits = barriers(
      plan,
      kernels.map(({ kernel }) => kernel),
    );
    const words = device.words();
    buffers.forEach((list, k) => {
      words[(args[k]! >>> 2) + list.length] = shared;
    });
    phases.forEach(({ index, chunks, kernel, isFirst }, i) => {
      const wait = i > 0 && (!isFirst || waits[kernel]! || kernels[kernel]!.written.sharedBytes > 0);
      words.set([index, chunks, args[kernel]!, 0, Number(wait)], (this.tape.start >>> 2) + recordWords * i);
    });
  }

  run(inputs: readonly Storage[]): Storage[] {
    if (this.disposed) throw new DisposedError('run: the program was disposed');
    const { plan, device } = this;
    const given = device.checkInputs(plan, inputs);
    const outputs = this.allocateOutputs(given);
    const words = device.words();
    const addressOf = (buffer: PlanBuffer): number => {
      switch (buffer.role) {
        case 'input':
          return given[buffer.index]!.address;
        case 'output':
          return outputs[buffer.index]!.address;
        case 'temporary':
          return this.slots[buffer.slot]!;
      }
    };
    const addresses = plan.buffers.map(addressOf);
    for (const { at, buffer, offsetBytes } of this.pointers) {
      words[at >>> 2] = addresses[buffer]! + offsetBytes;
    }
    // No chunk of any kernel is taken yet.
    const start = this.tape.start >>> 2;
    for (let at = 0; at < this.tape.bytes / 4; at += recordWords) words[start + at + 3] = 0;
    device.execute(this.id, this.tape, this.scratch, this.parallel);
    return outputs;
  }

  private allocateOutputs(given: readonly WasmStorage[]): WasmStorage[] {
    const fresh: WasmStorage[] = [];
    try {
      return this.plan.outputs.map((index) => {
        const buffer = this.plan.buffers[index]!;
        if (buffer.role === 'output' && buffer.donated !== undefined) return given[buffer.donated]!;
        const storage = this.device.allocate(buffer.dtype, buffer.length);
        fresh.push(storage);
        return storage;
      });
    } catch (error) {
      for (const storage of fresh) storage.dispose();
      throw error;
    }
  }

  explain(): string {
    const { kernels, bytes } = this.compiled;
    return [
      ...kernels.map(({ kernel, written }, i) => describeKernel(kernel, written, i)),
      `wasm module of ${bytes.length} bytes`,
      '',
      ...kernels.flatMap(({ kernel }, i) => [`// ${i} ${kernel.label}`, ...formulasOf(kernel)]),
    ].join('\n');
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.blocks.release();
    this.device.forget(this.id);
  }
}
