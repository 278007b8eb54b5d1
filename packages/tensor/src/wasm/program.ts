/** Programs of the wasm device: a plan's kernels in one module, and the tape that runs them. */
import { formulasOf } from '../compiler/formulas.ts';
import type { Program, Storage } from '../device.ts';
import { DisposedError } from '../errors.ts';
import type { Plan, PlanBuffer } from '../kernel.ts';
import type { BufferPointer, CompiledPlan } from './compile.ts';
import type { WasmDevice, WasmStorage } from './device.ts';
import { describeKernel } from './explain.ts';
import type { BlockSet } from './memory.ts';
import { recordWords } from './tape.ts';

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
  private readonly pointers: (BufferPointer & { readonly at: number })[];
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
    // Behind the addresses of its buffers a kernel finds that of the bytes that its chunks share.
    const argBytes = kernels.reduce((sum, { pointers }) => sum + 4 * (pointers.length + 1), 0);
    let at = blocks.allocate(argBytes);
    const args: number[] = [];
    this.pointers = [];
    const words = device.words();
    for (const { pointers } of kernels) {
      args.push(at);
      for (const pointer of pointers) {
        this.pointers.push({ at, ...pointer });
        at += 4;
      }
      words[at >>> 2] = shared;
      at += 4;
    }
    phases.forEach(({ index, chunks, kernel, isFirst }, i) => {
      const { waits, written } = kernels[kernel]!;
      const wait = i > 0 && (!isFirst || waits || written.sharedBytes > 0);
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
