import { ops } from '@deftjs/tensor';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openWasmNode } from '../../../packages/tensor/src/node/wasm.ts';
import type { WasmDevice } from '../../../packages/tensor/src/wasm/index.ts';
import { composites } from '../../support/composites/index.ts';
import { expectCasesAgree, expectSamplesAgree, expectSpecialValues } from '../../support/ops-on-device.ts';

const full = { samples: 12, ways: 'every' } as const;

describe('on wasm', () => {
  let device: WasmDevice;
  let compared = 0;
  beforeAll(async () => {
    device = await openWasmNode({ threads: 2 });
  });
  afterAll(async () => {
    await device.close();
    console.log(`wasm: ${compared} results of ops and functions compared with float64`);
  });

  test.each(ops.map((op) => [op.name, op] as const))(
    'the op %s agrees with its definition',
    async (_, op) => {
      compared += await expectSamplesAgree(device, op, full);
      expect(compared).toBeGreaterThan(0);
    },
  );

  test.each(Object.entries(composites))('%s agrees with the reference', async (name, { valid }) => {
    compared += await expectCasesAgree(device, name, valid, full);
  });

  test('special values go through elementwise ops as their definitions say', () =>
    expectSpecialValues(device, ops));
});
