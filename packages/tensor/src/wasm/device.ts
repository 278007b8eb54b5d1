/** The WebAssembly device: storages in one memory, plans compiled to one module each, threads that run a tape. */
import { graphKey } from '../compiler/ir.ts';
import { lower } from '../compiler/lower.ts';
import type { Device, Graph, Program, Storage } from '../device.ts';
import { bytesPerElement, type DType, type HostArray, hostArray } from '../dtype.ts';
import { DeviceError, DisposedError, DTypeError } from '../errors.ts';
import type { Plan } from '../kernel.ts';
import { Remembered } from '../lru.ts';
import { type CompiledPlan, compilePlan } from './compile.ts';
import { awake, engine, type WasmModule } from './engine.ts';
import { BlockSet, DeviceMemory } from './memory.ts';
import { type Range, WasmProgram } from './program.ts';
import { control } from './tape.ts';
import type { StartThread, Thread } from './threads.ts';

export class WasmStorage implements Storage {
  readonly device: WasmDevice;
  readonly dtype: DType;
  readonly length: number;
  /** Byte address in the device's memory. */
  readonly address: number;
  disposed = false;

  constructor(device: WasmDevice, dtype: DType, length: number) {
    this.device = device;
    this.dtype = dtype;
    this.length = length;
    this.address = device.memory.allocate(length * bytesPerElement(dtype));
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.device.memory.release(this.address);
  }
}

export interface WasmSettings {
  /** Threads in all, this one included. */
  readonly threads: number;
  /** How to start the others; null: there are none. */
  readonly start: StartThread | null;
  /** Whether this thread may sleep while it waits for others (a browser's main thread may not). */
  readonly canSleep: boolean;
}

/** A module with one f32x4.relaxed_madd: whether the engine accepts it. */
// biome-ignore format: bytes of a module, a section a line
const relaxedProbe = Uint8Array.of(
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
  1, 5, 1, 0x60, 0, 1, 0x7b,
  3, 2, 1, 0,
  10, 19, 1, 17, 0, 0x41, 0, 0xfd, 0x11, 0x41, 0, 0xfd, 0x11, 0x41, 0, 0xfd, 0x11, 0xfd, 0x85, 2, 0x0b,
);

/** Graphs whose code is kept, whether or not a program of it is. */
const compiledCapacity = 64;

/** A graph's code, which any number of programs run. */
interface Compiled {
  readonly plan: Plan;
  readonly code: CompiledPlan;
  readonly module: WasmModule;
}

export class WasmDevice implements Device {
  readonly kind = 'wasm';
  readonly description: string;
  readonly dtypes: readonly DType[] = ['f32', 'f16', 'i32', 'u32', 'bool'];
  readonly memory: DeviceMemory;
  /** Threads that run programs, this one included. */
  readonly threads: number;
  private readonly workers: readonly Thread[];
  private readonly canSleep: boolean;
  private readonly relaxed: boolean;
  private readonly controlAddress: number;
  /** By the structure of the graph. */
  private readonly compiled = new Remembered<Compiled>(compiledCapacity);
  private readonly mains = new Map<number, (...args: number[]) => void>();
  private nextId = 0;
  private lost: string | null = null;

  /** Made by `open`. */
  private constructor(memory: DeviceMemory, workers: readonly Thread[], canSleep: boolean) {
    this.memory = memory;
    this.workers = workers;
    this.threads = workers.length + 1;
    this.canSleep = canSleep;
    this.relaxed = engine.validate(relaxedProbe);
    this.controlAddress = memory.allocate(control.bytes);
    this.words().fill(0, this.controlAddress >>> 2, (this.controlAddress + control.bytes) >>> 2);
    const threads = this.threads === 1 ? '1 thread' : `${this.threads} threads`;
    this.description = `WebAssembly SIMD, ${threads}${this.relaxed ? ', fused multiply-add' : ''}`;
  }

  static async open({ threads, start, canSleep }: WasmSettings): Promise<WasmDevice> {
    const others = start ? threads - 1 : 0;
    const memory = new DeviceMemory(others > 0);
    const workers = await Promise.all(Array.from({ length: others }, () => start!(memory.memory)));
    return new WasmDevice(memory, workers, canSleep);
  }

  get bytesInUse(): number {
    return this.memory.bytesInUse - control.bytes;
  }

  /** The memory as words; valid until the memory grows. */
  words(): Int32Array {
    return new Int32Array(this.memory.memory.buffer);
  }

  allocate(dtype: DType, length: number): WasmStorage {
    return new WasmStorage(this, dtype, length);
  }

  upload(dtype: DType, values: HostArray): WasmStorage {
    this.requireOpen('upload');
    if (!this.dtypes.includes(dtype)) {
      throw new DTypeError(`upload: wasm stores ${this.dtypes.join(', ')}; got ${dtype}`);
    }
    const storage = this.allocate(dtype, values.length);
    this.write(storage, values);
    return storage;
  }

