/**
 * A plan as launches over places.
 *
 * A place is where a buffer of the plan lives during a run: the storage of an input, the storage of an output, or a
 * buffer that the program owns (an arena slot of the plan, or scratch of a kernel that takes several launches). Plan
 * buffers that share storage are one place, so a kernel that reads and writes it binds it once.
 */

import { outputsOf } from '../compiler/drafts.ts';
import { type Cost, formatCount } from '../compiler/kernelCost.ts';
import { spanned } from '../compiler/spans.ts';
import type { KernelTime, Program, Storage } from '../device.ts';
import type { DType } from '../dtype.ts';
import { DeviceError, DisposedError } from '../errors.ts';
import type { Kernel, Plan } from '../kernel.ts';
import type { Buffers } from './bindings.ts';
import type { Capabilities } from './capabilities.ts';
import { checkBindings, checkPlan } from './check.ts';
import type { WebGPUDevice, WebGPUStorage } from './device.ts';
import { emitKernel } from './emit.ts';
import type { Launch } from './launch.ts';
import { paddedBytes, pageCount } from './module.ts';
import type { CompiledPipeline } from './pipelines.ts';
import type { PooledBuffer } from './pool.ts';
import { rewrite, type Scratch } from './rewrite.ts';
import { timeLaunch } from './time.ts';

/** Bind groups kept for each launch, and sets of them: storages that come and go in turn are met again. */
const KEPT = 8;

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

  start(): number {
    return 0;
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
  readonly groups: { readonly ids: readonly number[]; readonly group: GPUBindGroup }[];
}

/** What one choice of storages binds: a bind group for each step. */
interface BoundSet {
  /** Ids of the buffers of the storages, in order. */
  readonly ids: readonly number[];
  readonly groups: readonly GPUBindGroup[];
}

/** The kernel on the spans of buffers that it touches; a buffer in several pages is bound from its start. */
function onSpans(
  kernel: Kernel,
  places: Places,
  capabilities: Capabilities,
): { kernel: Kernel; buffers: Buffers } {
  const isPaged = [...kernel.bindings, ...outputsOf(kernel)].some(
    ({ buffer, dtype }) => pageCount(paddedBytes(dtype, places.length(buffer)), capabilities) > 1,
  );
  if (isPaged) return { kernel, buffers: places };
  const { kernel: own, spans } = spanned(kernel, (buffer) => places.place(buffer));
  const buffers: Buffers = {
    place: (buffer) => places.place(buffer),
    length: (buffer) => places.length(buffer),
    start: (buffer) => spans.get(places.place(buffer))?.start ?? 0,
  };
  return { kernel: own, buffers };
}

/** A plan in launches, which any number of programs run. */
export interface CompiledPlan {
  readonly plan: Plan;
  /** In order. */
  readonly launches: readonly { readonly launch: Launch & Cost; readonly compiled: CompiledPipeline }[];
  /** Bytes of the scratch slots that they use. */
  readonly scratchBytes: readonly number[];
}

/** Compiles a plan. @throws DTypeError, DeviceError */
export async function compilePlan(plan: Plan, device: WebGPUDevice): Promise<CompiledPlan> {
  const { capabilities, tuner } = device;
  checkPlan(plan, device.dtypes);
  const places = new Places(plan);
  const parts = plan.kernels.flatMap((kernel) => {
    const own = rewrite(kernel, places, capabilities);
    places.endKernel();
    return own;
  });
  await tuner.measure(
    device,
    parts.filter((part) => part.kind === 'contract'),
    places,
  );
  const launches = parts.flatMap((part) => {
    const { kernel, buffers } = onSpans(part, places, capabilities);
    return emitKernel(kernel, buffers, capabilities, tuner.choose);
  });
  checkBindings(launches, device.capabilities);
  const compiled = await Promise.all(launches.map((launch) => device.pipelines.get(launch)));
  return {
    plan,
    launches: launches.map((launch, i) => ({ launch, compiled: compiled[i]! })),
    scratchBytes: places.scratchBytes,
  };
}

export class WebGPUProgram implements Program {
  readonly #device: WebGPUDevice;
  readonly #plan: Plan;
  readonly #steps: readonly Step[];
  /** The kernels' labels, for WebGPU's messages. */
  readonly #label: string;
  /** Buffers of the program's own, by place: slots of the plan, then scratch. */
  readonly #own: readonly (readonly PooledBuffer[])[];
  /** Inputs whose storage an output takes over. */
  readonly #donated: readonly number[];
  /** The latest first. */
  readonly #bound: BoundSet[] = [];
  #disposed = false;

