import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openWasm, type WasmDevice } from '../../../packages/tensor/src/wasm/index.ts';
import { expectAgreement } from '../webgpu/agreement.ts';
import { contracts, convolutions, maps, reduces, scatters } from '../webgpu/plans.ts';

// In this process nobody sets the engine's flag: the code is that of browsers without relaxed SIMD and shared memory.
describe('on one thread with WebAssembly as standardised', () => {
  let device: WasmDevice;
  beforeAll(async () => {
    device = await openWasm();
  });
  afterAll(() => device.close());

  test('there is one thread and no fused multiply-add', () => {
    expect(device.description).toBe('WebAssembly SIMD, 1 thread');
  });

  test('kernels of every kind agree with the interpreter', async () => {
    const batch = fc.tuple(maps, maps, reduces, reduces, contracts, contracts, convolutions, scatters);
    await fc.assert(
      fc.asyncProperty(batch, (kernels) => expectAgreement(device, kernels)),
      { numRuns: 8, endOnFailure: true },
    );
  });
});
