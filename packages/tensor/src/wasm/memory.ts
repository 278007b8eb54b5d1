/** The one memory of a wasm device, and who has which part of it. */
import { DeviceError } from '../errors.ts';
import { maxPages } from './assembler.ts';
import { engine, type WasmMemory } from './engine.ts';

const pageBytes = 65536;
const alignment = 64;

/**
 * Free at both ends of what is allocated: vector loads may reach past the buffer that they are for (their extra
 * lanes are masked out), and must not reach past the memory.
 */
const marginBytes = pageBytes;

/**
 * An allocator of 64-byte-aligned blocks. Freed blocks are kept by size and given out again to requests of a similar
 * size (a training loop asks for the same sizes over and over); others are split from the end of the memory.
 */
export class DeviceMemory {
  readonly memory: WasmMemory;
  /** Bytes given out and not freed. */
  bytesInUse = 0;
  /** Bytes that can be given out. */
  readonly limitBytes: number;
  /** Where the part begins that was never given out. */
  private top = marginBytes;
  /** Sizes of the blocks given out, and of the free ones, by address. */
  private readonly blocks = new Map<number, number>();
  private readonly freeBlocks = new Map<number, number>();
  /** Addresses of the free blocks of each size. */
  private readonly free = new Map<number, number[]>();

  constructor(shared: boolean) {
    const { memory, pages } = reserve(shared);
    this.memory = memory;
    this.limitBytes = pages * pageBytes - marginBytes;
  }

  /**
   * Address of a block of at least that many bytes.
   * @throws DeviceError when the memory is used up
   */
  allocate(bytes: number): number {
    const size = sizeClass(bytes);
    const address = this.free.get(size)?.pop() ?? this.extend(size);
    this.freeBlocks.delete(address);
    this.blocks.set(address, size);
    this.bytesInUse += size;
    return address;
  }

  release(address: number): void {
    const size = this.blocks.get(address);
    if (size === undefined) throw new Error(`internal: no block at ${address}`);
    this.blocks.delete(address);
    this.bytesInUse -= size;
    this.keepFree(address, size);
  }

  private extend(size: number): number {
    const close = this.fit(size, 1.25 * size);
    if (close !== undefined) return close;
    if (this.top + size > this.limitBytes) {
      this.compact();
      const large = this.fit(size, Number.POSITIVE_INFINITY);
      if (large !== undefined) return large;
    }
    if (this.top + size > this.limitBytes) {
      throw new DeviceError(
        `wasm: out of memory; needs ${size} bytes more; got ${this.bytesInUse} bytes in use of ${this.limitBytes}`,
        { need: this.bytesInUse + size, limit: this.limitBytes },
      );
    }
    const missing = this.top + size + marginBytes - this.memory.buffer.byteLength;
    if (missing > 0) {
      // Grown by an eighth at least, so that a run of small requests does not grow it one by one.
      const wanted = Math.ceil(Math.max(missing, this.memory.buffer.byteLength / 8) / pageBytes);
      const left = (this.limitBytes + marginBytes - this.memory.buffer.byteLength) / pageBytes;
      try {
        this.memory.grow(Math.min(wanted, left));
      } catch {
        throw new DeviceError(
          `wasm: the engine refused memory; needs ${size} bytes more; got ${this.bytesInUse} bytes in use`,
          { need: this.bytesInUse + size, limit: this.memory.buffer.byteLength },
        );
      }
    }
    const address = this.top;
    this.top += size;
    return address;
  }

  /** Takes the smallest free block of at least `size` and at most `largest` bytes; the rest of it stays free. */
  private fit(size: number, largest: number): number | undefined {
    const sizes = [...this.free].filter(([own, list]) => own >= size && own <= largest && list.length > 0);
    if (sizes.length === 0) return undefined;
    const best = Math.min(...sizes.map(([own]) => own));
    const address = this.free.get(best)!.pop()!;
    this.freeBlocks.delete(address);
    if (best > size) this.keepFree(address + size, best - size);
    return address;
  }

  private keepFree(address: number, size: number): void {
    this.freeBlocks.set(address, size);
    const list = this.free.get(size);
    if (list) list.push(address);
    else this.free.set(size, [address]);
  }

  /** Joins neighbouring free blocks, and gives those at the end back to the unused rest. */
  private compact(): void {
    const sorted = [...this.freeBlocks].sort(([a], [b]) => a - b);
    this.freeBlocks.clear();
    this.free.clear();
    let current: [number, number] | null = null;
    const keep = (block: [number, number]) => {
      if (block[0] + block[1] === this.top) this.top = block[0];
      else this.keepFree(...block);
    };
    for (const [address, size] of sorted) {
      if (current && current[0] + current[1] === address) current[1] += size;
      else {
        if (current) keep(current);
        current = [address, size];
      }
    }
    if (current) keep(current);
  }
}

function sizeClass(bytes: number): number {
  return Math.max(alignment, Math.ceil(bytes / alignment) * alignment);
}

/** Blocks that are freed together. */
export class BlockSet {
  private readonly memory: DeviceMemory;
  private readonly addresses: number[] = [];

  constructor(memory: DeviceMemory) {
    this.memory = memory;
  }

  /** @throws DeviceError when the memory is used up */
  allocate(bytes: number): number {
    const address = this.memory.allocate(bytes);
    this.addresses.push(address);
    return address;
  }

  release(): void {
    for (const address of this.addresses.splice(0)) this.memory.release(address);
  }
}

/** A memory with the largest maximum that the engine grants: a shared one is reserved in whole, which phones refuse. */
function reserve(shared: boolean): { memory: WasmMemory; pages: number } {
  for (let pages = maxPages; ; pages /= 2) {
    try {
      return { memory: new engine.Memory({ initial: 16, maximum: pages, shared }), pages };
    } catch (error) {
      if (pages <= 1024) throw new DeviceError(`wasm: the engine refused a memory of 64 MiB: ${error}`);
    }
  }
}
