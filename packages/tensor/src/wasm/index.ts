/** The WebAssembly SIMD backend. */
import { WasmDevice } from './device.ts';
import { browserThreads, type StartThread } from './threads.ts';

export { WasmDevice, WasmStorage } from './device.ts';
export type { StartThread, Thread, ThreadMessage } from './threads.ts';
export { threadSource } from './threads.ts';

export interface WasmOptions {
  /** Threads in all; default: the number of processors, or 1 where threads cannot share memory. */
  readonly threads?: number;
  /** How to start a thread; default: a Worker, in cross-origin-isolated pages. */
  readonly startThread?: StartThread;
}

/**
 * A device that computes with WebAssembly SIMD on the threads of the processor.
 * @throws Error when a worker does not start
 */
export async function openWasm(options: WasmOptions = {}): Promise<WasmDevice> {
  const start = options.startThread ?? browserThreads();
  const processors = (globalThis as { navigator?: { hardwareConcurrency?: number } }).navigator
    ?.hardwareConcurrency;
  const threads = start === null ? 1 : Math.max(1, Math.floor(options.threads ?? processors ?? 1));
  // Only a document's own thread is forbidden to sleep.
  const canSleep = (globalThis as { document?: unknown }).document === undefined;
  return WasmDevice.open({ threads, start, canSleep });
}
