/** Which lane of its subgroup an invocation is. WGSL leaves that open; kernels pass values to neighbours by it. */
import type { Wait } from './device.ts';
import { mapReadMode, usage } from './pool.ts';

/** Invocations that are looked at: those of a workgroup of the kernels that share subgroups out. */
const INVOCATIONS = 128;

/** Whether consecutive invocations of a workgroup are the lanes of its subgroups, in order. */
export async function hasLinearSubgroups(gpu: GPUDevice, subgroupSize: number, wait: Wait): Promise<boolean> {
  const code = `enable subgroups;
@group(0) @binding(0) var<storage, read_write> lanes: array<u32>;
@compute @workgroup_size(${INVOCATIONS})
fn main(@builtin(local_invocation_index) at: u32, @builtin(subgroup_invocation_id) lane: u32) { lanes[at] = lane; }`;
  const bytes = 4 * INVOCATIONS;
  const module = gpu.createShaderModule({ code });
  const pipeline = gpu.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'main' } });
  const lanes = gpu.createBuffer({ size: bytes, usage: usage.storage | usage.copySource });
  const copy = gpu.createBuffer({ size: bytes, usage: usage.mapRead | usage.copyTarget });
  const encoder = gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  const entries = [{ binding: 0, resource: { buffer: lanes } }];
  pass.setBindGroup(0, gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(lanes, 0, copy, 0, bytes);
  gpu.queue.submit([encoder.finish()]);
  await wait(copy.mapAsync(mapReadMode));
  const isLinear = new Uint32Array(copy.getMappedRange()).every((lane, at) => lane === at % subgroupSize);
  for (const buffer of [lanes, copy]) buffer.destroy();
  return isLinear;
}
