/** Opening a WebGPU device in Node. */
import { DeviceError } from '../errors.ts';
import { openWebGPU, type WebGPUDevice, type WebGPUOptions } from '../webgpu/index.ts';
import { type AdapterRequest, describeSearch, type ResolvedAdapter, searchAdapter } from './adapter.ts';
import { cachedTunings, tuneFromEnvironment } from './tunings.ts';

/** How long a wait sleeps between looks at the device, at most. */
const LONGEST_SLEEP_MS = 2;

/** Instances of Dawn whose adapters have become devices: a device that outlives its instance crashes the process. */
const outliving = new Set<GPU>();

/**
 * A WebGPU device on an adapter that was found, or on the best one for the request. Contractions are tiled as
 * `$DEFT_TUNE` says (`off`, `cached`, `measure`; see `Tune`), with measured tilings in the cache folder.
 * @throws DeviceError with every adapter tried, when none answers; RangeError when `$DEFT_TUNE` is another word
 */
export async function openWebGPUNode(
  from: ResolvedAdapter | AdapterRequest = {},
  options: Omit<WebGPUOptions, 'wait'> = {},
): Promise<WebGPUDevice> {
  const { gpu, adapter } = 'adapter' in from ? from : await find(from);
  outliving.add(gpu);
  const tuning = { tune: tuneFromEnvironment(), tunings: cachedTunings };
  return openWebGPU(adapter, { ...tuning, ...options, wait: sleepingWait });
}

async function find(request: AdapterRequest): Promise<ResolvedAdapter> {
  const search = await searchAdapter(request);
  if (search.found === null) throw new DeviceError(`openWebGPUNode: ${describeSearch(search)}`);
  return search.found;
}

const sleeper = new Int32Array(new SharedArrayBuffer(4));

/**
 * What the promise settles to. Dawn's Node binding polls in a busy loop while a promise is pending, which takes a
 * core away from an adapter that computes on the CPU; this sleeps between polls, longer the longer it has waited.
 */
export async function sleepingWait<T>(pending: Promise<T>): Promise<T> {
  let settled = false;
  const done = () => {
    settled = true;
  };
  pending.then(done, done);
  const start = performance.now();
  while (!settled) {
    await new Promise((resolve) => setImmediate(resolve));
    if (settled) break;
    const waited = performance.now() - start;
    // Short waits stay prompt: no sleep is longer than a fifth of the time waited so far.
    if (waited > 0.25) Atomics.wait(sleeper, 0, 0, Math.min(LONGEST_SLEEP_MS, waited / 5));
  }
  return pending;
}
