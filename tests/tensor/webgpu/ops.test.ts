import { ops } from '@deftjs/tensor';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { openWebGPU, type WebGPUDevice } from '../../../packages/tensor/src/webgpu/index.ts';
import { composites } from '../../support/composites/index.ts';
import { expectCasesAgree, expectSamplesAgree } from '../../support/ops-on-device.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';

// A kernel takes 25 ms and more to compile on a software adapter: fewer samples than on wasm, each met one way. Functions
// share the compiler with wasm and their kernels with the ops: two cases each.
describeWebGPU('on WebGPU', () => {
  let device: WebGPUDevice;
  let compared = 0;
  beforeAll(async () => {
    device = await openWebGPU((await testAdapter()).adapter);
  });
  afterAll(async () => {
    await device.close();
    console.log(`WebGPU: ${compared} results of ops and functions compared with float64`);
  });

  describe('every op', () => {
    test.each(ops.map((op) => [op.name, op] as const))('%s agrees with its definition', async (_, op) => {
      compared += await expectSamplesAgree(device, op, { samples: 12, ways: 'every' });
    });
  });

  describe('every function', () => {
    test.each(Object.entries(composites))('%s agrees with the reference', async (name, { valid }) => {
      compared += await expectCasesAgree(device, name, valid, { samples: 2, ways: 'one' });
    });
  });
});
