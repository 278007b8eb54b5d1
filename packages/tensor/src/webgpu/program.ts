/**
 * A plan as launches over places.
 *
 * A place is where a buffer of the plan lives during a run: the storage of an input, the storage of an output, or a
 * buffer that the program owns (an arena slot of the plan, or scratch of a kernel that takes several launches). Plan
 * buffers that share storage are one place, so a kernel that reads and writes it binds it once.
 */

import { type Cost, formatCount } from '../compiler/kernelCost.ts';
import type { Program, Storage } from '../device.ts';
import type { DType } from '../dtype.ts';
import { DeviceError, DisposedError, DTypeError } from '../errors.ts';
import type { Kernel, Plan } from '../kernel.ts';
import type { Buffers } from './bindings.ts';
import type { WebGPUDevice, WebGPUStorage } from './device.ts';
import { emitKernel } from './emit.ts';
import type { Launch } from './launch.ts';
import { paddedBytes } from './module.ts';
import type { CompiledPipeline } from './pipelines.ts';
import type { PooledBuffer } from './pool.ts';
import { rewrite, type Scratch } from './rewrite.ts';

/** Bind groups kept for each launch: storages that come and go in turn cost nothing to meet again. */
const KEPT_BIND_GROUPS = 8;

/** Where buffers of a plan live, and the scratch that launches add. */
class Places implements Buffers, Scratch {
  readonly #plan: Plan;
  readonly #scratch: { readonly dtype: DType; readonly length: number; readonly slot: number }[] = [];
  #slotsInUse = 0;
  /** Bytes of each scratch slot. */
  readonly scratchBytes: number[] = [];

  constructor(plan: Plan) {
    this.#plan = plan;
  }

  /** Places in order: inputs, outputs, slots of the plan, scratch slots. */
  place(buffer: number): number {
    const inputs = this.#plan.inputs.length;
    const outputs = this.#plan.outputs.length;
    const planned = this.#plan.buffers[buffer];
    if (planned === undefined) {
      return (
        inputs + outputs + this.#plan.slots.length + this.#scratch[buffer - this.#plan.buffers.length]!.slot
      );
    }
    switch (planned.role) {
      case 'input':
        return planned.index;
      case 'output':
        return planned.donated ?? inputs + planned.index;
      case 'temporary':
        return inputs + outputs + planned.slot;
    }
  }

  length(buffer: number): number {
    return this.#at(buffer).length;
  }

  #at(buffer: number): { readonly dtype: DType; readonly length: number } {
    return this.#plan.buffers[buffer] ?? this.#scratch[buffer - this.#plan.buffers.length]!;
  }

  scratch(dtype: DType, length: number): number {
    const slot = this.#slotsInUse;
    this.#slotsInUse += 1;
    this.scratchBytes[slot] = Math.max(this.scratchBytes[slot] ?? 0, paddedBytes(dtype, length));
    this.#scratch.push({ dtype, length, slot });
    return this.#plan.buffers.length + this.#scratch.length - 1;
  }

  /** Scratch lives within a kernel: the next one may use the same slots. */
  endKernel(): void {
    this.#slotsInUse = 0;
  }
}

interface Step {
  readonly launch: Launch & Cost;
  readonly compiled: CompiledPipeline;
  /** Bind groups by the ids of the bound buffers, the latest first. */
  readonly groups: { readonly ids: Int32Array; readonly group: GPUBindGroup }[];
}

/** The plan's launches in order, and the bytes of the scratch slots that they use. */
export function launchesOf(
  plan: Plan,
  device: WebGPUDevice,
): { launches: (Launch & Cost)[]; scratchBytes: number[] } {
  const places = new Places(plan);
  const launches = plan.kernels.flatMap((kernel) => {
    const parts = rewrite(kernel, places, device.capabilities).flatMap((part) =>
      emitKernel(part, places, device.capabilities),
    );
    places.endKernel();
    return parts;
  });
  for (const { label, bindings } of launches) {
    const { maxStorageBuffers, maxBindingBytes } = device.capabilities;
    if (bindings.length > maxStorageBuffers) {
      throw new DeviceError(
        `kernel "${label}": too many buffers; expected at most ${maxStorageBuffers}; got ${bindings.length}`,
      );
    }
    const bytes = Math.max(...bindings.map((binding) => binding.bytes));
    if (bytes > maxBindingBytes) {
      throw new DeviceError(
        `kernel "${label}": a buffer is too large; expected at most ${maxBindingBytes} bytes; got ${bytes}`,
      );
    }
  }
  return { launches, scratchBytes: places.scratchBytes };
}

/** Kernels count elements in i32. */
const MOST_ELEMENTS = 2 ** 31 - 4;

/** @throws DTypeError, DeviceError naming the kernel that holds what the device cannot */
function checkPlan(plan: Plan, device: WebGPUDevice): void {
  const labelOf = (buffer: number) =>
    plan.kernels.find((kernel) => buffersOf(kernel).includes(buffer))?.label ?? 'copy';
  plan.buffers.forEach(({ dtype, length }, buffer) => {
    if (!device.dtypes.includes(dtype)) {
      throw new DTypeError(
        `kernel "${labelOf(buffer)}": webgpu holds ${device.dtypes.join(', ')}; got ${dtype}`,
      );
    }
    if (length > MOST_ELEMENTS) {
      throw new DeviceError(
        `kernel "${labelOf(buffer)}": too many elements; expected at most ${MOST_ELEMENTS}; got ${length}`,
      );
    }
  });
}

