/** Programs of the wasm device: a plan's kernels in one module, and the tape that runs them. */
import type { Program, Storage } from '../device.ts';
import { DisposedError, DTypeError } from '../errors.ts';
import type { Kernel, Plan, PlanBuffer } from '../kernel.ts';
import { numel } from '../shape.ts';
import { ModuleBuilder } from './assembler.ts';
import { writeContract } from './contract.ts';
import type { WasmDevice } from './device.ts';
import { describeKernel } from './explain.ts';
import { writeMap } from './map.ts';
import { writeReduce } from './reduce.ts';
import { writeScatter } from './scatter.ts';
import { recordWords, writeMain } from './tape.ts';
import { outputsOf, type Target, type WrittenKernel } from './target.ts';

function writeKernel(target: Target, kernel: Kernel): WrittenKernel {
  switch (kernel.kind) {
    case 'map':
      return writeMap(target, kernel);
    case 'reduce':
      return writeReduce(target, kernel);
    case 'contract':
      return writeContract(target, kernel);
    case 'scatter':
      return writeScatter(target, kernel);
  }
}

/** Elements that a kernel writes to each of its outputs. */
function outputLength(kernel: Kernel): number {
  switch (kernel.kind) {
    case 'contract':
      return numel([...kernel.batch, ...kernel.m, ...kernel.n]);
    case 'scatter':
      return kernel.outer * kernel.extent * kernel.inner;
    default:
      return numel(kernel.shape);
  }
}

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

/** The plan's kernels in code; kernels without output elements vanish. */
export interface CompiledPlan {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly kernels: readonly { readonly kernel: Kernel; readonly written: WrittenKernel }[];
}

export function compilePlan(
  plan: Plan,
  options: Omit<Target, 'module' | 'lengths'>,
  threads: number,
  shared: boolean,
): CompiledPlan {
  for (const { dtype } of plan.buffers) {
    if (dtype === 'f64') throw new DTypeError('wasm: kernels compute in f32; expected no f64; got f64');
  }
  const module = new ModuleBuilder(shared);
  const target = { ...options, module, lengths: plan.buffers.map(({ length }) => length) };
  const kernels = plan.kernels
    .filter((kernel) => outputLength(kernel) > 0)
    .map((kernel) => ({ kernel, written: writeKernel(target, kernel) }));
  writeMain(module, threads > 1);
  return { bytes: module.encode(), kernels };
}

/** Decides before which kernels threads must wait: those that read or write what was touched since the last wait. */
function barriers(plan: Plan, kernels: readonly Kernel[]): boolean[] {
  let [read, written] = [new Set<string>(), new Set<string>()];
  return kernels.map((kernel) => {
    const places = (list: readonly { readonly buffer: number }[]) =>
      list.map(({ buffer }) => placeOf(plan.buffers[buffer]!));
    const [reads, writes] = [places(kernel.bindings), places(outputsOf(kernel))];
    const wait =
      reads.some((place) => written.has(place)) ||
      writes.some((place) => written.has(place) || read.has(place));
    if (wait) [read, written] = [new Set(), new Set()];
    for (const place of reads) read.add(place);
    for (const place of writes) written.add(place);
    return wait;
  });
}

export class WasmProgram implements Program {
  readonly kernelCount: number;
  readonly temporaryBytes: number;
  private readonly device: WasmDevice;
  private readonly plan: Plan;
  private readonly id: number;
  private readonly compiled: CompiledPlan;
  /** Blocks of the device's memory that the program owns, beside its slots. */
  private readonly owned: number[];
  private readonly slots: readonly number[];
  private readonly records: { readonly start: number; readonly end: number };
  /** Addresses of argument words, and the plan buffer whose address each one holds. */
  private readonly arguments: readonly { readonly at: number; readonly buffer: number }[];
  private readonly scratch: { readonly start: number; readonly bytes: number };
  /** Whether any kernel has work for a second thread. */
  private readonly parallel: boolean;
  private disposed = false;

  constructor(device: WasmDevice, plan: Plan, compiled: CompiledPlan, id: number, tables: readonly number[]) {
    this.device = device;
    this.plan = plan;
    this.compiled = compiled;
    this.id = id;
    this.kernelCount = plan.kernels.length;
    this.owned = [...tables];
    const own = (bytes: number): number => {
      const address = device.memory.allocate(bytes);
      this.owned.push(address);
      return address;
    };
    this.slots = plan.slots.map(own);
    const written = compiled.kernels.map((entry) => entry.written);
    const sharedBytes = Math.max(0, ...written.map((kernel) => kernel.sharedBytes));
    const shared = own(sharedBytes);
    const scratchBytes =
      Math.ceil(Math.max(64, ...written.map((kernel) => kernel.scratchBytes)) / 4096) * 4096 + 64;
    this.scratch = { start: own(scratchBytes * device.threads), bytes: scratchBytes };
    this.temporaryBytes =
      plan.slots.reduce((sum, bytes) => sum + bytes, 0) + sharedBytes + scratchBytes * device.threads;

    const phases = written.flatMap((kernel, i) =>
      kernel.phases.map((phase, p) => ({ phase, kernel: i, first: p === 0 })),
    );
    const start = own(4 * recordWords * Math.max(1, phases.length));
    this.records = { start, end: start + 4 * recordWords * phases.length };
    this.parallel = device.threads > 1 && phases.some(({ phase }) => phase.chunks > 1);
    const fixed: { at: number; buffer: number }[] = [];
    const blocks = compiled.kernels.map(({ kernel }) => {
      const buffers = [...kernel.bindings, ...outputsOf(kernel)].map(({ buffer }) => buffer);
      const at = own(4 * (buffers.length + 1));
      buffers.forEach((buffer, i) => {
        fixed.push({ at: at + 4 * i, buffer });
      });
      device.words()[(at + 4 * buffers.length) >>> 2] = shared;
      return at;
    });
    this.arguments = fixed;
    const waits = barriers(
      plan,
      compiled.kernels.map(({ kernel }) => kernel),
    );
    // Partial results lie in one block: a kernel that uses it waits for the last one that did.
    const tape = device.words();
    phases.forEach(({ phase, kernel, first }, i) => {
      const wait = !first || waits[kernel] === true || written[kernel]!.sharedBytes > 0;
      tape.set(
        [phase.index, phase.chunks, blocks[kernel]!, 0, Number(i > 0 && wait), 0],
        (start >>> 2) + recordWords * i,
      );
    });
  }

  run(inputs: readonly Storage[]): Storage[] {
    if (this.disposed) throw new DisposedError('run: the program was disposed');
    const { plan, device } = this;
    const given = device.checkInputs(plan, inputs);
    const outputs = plan.outputs.map((index) => {
      const buffer = plan.buffers[index]!;
      if (buffer.role === 'output' && buffer.donated !== undefined) return given[buffer.donated]!;
      return device.allocate(buffer.dtype, buffer.length);
    });
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
    for (const { at, buffer } of this.arguments) words[at >>> 2] = addresses[buffer]!;
    for (let at = this.records.start; at < this.records.end; at += 4 * recordWords) words[(at >>> 2) + 3] = 0;
    device.execute(this.id, this.records, this.scratch, this.parallel);
    return outputs;
  }

  explain(): string {
    return this.compiled.kernels
      .map(({ kernel, written }, i) => describeKernel(kernel, written, i))
      .concat(`module: ${this.compiled.bytes.length} bytes`)
      .join('\n');
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    for (const address of this.owned) this.device.memory.release(address);
    this.device.forget(this.id);
  }
}
