/** What WebGPU validates, for adapters that are not here: every op on Dawn's null backend. */
import { valueAndGrad } from '@deftjs/autograd';
import {
  add,
  apply,
  attention,
  compile,
  gelu,
  matmul,
  type ops as opList,
  ops,
  permute,
  read,
  sum,
  type Tensor,
  tensor,
  zeros,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { paint } from '../../../examples/browser/painter.ts';
import {
  type Capabilities,
  openWebGPU,
  type WebGPUDevice,
} from '../../../packages/tensor/src/webgpu/index.ts';
import { leaf, samplesOf, withFloats } from '../../support/op-samples.ts';
import { describeWebGPU, nullAdapter, testAdapter, weakestOf } from '../../support/webgpu.ts';
import { runPlan } from './agreement.ts';
import { folded, noise, PlanBuilder } from './plans.ts';

/** The kernels of a function of two tensors, of which no pipeline is made. */
async function textsOf(
  device: WebGPUDevice,
  compute: (a: Tensor, b: Tensor) => Tensor,
  a: Tensor,
  b: Tensor,
): Promise<string[]> {
  const texts: string[] = [];
  device.pipelines.get = async ({ wgsl }) => {
    texts.push(wgsl);
    return Promise.reject(new Error('only the text was wanted'));
  };
  await expect(compile(compute, { device }).explain(a, b)).rejects.toThrow('only the text');
  return texts;
}

/** What the device has to say of a text. */
async function messagesOn(device: WebGPUDevice, code: string): Promise<string[]> {
  const { messages } = await device.gpu.createShaderModule({ code }).getCompilationInfo();
  return messages.map(({ message }) => message);
}

/** What attention's two gradient kernels compute. */
function sumGradient(q: Tensor, k: Tensor): Tensor {
  const { gradient } = valueAndGrad((x: Tensor[]) => sum(attention(x[0]!, x[1]!, x[1]!)))([q, k]);
  return add(gradient[0]!, gradient[1]!);
}

type AnyOp = (typeof opList)[number];

const adapters: readonly (readonly [string, boolean, Partial<Capabilities>])[] = [
  ['D4, D9: default limits and no features', true, {}],
  ['a GPU with every feature', false, {}],
  ['a software adapter with subgroups of sixteen', false, { software: true, subgroupSize: 16 }],
];

describe.each(adapters)('on %s', (_, weakest, capabilities) => {
  let device: WebGPUDevice;
  beforeAll(async () => {
    device = await openWebGPU(await nullAdapter({ weakest }), { capabilities });
  });
  afterAll(() => device.close());

  test.each(ops.map((op) => [op.name, op] as const))(
    'the kernels of %s are valid',
    async (_name, op: AnyOp) => {
      const drawn = fc.sample(fc.tuple(samplesOf(op).valid, fc.constantFrom('f32', 'f16' as const)), {
        numRuns: 8,
        seed: 1,
      });
      for (const [sample, dtype] of drawn) {
        const { inputs: given, attrs } = withFloats(sample, dtype);
        const inputs = given.map(leaf);
        if (inputs.some((x) => x.dtype === 'f64')) continue;
        let output: ReturnType<typeof apply>;
        try {
          output = apply(op as never, inputs, attrs as never);
        } catch {
          continue; // the op takes no such type
        }
        if (output.dtype === 'f64') continue;
        const program = await device.prepare({ inputs, outputs: [output], donations: new Map() });
        const storages = inputs.map(({ dtype: own, size }) => device.allocate(own, size));
        for (const storage of [...storages, ...program.run(storages)]) storage.dispose();
        program.dispose();
      }
      await device.idle(); // throws what was not valid
    },
  );
});

describe('on a GPU whose subgroups multiply matrices', () => {
  test.each([
    [[2048, 2048], [2048, 2048], (a: Tensor, b: Tensor) => matmul(a, b)],
    [[260, 100], [516, 100], (a: Tensor, b: Tensor) => matmul(a, permute(b, [1, 0]))], // in small tiles
    [
      [2052, 2044],
      [1100, 2052],
      (a: Tensor, b: Tensor) => gelu(matmul(permute(a, [1, 0]), permute(b, [1, 0]))),
    ],
    [[4, 1000, 516], [4, 997, 516], (a: Tensor, b: Tensor) => add(matmul(a, permute(b, [0, 2, 1])), 1)],
  ] as const)('products of %o and %o are valid text', async (left, right, product) => {
    const device = await openWebGPU(await nullAdapter({ experimental: true }), {
      capabilities: { matrices: true, subgroupSize: 32, maxWorkgroupStorageBytes: 49152 },
    });
    const [a, b] = [zeros([...left], 'f16'), zeros([...right], 'f16')];
    // The text alone: the null backend has no such subgroups, nor so much workgroup memory, for a pipeline.
    const texts = await textsOf(device, product, a, b);
    const multiplied = texts.filter((text) => text.includes('subgroupMatrixMultiplyAccumulate'));
    expect(multiplied).toHaveLength(1);
    expect(await messagesOn(device, multiplied[0]!)).toEqual([]);
    await device.close();
  });
});

describe('on a large GPU', () => {
  test.each([
    ['products', (a: Tensor, b: Tensor) => matmul(a, b), [2048, 2048]],
    ['attention', (a: Tensor, b: Tensor) => attention(a, b, b, { causal: true }), [16, 1024, 64]],
    ['its gradients', (a: Tensor, b: Tensor) => sumGradient(a, b), [16, 1024, 64]],
  ] as const)('workgroups of 256 for %s are valid text', async (_, compute, shape) => {
    const device = await openWebGPU(await nullAdapter({}), {
      capabilities: { software: false, unrolls: true, keptScores: 0, maxWorkgroupStorageBytes: 49152 },
    });
    const texts = await textsOf(device, compute, zeros([...shape]), zeros([...shape]));
    const large = texts.filter((text) => text.includes('@workgroup_size(256)'));
    expect(large.length).toBeGreaterThan(0);
    for (const text of large) expect(await messagesOn(device, text)).toEqual([]);
    await device.close();
  });
});

describeWebGPU('on the weakest adapter', () => {
  test('D9: training goes as on this one', { timeout: 120_000 }, async () => {
    const losses = await Promise.all(
      [weakestOf((await testAdapter()).adapter), (await testAdapter()).adapter].map(async (adapter) => {
        const device = await openWebGPU(adapter);
        const seen: number[] = [];
        for await (const { loss } of paint(device, 3)) seen.push(loss);
        await device.close();
        return seen;
      }),
    );
    // f32 rounding: the order of sums may differ.
    losses[0]!.forEach((loss, i) => {
      expect(Math.abs(loss / losses[1]![i]! - 1)).toBeLessThan(1e-5);
    });
  });
});

describeWebGPU('D8: the size of subgroups', () => {
  /** The text with subgroups played by workgroup memory: a team is one subgroup, and a workgroup one team. */
  function emulated(wgsl: string, lanes: number): string {
    const functions = ['f32', 'vec4f'].map(
      (type) => `
        var<workgroup> team_${type}: array<${type}, ${lanes}>;
        fn broadcast_${type}(x: ${type}, from_lane: u32, lane: u32) -> ${type} {
          workgroupBarrier();
          team_${type}[lane] = x;
          workgroupBarrier();
          return team_${type}[from_lane];
        }`,
    );
    return (
      wgsl
        .replace('enable subgroups;', '')
        .replaceAll(
          /: (f32|vec4f) = subgroupBroadcast\((.+), (\d+)u\);/g,
          ': $1 = broadcast_$1($2, $3u, lane);',
        ) + functions.join('\n')
    );
  }

  test('of thirty-two: attention on a GPU passes maxima and sums around', async () => {
    const [q, k, v] = [1, 2, 3].map((seed) =>
      tensor(Float32Array.from(noise(2 * 70 * 24, seed)), [2, 70, 24]),
    );
    const compute = async (subgroupSize: number) => {
      const { adapter } = await testAdapter();
      const capabilities = { software: false, keptScores: 0, subgroupSize };
      const device = await openWebGPU(adapter, { capabilities });
      const create = device.gpu.createShaderModule.bind(device.gpu);
      let shuffles = 0;
      device.gpu.createShaderModule = (descriptor) => {
        shuffles += descriptor.code.split('subgroupShuffleXor(').length - 1;
        const code = descriptor.code
          .replace('enable subgroups;', '')
          .replaceAll(/subgroupShuffleXor\((\w+), (\d+)u\)/g, 'shuffle($1, $2u, lane)');
        const shuffle = `
          var<workgroup> passed: array<f32, 128>;
          fn shuffle(x: f32, far: u32, lane: u32) -> f32 {
            workgroupBarrier();
            passed[lane] = x;
            workgroupBarrier();
            return passed[lane ^ far];
          }`;
        return create({ ...descriptor, code: code + shuffle });
      };
      const [mean] = await compile((...x: Tensor[]) => [attention(x[0]!, x[1]!, x[2]!)], { device })(
        q!,
        k!,
        v!,
      );
      const values = (await read(mean!, device)) as Float32Array;
      await device.close();
      expect(shuffles > 0).toBe(subgroupSize > 0);
      return values;
    };
    const [with32, without] = [await compute(32), await compute(0)];
    // Sums of 70 weights in another order.
    with32.forEach((value, i) => {
      expect(Math.abs(value - without[i]!)).toBeLessThan(1e-5);
    });
  });

  test('changes no bit of a contraction', async () => {
    const [m, k, n] = [132, 61, 140]; // more than 2^20 multiply-adds: smaller ones take smaller tiles
    const builder = new PlanBuilder();
    const view = (rows: number, columns: number) => ({
      shape: [rows, columns],
      strides: [columns, 1],
      offset: 0,
      guards: [],
    });
    const a = builder.bind(builder.input('f32', noise(m * k, 1)));
    const b = builder.bind(builder.input('f32', noise(k * n, 2)));
    builder.kernel({
      kind: 'contract',
      label: 'mm',
      batch: [],
      m: [m],
      n: [n],
      k: [k],
      a: { binding: a, view: view(m, k) },
      b: { binding: b, view: view(k, n) },
      output: { dtype: 'f32', expr: folded(), buffer: builder.output('f32', m * n) },
    });
    const { plan, values } = builder.build();
    const compute = async (subgroupSize: number) => {
      const { adapter } = await testAdapter();
      const device = await openWebGPU(adapter, { capabilities: { software: true, subgroupSize } });
      const create = device.gpu.createShaderModule.bind(device.gpu);
      let broadcasts = 0;
      device.gpu.createShaderModule = (descriptor) => {
        const code = subgroupSize === 0 ? descriptor.code : emulated(descriptor.code, subgroupSize);
        broadcasts = code.split('= broadcast_').length - 1;
        expect(code).not.toContain('subgroupBroadcast(');
        return create({ ...descriptor, code });
      };
      const [result] = await runPlan(device, plan, values);
      await device.close();
      expect(broadcasts > 0).toBe(subgroupSize > 0);
      return result;
    };
    const without = await compute(0);
    for (const size of [4, 32]) expect(await compute(size), `${size} lanes`).toEqual(without);
  });
});
