/** How long launches take on the device. */
import type { WebGPUDevice } from './device.ts';
import type { Launch } from './launch.ts';

/** Timings of which the fastest counts. */
const TIMINGS = 3;
/**
 * What a timing should last at least, in milliseconds: far more than it takes to submit and to wait. A GPU also has to
 * be kept busy until its clocks are up.
 */
const LONG_ENOUGH = { software: 2, hardware: 10 };
const MOST_REPEATS = 2048;

/** Words of the values that are written to operands, over and over. */
const WORDS = 2 ** 16;

/** Values that are small numbers, read as f32 or as two f16: GPUs are faster on zeros than on data. */
function someNumbers(): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length: WORDS }, (_, i) => {
    const bits = Math.imul(i + 1, 0x9e3779b1) ^ Math.imul(i + 1, 0x85ebca6b);
    return (bits & 0x8fff8fff) | 0x30003000;
  });
}

/**
 * Milliseconds that a launch takes, on buffers of its own with values that mean nothing. Short launches are repeated, so
 * their operands are as near as the adapter's caches keep them.
 */
export async function timeLaunch(device: WebGPUDevice, launch: Launch): Promise<number> {
  const compiled = await device.pipelines.get(launch);
  const leased = launch.bindings.map(({ bytes }) => device.pool.lease(bytes));
  const run = async (group: GPUBindGroup, repeats: number): Promise<number> => {
    const encoder = device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(compiled.pipeline);
    pass.setBindGroup(0, group);
    for (let i = 0; i < repeats; i += 1) pass.dispatchWorkgroups(...launch.workgroups);
    pass.end();
    const started = performance.now();
    device.submit(encoder.finish(), repeats);
    await device.idle();
    return (performance.now() - started) / repeats;
  };
  try {
    const group = device.gpu.createBindGroup({
      label: launch.label,
      layout: compiled.layout,
      entries: leased.map(({ buffer }, binding) => ({ binding, resource: { buffer } })),
    });
    const values = someNumbers();
    launch.bindings.forEach(({ bytes, written }, i) => {
      for (let at = 0; !written && at < bytes; at += values.byteLength) {
        const words = Math.min(bytes - at, values.byteLength) / 4;
        device.gpu.queue.writeBuffer(leased[i]!.buffer, at, values, 0, words);
      }
    });
    await run(group, 1); // compiles
    const once = await run(group, 1);
    const longEnough = device.capabilities.software ? LONG_ENOUGH.software : LONG_ENOUGH.hardware;
    const repeats = Math.min(MOST_REPEATS, Math.ceil(longEnough / Math.min(once, await run(group, 4))));
    let best = Number.POSITIVE_INFINITY;
    for (let i = 0; i < TIMINGS; i += 1) best = Math.min(best, await run(group, repeats));
    return best;
  } finally {
    for (const buffer of leased) device.pool.giveBack(buffer);
  }
}
