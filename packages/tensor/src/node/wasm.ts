import { availableParallelism } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { openWasm, type WasmDevice } from '../wasm/index.ts';
import { startWorkerThread } from './wasm-threads.ts';

/**
 * A WebAssembly device with worker threads and, where the engine can, fused multiply-add.
 *
 * @param options.threads threads in all; default: `$DEFT_THREADS`, else the number of processors
 * @throws Error when `$DEFT_THREADS` is no whole number >= 1
 */
export async function openWasmNode(options: { readonly threads?: number } = {}): Promise<WasmDevice> {
  // Node 20 has relaxed SIMD behind a flag, which takes effect for modules compiled from now on.
  setFlagsFromString('--experimental-wasm-relaxed-simd');
  const threads = options.threads ?? threadsFromEnvironment() ?? availableParallelism();
  return openWasm({ threads, startThread: startWorkerThread });
}

function threadsFromEnvironment(): number | undefined {
  const text = process.env.DEFT_THREADS;
  if (!text) return undefined;
  const threads = Number(text);
  if (!Number.isInteger(threads) || threads < 1) {
    throw new Error(`DEFT_THREADS: expected a whole number >= 1; got ${text}`);
  }
  return threads;
}
