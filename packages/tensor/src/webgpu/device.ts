/** The WebGPU device: storages in pooled buffers, programs of generated WGSL, errors that reach their reader. */
import { graphKey } from '../compiler/ir.ts';
import { lower } from '../compiler/lower.ts';
import type { Device, Graph, Program, Storage } from '../device.ts';
import { type DType, type HostArray, hostArray } from '../dtype.ts';
import { DeviceError, DisposedError, DTypeError } from '../errors.ts';
import type { Plan } from '../kernel.ts';
import { Remembered } from '../lru.ts';
import { type Capabilities, capabilitiesOf, MATRIX_FEATURE, pageBytes } from './capabilities.ts';
import { MOST_ELEMENTS } from './check.ts';
import { paddedBytes } from './module.ts';
import { PipelineCache } from './pipelines.ts';
import { BufferPool, mapReadMode, type PooledBuffer, usage } from './pool.ts';
import { type CompiledPlan, compilePlan, WebGPUProgram } from './program.ts';
import { hasLinearSubgroups } from './subgroups.ts';
import { type Tune, Tuner, type TuningStore } from './tune.ts';

/** How to wait for the device. */
export type Wait = <T>(pending: Promise<T>) => Promise<T>;

export interface WebGPUOptions {
  /** Waits for a promise that the device will settle; a runtime where waiting polls may sleep. Default: await. */
  readonly wait?: Wait;
  /** Narrows what kernels may rely on, to try the code for lesser devices. */
  readonly capabilities?: Partial<Capabilities>;
  /** How contractions are tiled; default: `off`. */
  readonly tune?: Tune;
  /** Where measured tilings are kept; default: nowhere. */
  readonly tunings?: TuningStore;
  /** Computes what is too small for a launch (see `evaluate`); default: nothing is. Belongs to the new device. */
  readonly companion?: Device;
}

/** What the device has done so far. */
export interface Statistics {
  readonly buffersCreated: number;
  readonly bindGroupsCreated: number;
  readonly pipelinesCreated: number;
  readonly submits: number;
  readonly dispatches: number;
}

const wantedLimits = [
  'maxStorageBufferBindingSize',
  'maxBufferSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
] as const;

const wantedFeatures: readonly GPUFeatureName[] = [
  'shader-f16',
  'subgroups',
  'timestamp-query',
  MATRIX_FEATURE,
];

/**
 * A device on the adapter, with the adapter's limits and optional features. The adapter is used up.
 * @throws DeviceError when the adapter gives no device
 */
export async function openWebGPU(adapter: GPUAdapter, options: WebGPUOptions = {}): Promise<WebGPUDevice> {
  const requiredFeatures = wantedFeatures.filter((feature) => adapter.features.has(feature));
  const requiredLimits = Object.fromEntries(wantedLimits.map((name) => [name, adapter.limits[name]]));
  const gpu = await adapter.requestDevice({ requiredFeatures, requiredLimits }).catch((error: unknown) => {
    throw new DeviceError(`openWebGPU: the adapter gives no device; ${String(error)}`);
  });
  const wait: Wait = options.wait ?? ((pending) => pending);
  const own = capabilitiesOf(adapter.info, gpu.features, gpu.limits);
  const { software, subgroupSize } = own;
  const isKnown = software || subgroupSize === 0 || (await hasLinearSubgroups(gpu, subgroupSize, wait));
  const capabilities = { ...own, subgroupSize: isKnown ? subgroupSize : 0, ...options.capabilities };
  const { description, device: model, vendor, architecture } = adapter.info;
  const adapterClass = [vendor, architecture, model, description].join('/');
  const tuner = await Tuner.open(options.tune ?? 'off', adapterClass, options.tunings);
  return new WebGPUDevice(gpu, adapter.info, capabilities, tuner, { ...options, wait });
}

/** Bytes of one upload, and of all uploads after which an empty submit lets WebGPU free its staging memory. */
const UPLOAD_BYTES = 32 * 2 ** 20;

/** Graphs whose launches are kept, whether or not a program of them is. */
const COMPILED_PLANS = 64;

export class WebGPUDevice implements Device {
  readonly kind = 'webgpu';
  readonly description: string;
  readonly dtypes: readonly DType[] = ['f32', 'f16', 'i32', 'u32', 'bool'];
  readonly capabilities: Capabilities;
  readonly companion?: Device;
  /** @internal */
  readonly gpu: GPUDevice;
  /** @internal */
  readonly pool: BufferPool;
  /** @internal */
  readonly pipelines: PipelineCache;
  /** @internal */
  readonly tuner: Tuner;
  /** By the structure of the graph. */
  readonly #compiled = new Remembered<CompiledPlan>(COMPILED_PLANS);
  readonly #staging: BufferPool;
  readonly #wait: Wait;
  readonly #errors: string[] = [];
  /** Rejects what waits for the device. */
  readonly #waiting = new Set<(error: DeviceError) => void>();
  #lostWhy: string | null = null;
  #closing = false;
  #bindGroups = 0;
  #submits = 0;
  #dispatches = 0;
  #uploadedBytes = 0;

