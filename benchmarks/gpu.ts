/** WebGPU for contenders that were written for browsers: the adapter that this engine takes, as `navigator.gpu`. */
import { availableParallelism } from 'node:os';
import { describeSearch, searchAdapter } from '@deftjs/tensor/node';
import { globals } from 'webgpu';
import { sleepingWait } from '../packages/tensor/src/node/webgpu.ts';

/**
 * Defines WebGPU's globals and makes waiting for the device sleep, as this engine does; the adapter's name for people.
 * @throws Error when no adapter answers
 */
export async function provideWebGPU(): Promise<string> {
  const search = await searchAdapter();
  if (search.found === null) throw new Error(describeSearch(search));
  Object.assign(globalThis, globals);
  const gpu = {
    wgslLanguageFeatures: new Set<string>(),
    getPreferredCanvasFormat: () => 'bgra8unorm',
    requestAdapter: async () => withSleepingDevices((await searchAdapter()).found!.adapter),
  };
  provideNavigator({ gpu });
  return search.found.choice.description;
}

/** Defines a `navigator`, which Node 20 has not. */
export function provideNavigator(more: object): void {
  const value = { userAgent: 'node', hardwareConcurrency: availableParallelism(), ...more };
  Object.defineProperty(globalThis, 'navigator', { value, configurable: true });
}

/** The adapter, whose devices sleep while they are waited for. */
function withSleepingDevices(adapter: GPUAdapter): GPUAdapter {
  const requestDevice = adapter.requestDevice.bind(adapter);
  adapter.requestDevice = async (descriptor = {}) => {
    // TensorFlow.js gives features in an array within the array, which Dawn refuses.
    const requiredFeatures = (
      [...(descriptor.requiredFeatures ?? [])] as unknown[]
    ).flat() as GPUFeatureName[];
    const device = await requestDevice({ ...descriptor, requiredFeatures });
    const { queue } = device;
    const workDone = queue.onSubmittedWorkDone.bind(queue);
    queue.onSubmittedWorkDone = () => sleepingWait(workDone());
    const createBuffer = device.createBuffer.bind(device);
    device.createBuffer = (layout) => {
      const buffer = createBuffer(layout);
      const mapAsync = buffer.mapAsync.bind(buffer);
      buffer.mapAsync = (...range) => sleepingWait(mapAsync(...range));
      return buffer;
    };
    return device;
  };
  return adapter;
}