  write(storage: Storage, values: HostArray): void {
    const own = this.own('write', storage);
    if (values.length !== own.length || !matches(own.dtype, values)) {
      const got = `${values.length} of a ${values.constructor.name}`;
      throw new DTypeError(`write: expected ${own.length} elements of ${own.dtype}; got ${got}`);
    }
    this.bytes(own).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }

  async read(storage: Storage): Promise<HostArray> {
    const own = this.own('read', storage);
    const values = hostArray(own.dtype, own.length);
    new Uint8Array(values.buffer).set(this.bytes(own));
    return values;
  }

  async prepare(graph: Graph): Promise<Program> {
    return this.load(await this.compiled.of(graphKey(graph), () => this.compile(lower(graph))));
  }

  /**
   * Compiles a plan.
   * @throws DTypeError when the plan has f64, DeviceError when memory runs out
   */
  async preparePlan(plan: Plan): Promise<WasmProgram> {
    return this.load(await this.compile(plan));
  }

  private async compile(plan: Plan): Promise<Compiled> {
    this.requireOpen('prepare');
    const code = compilePlan(plan, { relaxed: this.relaxed, threads: this.threads });
    return { plan, code, module: await awake(engine.compile(code.bytes)) };
  }

  /** A program with memory of its own. */
  private async load({ plan, code, module }: Compiled): Promise<WasmProgram> {
    const blocks = new BlockSet(this.memory);
    try {
      const tables = blocks.allocate(code.tables.byteLength);
      this.words().set(code.tables, tables >>> 2);
      const { memory } = this.memory;
      const instance = await awake(engine.instantiate(module, { env: { memory, tables } }));
      this.requireOpen('prepare');
      const id = this.nextId++;
      const program = new WasmProgram(this, plan, code, id, blocks);
      this.mains.set(id, instance.exports.main as (...args: number[]) => void);
      for (const worker of this.workers) worker.post({ kind: 'program', id, module, tables });
      return program;
    } catch (error) {
      blocks.release();
      throw error;
    }
  }

  /** The inputs of a run, checked against the plan. @throws DisposedError, DTypeError, DeviceError */
  checkInputs(plan: Plan, inputs: readonly Storage[]): WasmStorage[] {
    this.requireOpen('run');
    if (inputs.length !== plan.inputs.length) {
      throw new DeviceError(`run: expected ${plan.inputs.length} inputs; got ${inputs.length}`);
    }
    return inputs.map((input, i) => {
      const own = this.own('run', input);
      const { dtype, length } = plan.buffers[plan.inputs[i]!]!;
      if (own.dtype !== dtype || own.length !== length) {
        throw new DTypeError(`run: input ${i} must be ${length} ${dtype}; got ${own.length} ${own.dtype}`);
      }
      return own;
    });
  }

  /** Runs a tape on all threads, and returns when it has ended. @throws DeviceError when a kernel trapped */
  execute(id: number, tape: Range, scratch: Range, parallel: boolean): void {
    const threads = parallel ? this.threads : 1;
    const failedWord = (this.controlAddress + control.failed) >>> 2;
    const args = (thread: number, canSleep: boolean) => [
      tape.start,
      tape.start + tape.bytes,
      this.controlAddress,
      threads,
      scratch.start + thread * scratch.bytes,
      Number(canSleep),
    ];
    if (parallel) {
      this.workers.forEach((worker, i) => {
        worker.post({ kind: 'run', id, args: args(i + 1, true), failedWord });
      });
    }
    try {
      this.mains.get(id)!(...args(0, this.canSleep));
    } catch (error) {
      this.words()[failedWord] = 1;
      this.lost = `a kernel trapped: ${error instanceof Error ? error.message : String(error)}`;
      throw new DeviceError(`run: ${this.lost}`);
    }
  }

  forget(id: number): void {
    this.mains.delete(id);
    for (const worker of this.workers) worker.post({ kind: 'forget', id });
  }

  async idle(): Promise<void> {
    // Runs end before they return.
  }

  async close(): Promise<void> {
    this.lost ??= 'it was closed';
    this.mains.clear();
    await Promise.all(this.workers.map((worker) => worker.terminate()));
  }

  private requireOpen(op: string): void {
    if (this.lost !== null) throw new DeviceError(`${op}: the wasm device cannot be used: ${this.lost}`);
  }

  private own(op: string, storage: Storage): WasmStorage {
    this.requireOpen(op);
    if (!(storage instanceof WasmStorage) || storage.device !== this) {
      throw new DeviceError(`${op}: the storage belongs to another device (${storage.device.description})`);
    }
    if (storage.disposed) throw new DisposedError(`${op}: the storage was disposed`);
    return storage;
  }

  private bytes({ address, length, dtype }: WasmStorage): Uint8Array {
    return new Uint8Array(this.memory.memory.buffer, address, length * bytesPerElement(dtype));
  }
}

function matches(dtype: DType, values: HostArray): boolean {
  return hostArray(dtype, 0).constructor === values.constructor;
}
