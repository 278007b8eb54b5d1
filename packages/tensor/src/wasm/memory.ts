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
  private top = marginBytes;
  private readonly blocks = new Map<number, number>();
  private readonly free = new Map<number, number[]>();
  private readonly freeBlocks = new Map<number, number>();

  constructor(shared: boolean) {
    this.memory = new engine.Memory({ initial: 16, maximum: maxPages, shared });
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
    this.freeBlocks.set(address, size);
    const list = this.free.get(size);
    if (list) list.push(address);
    else this.free.set(size, [address]);
  }

  private extend(size: number): number {
    const limit = maxPages * pageBytes - marginBytes;
    if (this.top + size > limit) this.compact();
    const joined = this.free.get(size)?.pop() ?? this.fit(size);
    if (joined !== undefined) return joined;
    if (this.top + size > limit) {
      throw new DeviceError(
        `wasm: out of memory; needs ${size} bytes more; got ${this.bytesInUse} bytes in use of ${limit}`,
      );
    }
    const missing = this.top + size + marginBytes - this.memory.buffer.byteLength;
    if (missing > 0) {
      // Grown by an eighth at least, so that a run of small requests does not grow it one by one.
      const wanted = Math.ceil(Math.max(missing, this.memory.buffer.byteLength / 8) / pageBytes);
      const left = maxPages - this.memory.buffer.byteLength / pageBytes;
      try {
        this.memory.grow(Math.min(wanted, left));
      } catch {
        throw new DeviceError(
          `wasm: the engine refused memory; needs ${size} bytes more; got ${this.bytesInUse} bytes in use`,
        );
      }
    }
    const address = this.top;
    this.top += size;
    return address;
  }

  /** The smallest free block that holds the size, if it wastes at most a quarter of it. */
  private fit(size: number): number | undefined {
    let best: number | undefined;
    for (const [candidate, list] of this.free) {
      if (
        list.length > 0 &&
        candidate >= size &&
        candidate <= size * 1.25 &&
        candidate < (best ?? Infinity)
      ) {
        best = candidate;
      }
    }
    if (best === undefined) return undefined;
    const address = this.free.get(best)!.pop()!;
    this.freeBlocks.delete(address);
    // The block keeps its size, which release needs to know.
    this.free.set(size, this.free.get(size) ?? []);
    return this.split(address, best, size);
  }

  private split(address: number, whole: number, size: number): number {
    if (whole > size) {
      const rest = address + size;
      this.freeBlocks.set(rest, whole - size);
      const list = this.free.get(whole - size);
      if (list) list.push(rest);
      else this.free.set(whole - size, [rest]);
    }
    return address;
  }

  /** Joins neighbouring free blocks, and gives those at the end back to the unused rest. */
  private compact(): void {
    const sorted = [...this.freeBlocks].sort(([a], [b]) => a - b);
    this.freeBlocks.clear();
    this.free.clear();
    let current: [number, number] | null = null;
    const keep = (block: [number, number]) => {
      if (block[0] + block[1] === this.top) {
        this.top = block[0];
        return;
      }
      this.freeBlocks.set(block[0], block[1]);
      const list = this.free.get(block[1]);
      if (list) list.push(block[0]);
      else this.free.set(block[1], [block[0]]);
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
