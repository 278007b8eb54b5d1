import { apply, type DType, decode, encode, ops, type Tensor, tensor } from '@deftjs/tensor';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openWebGPU, type WebGPUDevice } from '../../../packages/tensor/src/webgpu/index.ts';
import { type Special, samplesOf } from '../../support/op-samples.ts';
import { erf } from '../../support/plan-interpreter.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';
import { runPlan } from './agreement.ts';
import { cast, constant, PlanBuilder, unary } from './plans.ts';

type AnyOp = (typeof ops)[number];

/**
 * Ops whose NaN is made or recognised by its bits. Of the others a shader may make anything, since WGSL lets it
 * assume that there is no NaN: SwiftShader says log(-1) = 0 and exp(NaN) = Infinity.
 */
const exactAboutNaN = ['tanh', 'erf', 'pow', 'notEqual', 'cast'];

function promised(op: AnyOp, { inputs, output }: Special): boolean {
  return exactAboutNaN.includes(op.name) || ![...inputs, output].some(Number.isNaN);
}

const cases = ops.flatMap((op: AnyOp) =>
  ['f32', 'i32', 'u32', 'bool'].flatMap((dtype) => {
    const rows = samplesOf(op).special.filter(
      (row) => [row.dtype].flat().includes(dtype as DType) && promised(op, row),
    );
    return rows.length === 0 ? [] : [{ op, name: op.name, dtype: dtype as DType, rows }];
  }),
);

describeWebGPU('special values', () => {
  let device: WebGPUDevice;
  beforeAll(async () => {
    device = await openWebGPU((await testAdapter()).adapter);
  });
  afterAll(() => device.close());

  test('go through every elementwise op as its definition says', async () => {
    const leaves = cases.map(({ rows, dtype }) =>
      rows[0]!.inputs.map((_, i) => {
        const values = encode(
          dtype,
          rows.map(({ inputs }) => inputs[i]!),
        );
        return { values, leaf: tensor(values, [rows.length], dtype) };
      }),
    );
    const outputs = cases.map(
      ({ op }, i) =>
        apply(
          op as never,
          leaves[i]!.map(({ leaf }) => leaf),
          null as never,
        ) as Tensor,
    );
    const inputs = leaves.flat();
    const program = await device.prepare({
      inputs: inputs.map(({ leaf }) => leaf),
      outputs,
      donations: new Map(),
    });
    const results = program.run(inputs.map(({ leaf, values }) => device.upload(leaf.dtype, values)));
    for (const [c, { name, dtype, rows }] of cases.entries()) {
      const got = decode(results[c]!.dtype, await device.read(results[c]!));
      rows.forEach(({ inputs: x, output }, i) => {
        const close =
          Object.is(got[i]! + 0, output + 0) || Math.abs(got[i]! - output) <= 1e-6 * Math.abs(output);
        expect(close, `${name} of ${dtype} (${x}): ${got[i]}; expected ${output}`).toBe(true);
      });
    }
  });

  test('are constants of every class', async () => {
    const values = [
      Number.NaN,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      0,
      -0,
      3.4028234663852886e38,
      1.1754943508222875e-38,
      -1.5,
      1e-30,
    ];
    const builder = new PlanBuilder();
    for (const value of values) {
      const buffer = builder.output('f32', 1);
      builder.kernel({
        kind: 'map',
        label: `${value}`,
        shape: [1],
        outputs: [{ dtype: 'f32', expr: constant(value), buffer }],
      });
    }
    for (const [type, value] of [
      ['i32', -(2 ** 31)],
      ['u32', 2 ** 32 - 1],
      ['bool', 1],
    ] as const) {
      const buffer = builder.output(type, 1);
      builder.kernel({
        kind: 'map',
        label: `${type}`,
        shape: [1],
        outputs: [{ dtype: type, expr: constant(value, type), buffer }],
      });
    }
    const { plan } = builder.build();
    const results = await runPlan(device, plan, []);
    expect(results.map(([x]) => x)).toEqual([...values.map(Math.fround), -(2 ** 31), 2 ** 32 - 1, 1]);
  });

  test('saturate when they become integers', async () => {
    const values = [
      Number.NaN,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      2147483648,
      -2147483648,
      2147483520,
      4294967296,
      4294967040,
      -1,
      -0.9,
      1.9,
    ];
    const builder = new PlanBuilder();
    const input = builder.input('f32', values);
    for (const type of ['i32', 'u32'] as const) {
      const expr = cast(type, builder.load(input, [values.length]));
      builder.kernel({
        kind: 'map',
        label: type,
        shape: [values.length],
        outputs: [{ dtype: type, expr, buffer: builder.output(type, values.length) }],
      });
    }
    const { plan, values: uploaded } = builder.build();
    const [signed, unsigned] = await runPlan(device, plan, uploaded);
    const [low, high, most] = [-(2 ** 31), 2 ** 31 - 1, 2 ** 32 - 1];
    expect([...signed!]).toEqual([0, high, low, high, low, 2147483520, high, high, -1, 0, 1]);
    expect([...unsigned!]).toEqual([0, most, 0, 2147483648, 0, 2147483520, most, 4294967040, 0, 0, 1]);
  });

  test('pass through kernels that only move them, bit by bit', async () => {
    const bits = Uint32Array.of(
      0x7fc00000,
      0x7f800001,
      0xffc12345,
      0x7f800000,
      0xff800000,
      0x80000000,
      1,
      0x807fffff,
      0x7f7fffff,
    );
    const builder = new PlanBuilder();
    const input = builder.input('f32', new Float32Array(bits.length));
    const reversed = builder.load(input, {
      shape: [bits.length],
      offset: bits.length - 1,
      strides: [-1],
      guards: [],
    });
    builder.kernel({
      kind: 'map',
      label: 'reverse',
      shape: [bits.length],
      outputs: [{ dtype: 'f32', expr: reversed, buffer: builder.output('f32', bits.length) }],
    });
    const program = await device.preparePlan(builder.build().plan);
    const [output] = program.run([device.upload('f32', new Float32Array(bits.buffer))]);
    expect(new Uint32Array((await device.read(output!)).buffer)).toEqual(bits.toReversed());
  });
});

