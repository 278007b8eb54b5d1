import { expect, test } from 'vitest';
import { globals } from 'webgpu';
import { describeWebGPU, testDevice } from '../support/webgpu.ts';

const { GPUBufferUsage, GPUMapMode } = globals as unknown as typeof globalThis;

const DOUBLE = /* wgsl */ `
  @group(0) @binding(0) var<storage, read_write> x: array<f32>;
  @compute @workgroup_size(64)
  fn main(@builtin(global_invocation_id) id: vec3u) { x[id.x] = 2 * x[id.x]; }`;

/** The values doubled on the device; their number is a multiple of 64. */
async function double(device: GPUDevice, values: Float32Array<ArrayBuffer>): Promise<Float32Array> {
  const pipeline = await device.createComputePipelineAsync({
    layout: 'auto',
    compute: { module: device.createShaderModule({ code: DOUBLE }) },
  });
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const data = device.createBuffer({ size: values.byteLength, usage: STORAGE | COPY_SRC | COPY_DST });
  const readback = device.createBuffer({ size: values.byteLength, usage: MAP_READ | COPY_DST });
  device.queue.writeBuffer(data, 0, values);
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  const entries = [{ binding: 0, resource: { buffer: data } }];
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(values.length / 64);
  pass.end();
  encoder.copyBufferToBuffer(data, 0, readback, 0, values.byteLength);
  device.queue.submit([encoder.finish()]);
  await readback.mapAsync(GPUMapMode.READ);
  return new Float32Array(readback.getMappedRange().slice(0));
}

describeWebGPU('a WebGPU device', () => {
  test('computes what its shader says', async () => {
    await using gpu = await testDevice();
    const x = Float32Array.from({ length: 256 }, (_, i) => i - 100.5);
    expect(await double(gpu.device, x)).toEqual(x.map((v) => 2 * v));
  });

  test('can be opened again after it was destroyed', async () => {
    for (let round = 0; round < 3; round++) {
      await using gpu = await testDevice();
      expect((await double(gpu.device, new Float32Array(64).fill(round)))[63]).toBe(2 * round);
    }
  });

  test('reports a validation error when its scope ends', async () => {
    const opened = testDevice().then(async (gpu) => {
      await using owned = gpu;
      owned.device.createBuffer({ size: 4, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE });
    });
    await expect(opened).rejects.toThrow(/WebGPU reported/);
  });
});