  /** @throws DeviceError when there is no memory for its temporaries */
  constructor(device: WebGPUDevice, { plan, launches, scratchBytes }: CompiledPlan) {
    this.#device = device;
    this.#plan = plan;
    this.#steps = launches.map(({ launch, compiled }) => ({ launch, compiled, groups: [] }));
    this.#label = launches.map(({ launch }) => launch.label).join(', ');
    this.#own = [...plan.slots, ...scratchBytes].map((bytes) => device.lease(bytes));
    this.#donated = plan.buffers.flatMap((buffer) =>
      buffer.role === 'output' && buffer.donated !== undefined ? [buffer.donated] : [],
    );
  }

  get kernelCount(): number {
    return this.#steps.length;
  }

  get temporaryBytes(): number {
    return this.#own.flat().reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }

  run(inputs: readonly Storage[]): Storage[] {
    if (this.#disposed) throw new DisposedError('run: the program was disposed');
    this.#device.requireSound();
    const bound = this.#checkInputs(inputs);
    const outputs = this.#outputs(bound);
    const groups = this.#groups([...bound, ...outputs]);
    const encoder = this.#device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass({ label: this.#label });
    let current: GPUComputePipeline | null = null;
    for (let i = 0; i < this.#steps.length; i += 1) {
      const { compiled, launch } = this.#steps[i]!;
      if (compiled.pipeline !== current) pass.setPipeline(compiled.pipeline);
      current = compiled.pipeline;
      pass.setBindGroup(0, groups[i]!);
      const [x, y] = launch.workgroups;
      pass.dispatchWorkgroups(x, y);
    }
    pass.end();
    this.#device.submit(encoder.finish(), this.#steps.length);
    return outputs;
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
    for (const index of this.#donated) {
      if (bound.some((storage, i) => i !== index && storage.pages === bound[index]!.pages)) {
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

  /** The bind groups of a run on these storages, one for each step. */
  #groups(storages: readonly WebGPUStorage[]): readonly GPUBindGroup[] {
    const ids = storages.flatMap(({ pages }) => pages.map(({ id }) => id));
    return remembered(this.#bound, ids, () => {
      const places = [...storages.map(({ pages }) => pages), ...this.#own];
      return { ids, groups: this.#steps.map((step) => this.#bindGroup(step, places)) };
    }).groups;
  }

  #bindGroup({ launch, compiled, groups }: Step, places: readonly (readonly PooledBuffer[])[]): GPUBindGroup {
    const buffers = launch.bindings.map(({ place, page }) => places[place]![page]!);
    const ids = buffers.map(({ id }) => id);
    return remembered(groups, ids, () => {
      const group = this.#device.createBindGroup({
        label: launch.label,
        layout: compiled.layout,
        entries: launch.bindings.map(({ startBytes, bytes }, binding) => ({
          binding,
          resource: { buffer: buffers[binding]!.buffer, offset: startBytes, size: bytes },
        })),
      });
      return { ids, group };
    }).group;
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

  async profile(): Promise<KernelTime[]> {
    if (this.#disposed) throw new DisposedError('profile: the program was disposed');
    const times: KernelTime[] = [];
    for (const { launch } of this.#steps) {
      const { label, description, flops, bytes } = launch;
      times.push({ label, description, flops, bytes, milliseconds: await timeLaunch(this.#device, launch) });
    }
    return times;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const buffer of this.#own.flat()) this.#device.pool.giveBack(buffer);
    this.#bound.length = 0;
    for (const { groups } of this.#steps) groups.length = 0;
  }
}

/** The entry with the ids, now the first of the list; made, and the last one dropped, when there is none. */
function remembered<Entry extends { readonly ids: readonly number[] }>(
  entries: Entry[],
  ids: readonly number[],
  make: () => Entry,
): Entry {
  for (let i = 0; i < entries.length; i += 1) {
    const known = entries[i]!;
    if (!known.ids.every((id, j) => id === ids[j])) continue;
    if (i > 0) entries.unshift(...entries.splice(i, 1));
    return known;
  }
  entries.unshift(make());
  if (entries.length > KEPT) entries.pop();
  return entries[0]!;
}
