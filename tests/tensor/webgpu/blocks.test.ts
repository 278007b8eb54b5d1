/** Kernels of software adapters that compute several rows at a time, to share what the rows read. */
import {
  add,
  cast,
  compile,
  type Device,
  gelu,
  layerNorm,
  mul,
  read,
  sum,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openWebGPU, type WebGPUDevice } from '../../../packages/tensor/src/webgpu/index.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';
import { noise } from './plans.ts';

type Compute = (x: Tensor, a: Tensor, b: Tensor) => Tensor[];

const scaled: Compute = (x, a, b) => [add(gelu(add(mul(x, a), b)), x)];
const normed: Compute = (x, a, b) => [layerNorm(x, a, b)];

describeWebGPU('rows that share what they read', () => {
  let device: WebGPUDevice;
  let other: Device;
  beforeAll(async () => {
    ({ device: other } = await openDevice('wasm'));
    device = await openWebGPU((await testAdapter()).adapter, { capabilities: { software: true } });
  });
  afterAll(() => Promise.all([device.close(), other.close()]));

  const of = (shape: readonly number[], seed: number): Tensor =>
    tensor(
      Float32Array.from(
        noise(
          shape.reduce((x, y) => x * y, 1),
          seed,
        ),
      ),
      shape,
    );

  test.each<[string, Compute, number[], number[], string]>([
    ['a cache line of columns', scaled, [64, 256], [256], '(var r = '],
    ['a batch of them', scaled, [3, 32, 256], [256], '(var r = '],
    ['two quads of columns', scaled, [512, 40], [40], '(var r = '],
    ['one quad of columns', scaled, [512, 36], [36], '(var r = '],
    ['columns that differ from image to image', scaled, [8, 8, 256], [8, 1, 256], '(var r = '],
    ['rows in no fours', scaled, [66, 256], [256], 'var step'],
    ['results in halves', (x, a, b) => [cast(add(mul(x, a), b), 'f16')], [64, 256], [256], 'var r'],
    ['a norm', normed, [1024, 256], [256], 'kept1'],
    ['a norm of a batch', normed, [4, 1030, 64], [64], 'kept1'],
    ['a norm of rows in no fours', normed, [2734, 96], [96], 'let row = min'],
    ['a norm of few rows', normed, [256, 96], [96], 'let row = min'],
    ['a norm and a number a row', (x, a, b) => [layerNorm(x, a, b), sum(x, -1)], [4096, 64], [64], 'kept0'],
  ])('%s', async (_, compute, shape, vector, expected) => {
    const inputs = [of(shape, 1), of(vector, 2), of(vector, 3)] as const;
    const compiled = compile(compute, { device });
    // Which kernel it is depends on the lanes of a team; on a GPU only the results are looked at.
    const { subgroupSize } = device.capabilities;
    if (subgroupSize === 8) expect(await compiled.explain(...inputs)).toContain(expected);
    const results = await compiled(...inputs);
    const truths = await compile(compute, { device: other })(...inputs);
    for (const [i, result] of results.entries()) {
      const [got, want] = [Array.from(await read(result)), Array.from(await read(truths[i]!))];
      const largest = want.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const tolerance = (result.dtype === 'f16' ? 1e-3 : 4e-6) * largest;
      expect(got.length).toBe(want.length);
      got.forEach((value, at) => {
        expect(Math.abs(value - want[at]!)).toBeLessThanOrEqual(tolerance);
      });
    }
    compiled.dispose();
  });
});