  /** @internal Devices are made by `openWebGPU`. */
  constructor(
    gpu: GPUDevice,
    info: GPUAdapterInfo,
    capabilities: Capabilities,
    tuner: Tuner,
    { wait, companion }: { readonly wait: Wait; readonly companion?: Device },
  ) {
    this.gpu = gpu;
    if (companion) this.companion = companion;
    this.capabilities = capabilities;
    this.description = info.description || info.device || info.vendor || 'unnamed adapter';
    this.#wait = wait;
    this.tuner = tuner;
    const { storage, copySource, copyTarget, mapRead } = usage;
    const refused = (bytes: number): void => {
      this.#errors.push(`out of memory; a buffer needs ${bytes} bytes; got ${this.bytesInUse} bytes in use`);
    };
    this.pool = new BufferPool(gpu, storage | copySource | copyTarget, 'storage', refused);
    this.#staging = new BufferPool(gpu, mapRead | copyTarget, 'staging', refused);
    this.pipelines = new PipelineCache(gpu);
    gpu.addEventListener('uncapturederror', (event) => {
      event.preventDefault(); // or Dawn prints it as well
      this.#errors.push(event.error.message);
    });
    void gpu.lost.then(({ reason, message }) => {
      this.#lostWhy = this.#closing ? 'it was closed' : `${reason}: ${message}`;
      for (const reject of this.#waiting) reject(this.#lostError());
    });
  }

  /** Bytes of the buffers that storages and programs hold. */
  get bytesInUse(): number {
    return this.pool.leasedBytes;
  }

  get statistics(): Statistics {
    return {
      buffersCreated: this.pool.created + this.#staging.created,
      bindGroupsCreated: this.#bindGroups,
      pipelinesCreated: this.pipelines.created,
      submits: this.#submits,
      dispatches: this.#dispatches,
    };
  }

  upload(dtype: DType, values: HostArray): Storage {
    const storage = this.allocate(dtype, values.length);
    try {
      this.write(storage, values);
    } catch (error) {
      storage.dispose();
      throw error;
    }
    return storage;
  }

  write(storage: Storage, values: HostArray): void {
    const { pages } = this.own('write', storage);
    const expected = hostArray(storage.dtype, 0).constructor;
    if (!(values instanceof expected) || values.length !== storage.length) {
      throw new DTypeError(
        `write: expected ${storage.length} ${storage.dtype} values in a ${expected.name}; got ${values.length} in a ${values.constructor.name}`,
      );
    }
    this.#pieces(values.byteLength).forEach(({ start, bytes }, page) => {
      const { buffer } = pages[page]!;
      for (let from = 0; from < bytes; from += UPLOAD_BYTES) {
        const part = new Uint8Array(
          values.buffer,
          values.byteOffset + start + from,
          Math.min(UPLOAD_BYTES, bytes - from),
        );
        this.gpu.queue.writeBuffer(buffer, from, writable(part));
        this.#uploadedBytes += part.byteLength;
        if (this.#uploadedBytes > UPLOAD_BYTES) this.submit(null, 0);
      }
    });
  }