function buffersOf(kernel: Kernel): number[] {
  const outputs = kernel.kind === 'map' ? kernel.outputs : [kernel.output];
  return [...kernel.bindings, ...outputs].map(({ buffer }) => buffer);
}

export class WebGPUProgram implements Program {
  readonly #device: WebGPUDevice;
  readonly #plan: Plan;
  readonly #steps: readonly Step[];
  /** Buffers of the program's own: slots of the plan, then scratch. */
  readonly #own: readonly PooledBuffer[];
  #disposed = false;

  private constructor(
    device: WebGPUDevice,
    plan: Plan,
    steps: readonly Step[],
    own: readonly PooledBuffer[],
  ) {
    this.#device = device;
    this.#plan = plan;
    this.#steps = steps;
    this.#own = own;
  }

  /** The program of a plan. @throws DTypeError, DeviceError */
  static async prepare(device: WebGPUDevice, plan: Plan): Promise<WebGPUProgram> {
    checkPlan(plan, device);
    const { launches, scratchBytes } = launchesOf(plan, device);
    const compiled = await Promise.all(launches.map((launch) => device.pipelines.get(launch)));
    const steps = launches.map((launch, i) => ({ launch, compiled: compiled[i]!, groups: [] }));
    const own = [...plan.slots, ...scratchBytes].map((bytes) =>
      device.pool.lease(Math.ceil(bytes / 16) * 16),
    );
    return new WebGPUProgram(device, plan, steps, own);
  }

  get kernelCount(): number {
    return this.#steps.length;
  }

  get temporaryBytes(): number {
    return this.#own.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }

  run(inputs: readonly Storage[]): Storage[] {
    if (this.#disposed) throw new DisposedError('run: the program was disposed');
    const bound = this.#checkInputs(inputs);
    const outputs = this.#outputs(bound);
    const buffers = [...bound, ...outputs].map((storage) => storage.pooled).concat(this.#own);
    const encoder = this.#device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    let current: GPUComputePipeline | null = null;
    for (const step of this.#steps) {
      const { pipeline } = step.compiled;
      if (pipeline !== current) pass.setPipeline(pipeline);
      current = pipeline;
      pass.setBindGroup(0, this.#bindGroup(step, buffers));
      const [x, y, z] = step.launch.workgroups;
      pass.dispatchWorkgroups(x, y, z);
    }
    pass.end();
    this.#device.submit(encoder.finish(), this.#steps.length);
    return outputs;
  }

  /** Inputs whose storage an output takes over. */
  #donated(): number[] {
    return this.#plan.outputs.flatMap((buffer) => {
      const planned = this.#plan.buffers[buffer]!;
      return planned.role === 'output' && planned.donated !== undefined ? [planned.donated] : [];
    });
  }

  #checkInputs(inputs: readonly Storage[]): WebGPUStorage[] {
    const { buffers } = this.#plan;
    if (inputs.length !== this.#plan.inputs.length) {
      throw new DeviceError(`run: expected ${this.#plan.inputs.length} inputs; got ${inputs.length}`);
    }
    const bound = inputs.map((storage, i) => {
      const { dtype, length } = buffers[this.#plan.inputs[i]!]!;
      if (storage.dtype !== dtype || storage.length !== length) {
        throw new DeviceError(
          `run: input ${i} does not fit; expected ${length} x ${dtype}; got ${storage.length} x ${storage.dtype}`,
        );
      }
      return this.#device.own('run', storage);
    });
    for (const index of this.#donated()) {
      if (bound.some((storage, i) => i !== index && storage.pooled === bound[index]!.pooled)) {
        throw new DeviceError(`run: input ${index} is donated and given a second time`);
      }
    }
    return bound;
  }

  #outputs(inputs: readonly WebGPUStorage[]): WebGPUStorage[] {
    return this.#plan.outputs.map((buffer) => {
      const planned = this.#plan.buffers[buffer]!;
      if (planned.role !== 'output') throw new Error('internal: an output of the plan is no output buffer');
      if (planned.donated === undefined) return this.#device.allocate(planned.dtype, planned.length);
      return inputs[planned.donated]!.handOver();
    });
  }

  #bindGroup({ launch, compiled, groups }: Step, buffers: readonly PooledBuffer[]): GPUBindGroup {
    const { bindings } = launch;
    for (let i = 0; i < groups.length; i += 1) {
      const known = groups[i]!;
      if (!bindings.every(({ place }, b) => known.ids[b] === buffers[place]!.id)) continue;
      if (i > 0) groups.unshift(...groups.splice(i, 1));
      return known.group;
    }
    const group = this.#device.createBindGroup({
      label: launch.label,
      layout: compiled.layout,
      entries: bindings.map(({ place, bytes }, binding) => ({
        binding,
        resource: { buffer: buffers[place]!.buffer, size: bytes },
      })),
    });
    groups.unshift({ ids: Int32Array.from(bindings, ({ place }) => buffers[place]!.id), group });
    if (groups.length > KEPT_BIND_GROUPS) groups.pop();
    return group;
  }

  explain(): string {
    const table = this.#steps.map(({ launch: { label, description, flops, bytes, workgroups } }) => {
      const [x, y] = workgroups;
      const cost = `${formatCount(flops, 'flop')}, ${formatCount(bytes, 'B')}`;
      return `${label}: ${description}, ${cost}, ${y === 1 ? x : `${x}x${y}`} workgroups`;
    });
    return [...table, '', ...this.#steps.map(({ launch }) => `// ${launch.label}\n${launch.wgsl}`)].join(
      '\n',
    );
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const buffer of this.#own) this.#device.pool.giveBack(buffer);
    for (const { groups } of this.#steps) groups.length = 0;
  }
}
