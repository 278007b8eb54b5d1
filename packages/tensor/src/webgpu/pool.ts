/**
 * The one owner of GPU buffers: nothing else creates or destroys any.
 *
 * A buffer is free or leased. Work on the queue runs in order, so a buffer that is given back may be leased again at
 * once: whatever is queued later comes after its last use. Only destroying waits, until the queue has passed a fence.
 */
import { DeviceError } from '../errors.ts';

/** WebGPU's usage flags, which Node has no globals for. */
export const usage = { mapRead: 0x1, copySource: 0x4, copyTarget: 0x8, storage: 0x80 } as const;
/** Its GPUMapMode.READ. */
export const mapReadMode = 0x1;

/** A leased buffer. `id` identifies the GPU buffer for the life of the device. */
export interface PooledBuffer {
  readonly id: number;
  readonly buffer: GPUBuffer;
  readonly sizeBytes: number;
}

/** Free bytes that are kept for later leases, at least; more where more is leased. */
const KEPT_BYTES = 128 * 2 ** 20;

/** The size of the buffer that serves a request: a power of two, or 5/4, 6/4 or 7/4 of one. */
export function sizeClass(bytes: number): number {
  if (bytes <= 256) return 256;
  const step = 2 ** (Math.ceil(Math.log2(bytes)) - 3);
  return Math.ceil(bytes / step) * step;
}

export class BufferPool {
  readonly #device: GPUDevice;
  readonly #usage: number;
  readonly #label: string;
  readonly #refused: (bytes: number) => void;
  /** Buffers without memory, which WebGPU tells of after it made them. */
  readonly #broken = new Set<PooledBuffer>();
  /** By size, each list from the longest free to the latest, which is leased first. */
  readonly #free = new Map<number, { readonly buffer: PooledBuffer; readonly since: number }[]>();
  #returns = 0;
  #freeBytes = 0;
  #leasedBytes = 0;
  #created = 0;
  #nextId = 0;
  /** Buffers that left the pool and wait for the fence. */
  #retired: PooledBuffer[] = [];
  #fencing = false;

  /** @param refused told, later, of buffers that the device had no memory for */
  constructor(device: GPUDevice, usageFlags: number, label: string, refused: (bytes: number) => void) {
    this.#device = device;
    this.#usage = usageFlags;
    this.#label = label;
    this.#refused = refused;
  }

  get leasedBytes(): number {
    return this.#leasedBytes;
  }

  /** Buffers created so far. */
  get created(): number {
    return this.#created;
  }

  /**
   * A buffer of at least so many bytes. Its contents are undefined.
   * @throws DeviceError when the device allows no buffer of that size
   */
  lease(bytes: number): PooledBuffer {
    const limit = this.#device.limits.maxBufferSize;
    if (bytes > limit) {
      throw new DeviceError(
        `buffer: too large for the device; expected at most ${limit} bytes; got ${bytes}`,
        { need: bytes, limit },
      );
    }
    const sizeBytes = Math.min(sizeClass(bytes), limit - (limit % 4));
    const free = this.#free.get(sizeBytes)?.pop();
    if (free) this.#freeBytes -= sizeBytes;
    this.#leasedBytes += sizeBytes;
    return free?.buffer ?? this.#create(sizeBytes);
  }

  /** Buffers of at most a page each that hold so many bytes together. @throws DeviceError as `lease` */
  leasePages(bytes: number, page: number): PooledBuffer[] {
    const pages: PooledBuffer[] = [];
    for (let left = bytes; left > 0; left -= page) pages.push(this.lease(Math.min(left, page)));
    return pages;
  }

  #create(sizeBytes: number): PooledBuffer {
    this.#created += 1;
    this.#nextId += 1;
    const label = `${this.#label} ${this.#nextId}`;
    this.#device.pushErrorScope('out-of-memory');
    const buffer = this.#device.createBuffer({ label, size: sizeBytes, usage: this.#usage });
    const pooled = { id: this.#nextId, buffer, sizeBytes };
    this.#device.popErrorScope().then(
      (error) => {
        if (error === null) return;
        this.#broken.add(pooled);
        this.#refused(sizeBytes);
      },
      () => {}, // the device is lost, and says so itself
    );
    return pooled;
  }

  /** Takes a buffer back. The caller has queued its last use. */
  giveBack(buffer: PooledBuffer): void {
    this.#leasedBytes -= buffer.sizeBytes;
    if (this.#broken.delete(buffer)) return;
    this.#freeBytes += buffer.sizeBytes;
    this.#returns += 1;
    const entry = { buffer, since: this.#returns };
    const list = this.#free.get(buffer.sizeBytes);
    if (list) list.push(entry);
    else this.#free.set(buffer.sizeBytes, [entry]);
    if (this.#freeBytes > Math.max(KEPT_BYTES, this.#leasedBytes)) this.#trim();
  }

  /** Retires the buffers that have been free for longest. */
  #trim(): void {
    const target = Math.max(KEPT_BYTES, this.#leasedBytes);
    while (this.#freeBytes > target) {
      const lists = [...this.#free.values()].filter((list) => list.length > 0);
      const oldest = lists.reduce((a, b) => (a[0]!.since <= b[0]!.since ? a : b));
      const { buffer } = oldest.shift()!;
      this.#freeBytes -= buffer.sizeBytes;
      this.#retired.push(buffer);
    }
    void this.#destroyBehindFence();
  }

  async #destroyBehindFence(): Promise<void> {
    if (this.#fencing) return;
    this.#fencing = true;
    const retired = this.#retired;
    this.#retired = [];
    await this.#device.queue.onSubmittedWorkDone().catch(() => {});
    for (const { buffer } of retired) buffer.destroy();
    this.#fencing = false;
    if (this.#retired.length > 0) await this.#destroyBehindFence();
  }
}
