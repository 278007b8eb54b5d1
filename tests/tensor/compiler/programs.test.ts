import { openDevice } from '@deftjs/tensor/node';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Device, Graph } from '../../../packages/tensor/src/device.ts';
import { describeWebGPU } from '../../support/webgpu.ts';
import { runDevice, runPlan, runReference } from './execute.ts';
import { programs } from './programs.ts';

/**
 * The interpreter computes in float64, but folded constants are rounded to f32 and results are read as f32: 1e-5 of
 * the largest element. Devices compute in f32: a chain of 14 ops, sums of at most 600 elements, 1e-4.
 */
async function expectAgreement(
  run: (graph: Graph) => Promise<Float64Array[]> | Float64Array[],
  tolerance: number,
  numRuns: number,
): Promise<void> {
  const property = fc.asyncProperty(programs(14), async ({ graph, text }) => {
    const expected = await runReference(graph);
    const got = await run(graph);
    expected.forEach((values, o) => {
      const scale = values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1);
      expect(got[o]!.length).toBe(values.length);
      values.forEach((value, i) => {
        const close = Object.is(got[o]![i], value) || Math.abs(got[o]![i]! - value) <= tolerance * scale;
        if (!close) expect.fail(`output ${o}, element ${i}: ${got[o]![i]} instead of ${value}\n${text}`);
      });
    });
  });
  await fc.assert(property, { numRuns });
}

async function expectDevice(kind: Device['kind'], numRuns: number): Promise<void> {
  const { device } = await openDevice(kind);
  await expectAgreement((graph) => runDevice(device, graph), 1e-4, numRuns);
  await device.close();
}

describe('a random graph', () => {
  it('is what its ops define when compiled', () => expectAgreement(runPlan, 1e-5, 400));
  it('is what its ops define on wasm', () => expectDevice('wasm', 200));
});

describeWebGPU('a random graph', () => {
  it('is what its ops define on WebGPU', () => expectDevice('webgpu', 20));
});