describeWebGPU('functions that WGSL defines loosely', () => {
  // Errors relative to max(1, |y|), or to |y| where small results matter, over the arguments that models use.
  const bounds = [
    ['tanh', Math.tanh, 20, 'relative', 5e-7],
    ['erf', erf, 5, 'absolute', 3e-7],
    ['erf', erf, 1e-3, 'relative', 3e-7],
    ['exp', Math.exp, 80, 'relative', 1.2e-5],
    ['sin', Math.sin, 1000, 'absolute', 1e-6],
    ['cos', Math.cos, 1000, 'absolute', 1e-6],
    ['sin', Math.sin, 1e5, 'absolute', 1e-6],
  ] as const;
  test('are close to the true values', async () => {
    const device = await openWebGPU((await testAdapter()).adapter);
    const count = 4099;
    for (const [op, truth, reach, kind, bound] of bounds) {
      const x = Float32Array.from({ length: count }, (_, i) => ((2 * i) / (count - 1) - 1) * reach);
      const builder = new PlanBuilder();
      const expr = unary(op, builder.load(builder.input('f32', x), [count]));
      builder.kernel({
        kind: 'map',
        label: op,
        shape: [count],
        outputs: [{ dtype: 'f32', expr, buffer: builder.output('f32', count) }],
      });
      const { plan, values } = builder.build();
      const [y] = await runPlan(device, plan, values);
      const worst = Math.max(
        ...x.map(
          (v, i) =>
            Math.abs(y![i]! - truth(v)) / (kind === 'relative' ? Math.max(1e-30, Math.abs(truth(v))) : 1),
        ),
      );
      expect(worst, `${op} within ${reach}`).toBeLessThan(bound);
    }
    await device.close();
  });
});
