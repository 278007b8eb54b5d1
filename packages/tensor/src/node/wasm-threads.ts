import { Worker } from 'node:worker_threads';
import type { WasmMemory } from '../wasm/engine.ts';
import type { Thread } from '../wasm/index.ts';
import { threadSource } from '../wasm/index.ts';

const prologue = `
const { parentPort, workerData: memory } = require('node:worker_threads');
const listen = (callback) => parentPort.on('message', callback);
`;

/** Starts a worker thread on the memory, which does not keep the process alive. */
export function startWorkerThread(memory: WasmMemory): Promise<Thread> {
  // The worker runs plain JavaScript: loaders that this process was started with are of no use to it.
  const worker = new Worker(prologue + threadSource, { eval: true, workerData: memory, execArgv: [] });
  return new Promise((resolve, reject) => {
    worker.once('error', reject);
    worker.once('online', () => {
      worker.unref();
      resolve({
        post: (message) => worker.postMessage(message),
        terminate: async () => {
          await worker.terminate();
        },
      });
    });
  });
}
