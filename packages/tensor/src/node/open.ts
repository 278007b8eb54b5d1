import { type DeviceName, type OpenedDevice, setDevice } from '../device.ts';
import { DeviceError } from '../errors.ts';
import { referenceDevice } from '../reference.ts';
import { describeSearch, searchAdapter } from './adapter.ts';

export type { DeviceName, OpenedDevice } from '../device.ts';

/**
 * Opens a device (loading its code only then) and makes it the one that evaluates tensors.
 * @throws DeviceError when no adapter answers to a request for WebGPU
 */
export async function openDevice(name: DeviceName = 'auto'): Promise<OpenedDevice> {
  const opened = await open(name);
  setDevice(opened.device);
  return opened;
}

async function open(name: DeviceName): Promise<OpenedDevice> {
  if (name === 'reference') return { device: referenceDevice(), why: 'reference: float64 interpreter' };
  if (name === 'wasm') return openWasm('asked for');
  const search = await searchAdapter({ software: name === 'webgpu' });
  if (search.found) {
    const { openWebGPUNode } = await import('./webgpu.ts');
    return { device: await openWebGPUNode(search.found), why: describeSearch(search) };
  }
  if (name === 'webgpu') throw new DeviceError(describeSearch(search));
  return openWasm('no WebGPU hardware adapter answers');
}

async function openWasm(why: string): Promise<OpenedDevice> {
  const { openWasmNode } = await import('./wasm.ts');
  const device = await openWasmNode();
  return { device, why: `wasm: ${device.description} (${why})` };
}