  /** The part of so many bytes that each page holds. */
  #pieces(bytes: number): { readonly start: number; readonly bytes: number }[] {
    const size = pageBytes(this.capabilities);
    return Array.from({ length: Math.ceil(bytes / size) }, (_, page) => ({
      start: page * size,
      bytes: Math.min(size, bytes - page * size),
    }));
  }

  async read(storage: Storage): Promise<HostArray> {
    const { pages, dtype, length } = this.own('read', storage);
    const values = hostArray(dtype, length);
    if (length === 0) return values;
    const target = new Uint8Array(values.buffer);
    const pieces = this.#pieces(target.length);
    const words = (bytes: number): number => Math.ceil(bytes / 4) * 4;
    const staging = pieces.map(({ bytes }) => this.#staging.lease(words(bytes)));
    try {
      // All pages in one submit: the values are those of one moment.
      const encoder = this.gpu.createCommandEncoder({ label: 'read' });
      pieces.forEach(({ bytes }, page) => {
        encoder.copyBufferToBuffer(pages[page]!.buffer, 0, staging[page]!.buffer, 0, words(bytes));
      });
      this.submit(encoder.finish(), 0);
      for (const [page, { start, bytes }] of pieces.entries()) {
        const { buffer } = staging[page]!;
        await this.#settled(buffer.mapAsync(mapReadMode, 0, words(bytes)));
        target.set(new Uint8Array(buffer.getMappedRange(0, words(bytes)), 0, bytes), start);
        buffer.unmap();
      }
    } finally {
      for (const buffer of staging) this.#staging.giveBack(buffer);
    }
    this.#throwErrors();
    return values;
  }

  async prepare(graph: Graph): Promise<Program> {
    this.#requireOpen();
    const compiled = await this.#compiled.of(graphKey(graph), () => compilePlan(lower(graph), this));
    return new WebGPUProgram(this, compiled);
  }

  /** The program of a plan. @throws DTypeError when the plan uses f64, DeviceError */
  async preparePlan(plan: Plan): Promise<WebGPUProgram> {
    this.#requireOpen();
    return new WebGPUProgram(this, await compilePlan(plan, this));
  }

  async idle(): Promise<void> {
    this.#requireOpen();
    await this.#settled(this.gpu.queue.onSubmittedWorkDone());
    this.#throwErrors();
  }

  async close(): Promise<void> {
    this.#closing = true;
    this.gpu.destroy();
    await Promise.all([this.gpu.lost, this.companion?.close()]);
  }

  /** @internal Buffers, a page each, that hold so many bytes. @throws DeviceError */
  lease(bytes: number): PooledBuffer[] {
    return this.pool.leasePages(Math.ceil(bytes / 16) * 16, pageBytes(this.capabilities));
  }

  /** @internal A storage whose values are undefined yet. @throws DTypeError, DeviceError */
  allocate(dtype: DType, length: number): WebGPUStorage {
    this.#requireOpen();
    if (!this.dtypes.includes(dtype)) {
      throw new DTypeError(`storage: webgpu holds ${this.dtypes.join(', ')}; got ${dtype}`);
    }
    if (length > MOST_ELEMENTS) {
      throw new DeviceError(`storage: too many elements; expected at most ${MOST_ELEMENTS}; got ${length}`, {
        need: length,
        limit: MOST_ELEMENTS,
      });
    }
    return new WebGPUStorage(this, dtype, length, this.lease(paddedBytes(dtype, length)));
  }

  /** @internal The storage as one of this device. @throws DisposedError, DeviceError */
  own(op: string, storage: Storage): WebGPUStorage {
    this.#requireOpen();
    if (!(storage instanceof WebGPUStorage) || storage.device !== this) {
      throw new DeviceError(`${op}: the storage is on another device (${storage.device.description})`);
    }
    if (storage.disposed) throw new DisposedError(`${op}: the storage was disposed or donated`);
    return storage;
  }

  /** @internal @throws DeviceError when the device is gone, or with what WebGPU reported since the last call */
  requireSound(): void {
    this.#requireOpen();
    this.#throwErrors();
  }

  /** @internal Queues work. */
  submit(commands: GPUCommandBuffer | null, dispatches: number): void {
    this.gpu.queue.submit(commands === null ? [] : [commands]);
    this.#submits += 1;
    this.#dispatches += dispatches;
    this.#uploadedBytes = 0;
  }

  /** @internal */
  createBindGroup(descriptor: GPUBindGroupDescriptor): GPUBindGroup {
    this.#bindGroups += 1;
    return this.gpu.createBindGroup(descriptor);
  }

  /** What the device settles, or a DeviceError when it is lost first. */
  async #settled<T>(pending: Promise<T>): Promise<T> {
    // Not Promise.race with `lost`, which would keep every wait of the device's life.
    let reject: (error: DeviceError) => void = () => {};
    const settled = new Promise<T>((resolve, fail) => {
      reject = fail;
      pending.then(resolve, fail);
    });
    this.#waiting.add(reject);
    try {
      return await this.#wait(settled);
    } catch (error) {
      if (error instanceof DeviceError) throw error;
      this.#throwErrors();
      throw this.#lostWhy === null ? new DeviceError(`webgpu: ${String(error)}`) : this.#lostError();
    } finally {
      this.#waiting.delete(reject);
    }
  }

  #requireOpen(): void {
    if (this.#closing || this.#lostWhy !== null) throw this.#lostError();
  }

  #lostError(): DeviceError {
    return new DeviceError(`webgpu: the device is gone; ${this.#lostWhy ?? 'it was closed'}`);
  }

  /** Errors that WebGPU reported on its own, of calls that seemed to succeed. */
  #throwErrors(): void {
    if (this.#errors.length === 0) return;
    throw new DeviceError(`webgpu: ${this.#errors.splice(0).join('; ')}`);
  }
}

/** Bytes as writeBuffer takes them: unshared memory, a multiple of 4 bytes. */
function writable(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  if (bytes.length % 4 === 0 && bytes.buffer instanceof ArrayBuffer) return bytes as Uint8Array<ArrayBuffer>;
  const copy = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  copy.set(bytes);
  return copy;
}

/** Values in pooled buffers: one, or pages of what is larger than a binding may be. */
export class WebGPUStorage implements Storage {
  readonly device: WebGPUDevice;
  readonly dtype: DType;
  readonly length: number;
  /** @internal */
  readonly pages: readonly PooledBuffer[];
  #disposed = false;

  constructor(device: WebGPUDevice, dtype: DType, length: number, pages: readonly PooledBuffer[]) {
    this.device = device;
    this.dtype = dtype;
    this.length = length;
    this.pages = pages;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const page of this.pages) this.device.pool.giveBack(page);
  }

  /** @internal Its values in a new storage; this one counts as disposed. */
  handOver(): WebGPUStorage {
    this.#disposed = true;
    return new WebGPUStorage(this.device, this.dtype, this.length, this.pages);
  }
}
