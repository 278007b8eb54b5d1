import { ops } from '@deftjs/tensor';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { openWasmNode } from '../../../packages/tensor/src/node/wasm.ts';
import type { WasmDevice } from '../../../packages/tensor/src/wasm/index.ts';
import { expectSamplesAgree, expectSpecialValues } from '../../support/ops-on-device.ts';

describe('every op on wasm', () => {
  let device: WasmDevice;
  beforeAll(async () => {
    device = await openWasmNode({ threads: 2 });
  });
  afterAll(() => device.close());

  test.each(ops.map((op) => [op.name, op] as const))('%s agrees with its samples', (_, op) =>
    expectSamplesAgree(device, op),
  );

  test('special values go through elementwise ops as their definitions say', () =>
    expectSpecialValues(device, ops));
});
