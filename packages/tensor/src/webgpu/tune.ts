/**
 * How contractions are tiled: by rule, by what was measured before on such an adapter, or by measuring now.
 *
 * Every tiling adds the products of an element in the same order, so a choice changes no bit of any result: it is free
 * to differ from machine to machine and from run to run.
 */
import type { ContractKernel } from '../kernel.ts';
import type { Buffers } from './bindings.ts';
import { emitContract } from './contract.ts';
import type { WebGPUDevice } from './device.ts';
import { fitsIn } from './sharedTile.ts';
import { timeLaunch } from './time.ts';

/** Tiles of so many rows: to a team of lanes (broadcastTile.ts) or to an invocation (sharedTile.ts: both other kinds). */
export interface Tiling {
  readonly kind: 'broadcast' | 'shared' | 'large';
  readonly height: number;
}

/** The tiling of a shape class, or undefined for that by rule. */
export type Choose = (shapeClass: string) => Tiling | undefined;

/** Every tiling there is to choose from. */
export const tilings: readonly Tiling[] = [
  { kind: 'broadcast', height: 4 },
  { kind: 'broadcast', height: 8 },
  { kind: 'broadcast', height: 16 },
  { kind: 'shared', height: 2 },
  { kind: 'shared', height: 4 },
  { kind: 'shared', height: 8 },
  { kind: 'large', height: 8 },
];

/**
 * `off`: tilings by rule. `cached`: those measured before, by rule where none were. `measure`: measures shape classes
 * that have none, which takes up to seconds each, and remembers them.
 */
export type Tune = 'off' | 'cached' | 'measure';

/** Tilings by shape class. */
export type Tunings = { readonly [shapeClass: string]: Tiling };

/** Where measured tilings are kept, for each adapter (its description). What it holds is checked, not trusted. */
export interface TuningStore {
  load(adapter: string): Promise<unknown>;
  save(adapter: string, tunings: Tunings): Promise<void>;
}

/** Multiply-adds below which a contraction is not worth measuring. */
const WORTHWHILE = 2 ** 22;

export class Tuner {
  readonly #adapter: string;
  readonly #store: TuningStore | undefined;
  readonly #tunings: Map<string, Tiling>;
  readonly #measures: boolean;
  /** Measurements run one after the other, or they would time each other. */
  #queue: Promise<void> = Promise.resolve();

  private constructor(mode: Tune, adapter: string, store: TuningStore | undefined, known: Tunings) {
    this.#measures = mode === 'measure';
    this.#adapter = adapter;
    this.#store = store;
    this.#tunings = new Map(Object.entries(known));
  }

  /** What is known of the adapter. A store that cannot be read knows nothing. */
  static async open(mode: Tune, adapter: string, store: TuningStore | undefined): Promise<Tuner> {
    const stored = mode === 'off' ? null : await store?.load(adapter).catch(() => null);
    return new Tuner(mode, adapter, store, knownTilings(stored));
  }

  /** The tilings that were measured. */
  get tunings(): Tunings {
    return Object.fromEntries(this.#tunings);
  }

  readonly choose: Choose = (shapeClass) => this.#tunings.get(shapeClass);

  /** Measures what is worth it and has no tiling yet. */
  measure(device: WebGPUDevice, kernels: readonly ContractKernel[], buffers: Buffers): Promise<void> {
    if (!this.#measures) return Promise.resolve();
    this.#queue = this.#queue.then(async () => {
      const before = this.#tunings.size;
      for (const kernel of kernels) await this.#measureOne(device, kernel, buffers);
      if (this.#tunings.size > before) await this.#store?.save(this.#adapter, this.tunings);
    });
    return this.#queue;
  }

  async #measureOne(device: WebGPUDevice, kernel: ContractKernel, buffers: Buffers): Promise<void> {
    const { capabilities } = device;
    const sizes = [...kernel.batch, ...kernel.m, ...kernel.n, ...kernel.k];
    if (sizes.reduce((product, size) => product * size, 1) < WORTHWHILE) return;
    let shapeClass = '';
    emitContract(kernel, buffers, capabilities, (own) => {
      shapeClass = own;
      return undefined;
    });
    if (this.#tunings.has(shapeClass)) return;
    // Workgroup memory on an adapter that computes on the CPU is slow to use, and slower to compile.
    const { software, maxWorkgroupStorageBytes } = capabilities;
    const candidates = tilings.filter(
      ({ kind }) => kind === 'broadcast' || (!software && fitsIn(kind, maxWorkgroupStorageBytes)),
    );
    let best = Number.POSITIVE_INFINITY;
    for (const tiling of candidates) {
      const milliseconds = await timeLaunch(
        device,
        emitContract(kernel, buffers, capabilities, () => tiling),
      );
      if (milliseconds >= best) continue;
      best = milliseconds;
      this.#tunings.set(shapeClass, tiling);
    }
  }
}

/** The entries that are tilings of ours: files may be old, or damaged. */
function knownTilings(stored: unknown): Tunings {
  if (typeof stored !== 'object' || stored === null) return {};
  return Object.fromEntries(
    Object.entries(stored as Record<string, Partial<Tiling> | null>).flatMap(([shapeClass, entry]) => {
      const own = tilings.find(({ kind, height }) => kind === entry?.kind && height === entry?.height);
      return own ? [[shapeClass, own]] : [];
    }),
  );
}
