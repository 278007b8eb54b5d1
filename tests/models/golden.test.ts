import { openDevice } from '@deftjs/tensor/node';
import { describe, expect, it } from 'vitest';
import { verifyFolder } from '../../packages/trainer/src/verify/index.ts';
import { caseFolder } from './goldenCase.ts';

describe('golden cases on wasm', () => {
  it.each(['vae-tiny', 'sd-tiny-pipeline'])('%s: what the library computed', async (name) => {
    const { device } = await openDevice('wasm');
    const checks = await verifyFolder(caseFolder(name), device);
    expect(checks.filter(({ ok }) => !ok)).toEqual([]);
    expect(checks.length).toBeGreaterThan(0);
    await device.close();
  });
});
