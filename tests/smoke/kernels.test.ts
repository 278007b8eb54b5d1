// Kernels on a driver without f16, whose subgroups have four lanes.
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openWebGPU, type WebGPUDevice } from '../../packages/tensor/src/webgpu/index.ts';
import { describeWebGPU, testAdapter } from '../support/webgpu.ts';
import { expectAgreement } from '../tensor/webgpu/agreement.ts';
import { contracts, convolution, maps, reduces, scatters } from '../tensor/webgpu/plans.ts';

describeWebGPU('kernels on another driver', () => {
  let device: WebGPUDevice;
  beforeAll(async () => {
    device = await openWebGPU((await testAdapter()).adapter, {
      capabilities: { maxStorageBuffers: 8 },
    });
  });
  afterAll(() => device.close());

  test('may lack f16 and have subgroups of four', () => {
    expect(device.capabilities).toMatchObject({ f16: false, subgroupSize: 4, software: true });
  });

  for (const [name, kind] of Object.entries({ maps, reduces, contracts, scatters })) {
    test(`${name} agree with the interpreter`, async () => {
      const batch = fc.array(kind, { minLength: 8, maxLength: 8 });
      await fc.assert(
        fc.asyncProperty(batch, (kernels) => expectAgreement(device, kernels)),
        { numRuns: 3, endOnFailure: true },
      );
    });
  }

  test('large contractions agree with the interpreter', () =>
    expectAgreement(device, [
      convolution({
        batch: 1,
        channels: 24,
        filters: 33,
        size: 13,
        kernel: 3,
        stride: 1,
        padding: 1,
        seed: 1,
      }),
    ]));
});
