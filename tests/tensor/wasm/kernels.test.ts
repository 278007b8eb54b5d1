import fc from 'fast-check';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { openWasmNode } from '../../../packages/tensor/src/node/wasm.ts';
import type { WasmDevice } from '../../../packages/tensor/src/wasm/index.ts';
import { expectAgreement } from '../webgpu/agreement.ts';
import { contracts, convolutions, maps, reduces, rows, scatters } from '../webgpu/plans.ts';

const kinds = { maps, reduces, rows, contracts, convolutions, scatters };

describe('on two threads with fused multiply-add, kernels agree with the interpreter', () => {
  let device: WasmDevice;
  beforeAll(async () => {
    device = await openWasmNode({ threads: 2 });
  });
  afterAll(() => device.close());

  for (const [name, kind] of Object.entries(kinds)) {
    test(name, async () => {
      const batch = fc.array(kind, { minLength: 6, maxLength: 6 });
      await fc.assert(
        fc.asyncProperty(batch, (kernels) => expectAgreement(device, kernels)),
        { numRuns: 8, endOnFailure: true },
      );
    });
  }
});
