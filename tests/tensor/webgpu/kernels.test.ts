import fc from 'fast-check';
import { afterAll, beforeAll, test } from 'vitest';
import { openWebGPU, type WebGPUDevice } from '../../../packages/tensor/src/webgpu/index.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';
import { expectAgreement } from './agreement.ts';
import { contracts, convolutions, maps, reduces, rows, scatters } from './plans.ts';

const kinds = { maps, reduces, rows, contracts, convolutions, scatters };

describeWebGPU('kernels agree with the interpreter', () => {
  let device: WebGPUDevice;
  beforeAll(async () => {
    device = await openWebGPU((await testAdapter()).adapter, {
      capabilities: { maxStorageBuffers: 8 },
    });
  });
  afterAll(() => device.close());

  for (const [name, kind] of Object.entries(kinds)) {
    test(name, async () => {
      const batch = fc.array(kind, { minLength: 6, maxLength: 6 });
      await fc.assert(
        fc.asyncProperty(batch, (kernels) => expectAgreement(device, kernels)),
        { numRuns: 3, endOnFailure: true },
      );
    });
  }
});
