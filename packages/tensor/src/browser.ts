/** Opening devices in a browser: the `./browser` entry point. */
import { type DeviceName, type OpenedDevice, setDevice } from './device.ts';
import { DeviceError } from './errors.ts';
import { referenceDevice } from './reference.ts';

/**
 * Opens a device (loading its code only then) and makes it the one that evaluates tensors. WebAssembly takes all
 * processors where the page is cross-origin isolated, which lets threads share memory, else one; WebGPU has
 * WebAssembly on one thread as its companion.
 * @throws DeviceError when WebGPU is asked for and the browser offers none
 */
export async function openDevice(name: DeviceName = 'auto'): Promise<OpenedDevice> {
  const opened = await open(name);
  setDevice(opened.device);
  return opened;
}

async function open(name: DeviceName): Promise<OpenedDevice> {
  if (name === 'reference') return { device: referenceDevice(), why: 'reference: float64 interpreter' };
  const adapter = name === 'wasm' ? null : await findAdapter(name === 'webgpu');
  if (adapter !== null) {
    const [{ openWebGPU }, { openWasm }] = await Promise.all([
      import('./webgpu/index.ts'),
      import('./wasm/index.ts'),
    ]);
    const device = await openWebGPU(adapter, { companion: await openWasm({ threads: 1 }) });
    return { device, why: `webgpu: ${device.description}` };
  }
  if (name === 'webgpu') throw new DeviceError('openDevice: the browser offers no WebGPU adapter');
  const { openWasm } = await import('./wasm/index.ts');
  const device = await openWasm();
  const why = name === 'wasm' ? 'asked for' : 'no WebGPU hardware adapter answers';
  return { device, why: `wasm: ${device.description} (${why})` };
}

async function findAdapter(software: boolean): Promise<GPUAdapter | null> {
  const { navigator } = globalThis as { navigator?: { gpu?: GPU } };
  const adapter = (await navigator?.gpu?.requestAdapter({ powerPreference: 'high-performance' })) ?? null;
  return adapter?.info.isFallbackAdapter && !software ? null : adapter;
}
