import { openDevice } from '@deftjs/tensor/node';
import { describe, expect, it } from 'vitest';
import { verifyCase } from '../../packages/trainer/src/verify/index.ts';
import { caseFolder } from './goldenCase.ts';

describe('golden cases on wasm', () => {
  it.each(['vae-tiny', 'sd-tiny-pipeline', 'train-dreambooth-deft-qr', 'train-dreambooth-deft-relu'])(
    '%s: what the library computed',
    async (name) => {
      const { device } = await openDevice('wasm');
      const checks = await verifyCase(caseFolder(name), device);
      expect(checks.filter(({ ok }) => !ok)).toEqual([]);
      expect(checks.length).toBeGreaterThan(0);
      await device.close();
    },
  );
});
