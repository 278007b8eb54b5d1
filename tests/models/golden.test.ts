import { openDevice } from '@deftjs/tensor/node';
import { describe, expect, it } from 'vitest';
import { verifyCase } from '../../packages/trainer/src/verify/index.ts';
import { caseFolder } from './goldenCase.ts';

const transformers = ['dit-tiny', 'flux-tiny', 'omnigen-tiny', 't5-tiny', 't5-relu-tiny'];
const pipelines = ['vae-tiny', 'sd-tiny-pipeline', 'train-dreambooth-deft-qr', 'train-dreambooth-deft-relu'];

async function expectAgreement(name: string, kind: 'reference' | 'wasm'): Promise<void> {
  const { device } = await openDevice(kind);
  const checks = await verifyCase(caseFolder(name), device);
  expect(checks.filter(({ ok }) => !ok)).toEqual([]);
  expect(checks.length).toBeGreaterThan(0);
  await device.close();
}

describe('golden cases on wasm', () => {
  it.each([...pipelines, ...transformers, 'linalg'])('%s: what the library computed', (name) =>
    expectAgreement(name, 'wasm'),
  );
});

describe('golden cases on the reference', () => {
  it.each(transformers)('%s: what the library computed', (name) => expectAgreement(name, 'reference'));
});
