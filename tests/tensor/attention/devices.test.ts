import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openWasmNode } from '../../../packages/tensor/src/node/wasm.ts';
import type { WasmDevice } from '../../../packages/tensor/src/wasm/index.ts';
import { openWebGPU } from '../../../packages/tensor/src/webgpu/index.ts';
import { attentionOutputs, type Case, expectAttention } from '../../support/attention-cases.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';
import { graphOf, runDevice } from '../compiler/execute.ts';

const plain: Case = {
  heads: 1,
  queries: 70,
  keys: 161,
  width: 12,
  valueWidth: 8,
  causal: false,
  mask: 'none',
};

const cases: readonly Case[] = [
  plain,
  { ...plain, heads: 3, queries: 150, keys: 203, width: 33, valueWidth: 5, causal: true },
  { ...plain, keys: 77, width: 40, mask: 'bool' },
  { ...plain, queries: 300, keys: 9, causal: true, mask: 'floats' },
  { ...plain, queries: 1, width: 1, valueWidth: 1 },
  { ...plain, queries: 9, width: 256, valueWidth: 200 },
];

describe('attention on wasm', () => {
  let device: WasmDevice;
  beforeAll(async () => {
    device = await openWasmNode({ threads: 2 });
  });
  afterAll(() => device.close());

  test.each(cases)('agrees with its definition: %o', (drawn) => expectAttention(device, drawn));

  test('has the same bits for any number of threads', async () => {
    const graph = graphOf(attentionOutputs({ ...plain, keys: 700 }));
    const one = await openWasmNode({ threads: 1 });
    expect(await runDevice(one, graph)).toEqual(await runDevice(device, graph));
    await one.close();
  });
});

describeWebGPU('attention on WebGPU', () => {
  const variants = {
    'with scores kept': {},
    'block by block, by subgroups': { keptScores: 0 },
    'block by block, by single invocations': { keptScores: 0, subgroupSize: 0 },
    'block by block, sharing memory': { keptScores: 0, software: false },
    'with halves packed and few buffers': { keptScores: 0, f16: false, maxStorageBuffers: 8 },
  };
  // One case: a software driver takes seconds to compile these kernels.
  const drawn: Case = {
    heads: 2,
    queries: 37,
    keys: 70,
    width: 8,
    valueWidth: 4,
    causal: true,
    mask: 'floats',
  };

  test.each(Object.entries(variants))(
    '%s, agrees with its definition',
    async (_name, capabilities) => {
      const device = await openWebGPU((await testAdapter()).adapter, { capabilities });
      await expectAttention(device, drawn);
      await device.close();
    },
    600_000,
  );
});
