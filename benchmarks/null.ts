/** A device on Dawn's null backend, which validates everything and computes nothing. */
import { create } from 'webgpu';
import { openWebGPUNode } from '../packages/tensor/src/node/webgpu.ts';
import type { WebGPUDevice } from '../packages/tensor/src/webgpu/index.ts';

/** @throws Error when this build of Dawn has no such backend */
export async function openNull(): Promise<WebGPUDevice> {
  const gpu = create(['backend=null']);
  const adapter = await gpu.requestAdapter();
  if (adapter === null) throw new Error('Dawn has no null backend here');
  const choice = { kind: 'hardware', why: '', description: 'null backend', isSoftware: true } as const;
  return openWebGPUNode({ gpu, adapter, choice });
}
