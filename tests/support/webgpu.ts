import { type ResolvedAdapter, resolveAdapter } from '@deftjs/tensor/node';
import { describe } from 'vitest';

/** Whether this run has a WebGPU adapter; decided once per run by adapter-setup.ts. */
export const hasWebGPU = process.env.DEFT_ADAPTER !== 'none';

/** Declares a suite that needs a WebGPU adapter: without one it is skipped, loudly, and counted as skipped. */
export function describeWebGPU(name: string, suite: () => void): void {
  if (!hasWebGPU) console.warn(`SKIPPED, no WebGPU adapter: ${name}`);
  describe.skipIf(!hasWebGPU)(name, suite);
}

/**
 * A fresh adapter of the kind this run tests on.
 * @throws when the adapter found at the start of the run does not answer any more
 */
export async function testAdapter(): Promise<ResolvedAdapter> {
  const found = await resolveAdapter();
  if (found === null)
    throw new Error(`testAdapter: no adapter answers; DEFT_ADAPTER=${process.env.DEFT_ADAPTER}`);
  return found;
}

/** A device that ends with its scope: `await using test = await testDevice()`. */
export interface TestDevice extends AsyncDisposable {
  readonly device: GPUDevice;
  readonly choice: ResolvedAdapter['choice'];
}

/**
 * A device whose validation and memory errors fail the scope that it ends with: they are silent by default.
 * @throws when no adapter answers
 */
export async function testDevice(descriptor: GPUDeviceDescriptor = {}): Promise<TestDevice> {
  const { adapter, choice } = await testAdapter();
  const device = await adapter.requestDevice(descriptor);
  const errors: string[] = [];
  device.addEventListener('uncapturederror', (event) => {
    event.preventDefault(); // or Dawn prints it as well
    errors.push(event.error.message);
  });
  return {
    device,
    choice,
    async [Symbol.asyncDispose]() {
      await device.queue.onSubmittedWorkDone();
      device.destroy();
      await device.lost;
      if (errors.length > 0) throw new Error(`WebGPU reported:\n${errors.join('\n')}`);
    },
  };
}

/** What an adapter is to offer less of, or more. */
export interface Offer {
  /** No optional feature, and the limits that WebGPU guarantees. */
  readonly weakest?: boolean;
  /** Features that are not in WebGPU yet. */
  readonly experimental?: boolean;
}

/** Dawn's null backend: it validates everything and computes nothing, in no time and on any machine. */
export async function nullAdapter({
  weakest = false,
  experimental = false,
}: Offer = {}): Promise<GPUAdapter> {
  const { create } = await import('webgpu');
  const flags = experimental ? ['enable-dawn-features=allow_unsafe_apis'] : [];
  nullInstances[Number(experimental)] ??= create(['backend=null', ...flags]); // must outlive its devices
  const adapter = await nullInstances[Number(experimental)]!.requestAdapter();
  if (adapter === null) throw new Error('nullAdapter: Dawn has no null backend here');
  return weakest ? weakestOf(adapter) : adapter;
}

const nullInstances: GPU[] = [];

/** The adapter as the weakest that there may be: devices come with default limits and without optional features. */
export function weakestOf(adapter: GPUAdapter): GPUAdapter {
  const limits = {
    maxStorageBufferBindingSize: 2 ** 27,
    maxBufferSize: 2 ** 28,
    maxStorageBuffersPerShaderStage: 8,
    maxComputeWorkgroupStorageSize: 16384,
    maxComputeInvocationsPerWorkgroup: 256,
    maxComputeWorkgroupSizeX: 256,
  };
  return {
    info: adapter.info,
    features: new Set<GPUFeatureName>(),
    limits,
    requestDevice: (descriptor: GPUDeviceDescriptor) => {
      const asked = [...(descriptor.requiredFeatures ?? [])];
      if (asked.length > 0) throw new TypeError(`weakestOf: features asked for: ${asked.join(', ')}`);
      return adapter.requestDevice({ requiredLimits: limits });
    },
  } as unknown as GPUAdapter;
}
