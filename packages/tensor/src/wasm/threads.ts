/** Worker threads that share the device's memory. How a worker is started depends on where we run. */

import type { WasmMemory, WasmModule } from './engine.ts';

/** A started worker. Messages arrive in order. */
export interface Thread {
  post(message: ThreadMessage): void;
  terminate(): Promise<void>;
}

/** Starts a worker that evaluates `threadSource`; resolves when it listens. */
export type StartThread = (memory: WasmMemory) => Promise<Thread>;

export type ThreadMessage =
  /** A module, and the address of its tables. */
  | { readonly kind: 'program'; readonly id: number; readonly module: WasmModule; readonly tables: number }
  /** Arguments of "main"; failedWord is the index of the word that says so when a thread fails. */
  | {
      readonly kind: 'run';
      readonly id: number;
      readonly args: readonly number[];
      readonly failedWord: number;
    }
  | { readonly kind: 'forget'; readonly id: number };

/**
 * Plain JavaScript, so that it starts from TypeScript sources and from a bundle alike. It expects `memory` and
 * `listen(callback)`, which the platform's prologue defines.
 */
export const threadSource = `
const programs = new Map();
listen((message) => {
  if (message.kind === 'program') {
    const env = { memory, tables: message.tables };
    programs.set(message.id, new WebAssembly.Instance(message.module, { env }).exports.main);
  } else if (message.kind === 'forget') {
    programs.delete(message.id);
  } else {
    try {
      programs.get(message.id)(...message.args);
    } catch {
      // The thread that started the run is told, and reports it.
      Atomics.store(new Int32Array(memory.buffer), message.failedWord, 1);
    }
  }
});
`;

/** What is used of a browser's Worker. */
interface WebWorker {
  onmessage: (() => void) | null;
  onerror: ((event: { readonly message: string }) => void) | null;
  postMessage(message: unknown): void;
  terminate(): void;
}

interface BrowserScope {
  readonly crossOriginIsolated?: boolean;
  readonly Worker?: new (url: string) => WebWorker;
}

/** Workers of a cross-origin-isolated page or worker; null where threads cannot share memory. */
export function browserThreads(): StartThread | null {
  const { crossOriginIsolated, Worker } = globalThis as unknown as BrowserScope;
  if (crossOriginIsolated !== true || Worker === undefined) return null;
  return (shared) => {
    const source = `
      const listen = (callback) => { onmessage = ({ data }) => callback(data); };
      onmessage = ({ data: memory }) => { ${threadSource}; postMessage('ready'); };
    `;
    const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
    const worker = new Worker(url);
    return new Promise((resolve, reject) => {
      worker.onerror = (event) => reject(new Error(`wasm: a worker did not start: ${event.message}`));
      worker.onmessage = () => {
        URL.revokeObjectURL(url);
        resolve({
          post: (message) => worker.postMessage(message),
          terminate: async () => worker.terminate(),
        });
      };
      worker.postMessage(shared);
    });
  };
}
