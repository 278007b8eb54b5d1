import { type Device, type DeviceName, type OpenedDevice, setDevice } from '../device.ts';
import { DeviceError } from '../errors.ts';
import { referenceDevice } from '../reference.ts';
import { describeSearch, type ResolvedAdapter, searchAdapter } from './adapter.ts';

export type { DeviceName, OpenedDevice } from '../device.ts';

/**
 * Opens a device (loading its code only then) and makes it the one that evaluates tensors. One on WebGPU has wasm on
 * one thread as its companion, unless `$DEFT_COMPANION` is `off`.
 * @throws DeviceError when no adapter answers to a request for WebGPU; RangeError when `$DEFT_COMPANION` is another word
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
    return { device: await openWebGPUWithCompanion(search.found), why: describeSearch(search) };
  }
  if (name === 'webgpu') throw new DeviceError(describeSearch(search));
  return openWasm('no WebGPU hardware adapter answers');
}

async function openWebGPUWithCompanion(found: ResolvedAdapter): Promise<Device> {
  const word = process.env.DEFT_COMPANION || 'on';
  if (word !== 'on' && word !== 'off') {
    throw new RangeError(`DEFT_COMPANION: expected on or off; got ${word}`);
  }
  const [{ openWebGPUNode }, { openWasmNode }] = await Promise.all([
    import('./webgpu.ts'),
    import('./wasm.ts'),
  ]);
  return openWebGPUNode(found, word === 'on' ? { companion: await openWasmNode({ threads: 1 }) } : {});
}

async function openWasm(why: string): Promise<OpenedDevice> {
  const { openWasmNode } = await import('./wasm.ts');
  const device = await openWasmNode();
  return { device, why: `wasm: ${device.description} (${why})` };
}
