import { afterAll, beforeAll, expect, test } from 'vitest';
import { type DType, roundTo } from '../../../packages/tensor/src/dtype.ts';
import { contiguousView, permuteView } from '../../../packages/tensor/src/view.ts';
import {
  type Capabilities,
  openWebGPU,
  type WebGPUDevice,
} from '../../../packages/tensor/src/webgpu/index.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';
import { expectAgreement, runPlan } from './agreement.ts';
import { binary, convolution, folded, noise, PlanBuilder, unary } from './plans.ts';

interface Case {
  readonly batch: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transposed: readonly [a: boolean, b: boolean];
}

const transposes: readonly Case['transposed'][] = [
  [false, false],
  [true, false],
  [false, true],
  [true, true],
];

/** Every way that tiles are computed, on shapes that end within a tile and have or lack a divisor 4. */
const strategies: Readonly<Record<string, { capabilities: Partial<Capabilities>; cases: readonly Case[] }>> =
  {
    // More than 2^20 multiply-adds: smaller contractions take smaller tiles, which kernels.test.ts covers.
    'the adapter as it is': {
      capabilities: {},
      cases: [
        ...transposes.map((transposed) => ({ batch: 1, m: 132, n: 140, k: 60, transposed })),
        { batch: 1, m: 131, n: 129, k: 67, transposed: [false, false] },
        { batch: 3, m: 1000, n: 4, k: 100, transposed: [false, true] },
        { batch: 2, m: 8, n: 1028, k: 68, transposed: [false, false] },
        { batch: 5, m: 300, n: 300, k: 3, transposed: [true, false] },
      ],
    },
    'an adapter without subgroups': {
      capabilities: { subgroupSize: 0 },
      cases: transposes.map((transposed) => ({ batch: 1, m: 132, n: 140, k: 60, transposed })),
    },
    'a GPU': {
      capabilities: { software: false, maxWorkgroupsPerDimension: 50 },
      cases: [
        { batch: 1, m: 20, n: 68, k: 20, transposed: [false, false] },
        { batch: 1, m: 20, n: 68, k: 20, transposed: [true, true] },
        { batch: 1, m: 9, n: 67, k: 5, transposed: [false, false] },
        { batch: 260, m: 65, n: 16, k: 3, transposed: [true, false] }, // eight rows to an invocation
        { batch: 192, m: 100, n: 116, k: 20, transposed: [false, false] }, // two quads of columns, too
      ],
    },
    'a GPU whose compiler keeps loops': {
      capabilities: { software: false, unrolls: true },
      cases: [{ batch: 1, m: 20, n: 68, k: 20, transposed: [false, true] }],
    },
  };

const random = (length: number, seed: number) => Float32Array.from(noise(length, seed));

function contraction(
  { batch, m, n, k, transposed: [ta, tb] }: Case,
  x: Float32Array,
  y: Float32Array,
  dtype: DType = 'f32',
) {
  const builder = new PlanBuilder();
  const a = builder.bind(builder.input(dtype, x));
  const b = builder.bind(builder.input(dtype, y));
  const swap = [0, 2, 1];
  const viewA = ta ? permuteView(contiguousView([batch, k, m]), swap) : contiguousView([batch, m, k]);
  const viewB = tb ? permuteView(contiguousView([batch, n, k]), swap) : contiguousView([batch, k, n]);
  const bias = builder.load(builder.input('f32', random(n, 3)), {
    shape: [batch, m, n],
    offset: 0,
    strides: [0, 0, 1],
    guards: [],
  });
  const output = {
    dtype: 'f32',
    expr: unary('tanh', binary('mul', binary('add', folded(), bias), bias)),
    buffer: builder.output('f32', batch * m * n),
  } as const;
  builder.kernel({
    kind: 'contract',
    label: 'mm',
    batch: [batch],
    m: [m],
    n: [n],
    k: [k],
    a: { binding: a, view: viewA },
    b: { binding: b, view: viewB },
    output,
  });
  return builder.build();
}

function expected(
  { batch, m, n, k, transposed: [ta, tb] }: Case,
  x: Float32Array,
  y: Float32Array,
): Float64Array {
  const bias = random(n, 3);
  const out = new Float64Array(batch * m * n);
  for (let s = 0; s < batch; s += 1) {
    for (let i = 0; i < m; i += 1) {
      for (let j = 0; j < n; j += 1) {
        let sum = 0;
        for (let l = 0; l < k; l += 1) {
          sum += x[s * m * k + (ta ? l * m + i : i * k + l)]! * y[s * k * n + (tb ? j * k + l : l * n + j)]!;
        }
        out[(s * m + i) * n + j] = Math.tanh((sum + bias[j]!) * bias[j]!);
      }
    }
  }
  return out;
}

for (const [name, { capabilities, cases }] of Object.entries(strategies)) {
  describeWebGPU(`contractions on ${name}`, () => {
    let device: WebGPUDevice;
    beforeAll(async () => {
      device = await openWebGPU((await testAdapter()).adapter, { capabilities });
    });
    afterAll(() => device.close());

    test.each(cases)('of %o agree with sums in float64', async (one) => {
      const [x, y] = [random(one.batch * one.m * one.k, 1), random(one.batch * one.k * one.n, 2)];
      const { plan, values } = contraction(one, x, y);
      const [got] = await runPlan(device, plan, values);
      const want = expected(one, x, y);
      // Sums of 100 products below 4, times 2: rounding of 2^-24 each.
      const worst = got!.reduce((most, value, i) => Math.max(most, Math.abs(value - want[i]!)), 0);
      expect(worst).toBeLessThan(1e-4);
    });

    test('of windows agree with the interpreter', async () => {
      await expectAgreement(device, [
        convolution({
          batch: 1,
          channels: 24,
          filters: 33,
          size: 13,
          kernel: 3,
          stride: 1,
          padding: 1,
          seed: 1,
        }),
        convolution({
          batch: 2,
          channels: 3,
          filters: 6,
          size: 9,
          kernel: 3,
          stride: 2,
          padding: 1,
          seed: 2,
        }),
      ]);
    });
  });
}

describeWebGPU('contractions of halves', () => {
  let device: WebGPUDevice;
  beforeAll(async () => {
    device = await openWebGPU((await testAdapter()).adapter);
  });
  afterAll(() => device.close());

  // Tiles of matrices, where the adapter has any: enough of them, ending within a tile, a panel and a quad.
  test.each([
    ...transposes.map((transposed) => ({ batch: 6, m: 500, n: 388, k: 100, transposed })),
    { batch: 24, m: 132, n: 131, k: 64, transposed: [false, true] },
    { batch: 1, m: 1280, n: 1280, k: 32, transposed: [false, false] },
  ] as const)('of %o agree with sums in float64', async (one) => {
    const [x, y] = ([one.m, one.n] as const).map((size, i) =>
      random(one.batch * size * one.k, 1 + i).map((value) => roundTo('f16', value)),
    ) as [Float32Array, Float32Array];
    const { plan, values } = contraction(one, x, y, 'f16');
    const program = await device.preparePlan(plan);
    const matrices = program.explain().includes('subgroupMatrixMultiplyAccumulate');
    expect(matrices).toBe(device.capabilities.matrices);
    program.dispose();
    const [got] = await runPlan(device, plan, values);
    const want = expected(one, x, y);
    const worst = got!.reduce((most, value, i) => Math.max(most, Math.abs(value - want[i]!)), 0);
    expect(worst).toBeLessThan(1e-4);
  });
});
