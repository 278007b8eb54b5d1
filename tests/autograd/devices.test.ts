/**
 * Gradients of the devices against those of the definitions in float64, both of the same rules: relative L2 of a tensor
 * at most max(5e-6, 4 * 2^-24 sqrt(K)), K terms being added up, and 3e-3 where values are stored as f16. That norm hides a
 * single element in a large tensor, so the last 64, which a wrong loop bound leaves unwritten, are also held one by one.
 */
import { vjp } from '@deftjs/autograd';
import {
  apply,
  attention,
  conv2d,
  type Device,
  type DType,
  encode,
  evaluate,
  gelu,
  groupNorm,
  isFloat,
  keyOf,
  layerNorm,
  matmul,
  meanSquaredError,
  normalNumbers,
  numel,
  ops,
  read,
  referenceDevice,
  rmsNorm,
  type Shape,
  silu,
  softmax,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { leaf, reproduction, type Sample, samplesOf, withFloats } from '../support/op-samples.ts';
import { describeWebGPU } from '../support/webgpu.ts';

interface Case {
  readonly leaves: () => Tensor[];
  readonly f: (...x: readonly Tensor[]) => Tensor;
}

/** For each case, the cotangents of its floats when that of its result is drawn at random. */
async function gradients(device: Device, cases: readonly Case[]): Promise<Float64Array[][]> {
  const graphs = cases.map(({ leaves, f }, i) => {
    const x = leaves();
    const { value, pullback } = vjp<readonly Tensor[], Tensor>(f, ...x);
    const dy = encode(value.dtype, normalNumbers(keyOf(i + 1), value.size));
    return pullback(tensor(dy, value.shape, value.dtype)).filter((_, j) => isFloat(x[j]!.dtype));
  });
  await evaluate(graphs.flat(), device);
  const values = await Promise.all(
    graphs.map((graph) => Promise.all(graph.map(async (g) => Float64Array.from(await read(g))))),
  );
  for (const g of graphs.flat()) g.dispose();
  return values;
}

const none = new Float64Array(0);
const norm = (x: readonly number[]): number => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));

/** Why the values are not those expected; null when they are. A value that is not finite is never close. */
function difference(got: Float64Array, want: Float64Array, bound: number): string | null {
  const errors = Array.from(got, (value, i) => (Object.is(value, want[i]) ? 0 : value - want[i]!));
  if (!errors.every(Number.isFinite))
    return `element ${errors.findIndex((e) => !Number.isFinite(e))} is not finite`;
  const relative = norm(errors) / (norm([...want]) || 1);
  if (relative > bound) return `relative L2 ${relative.toExponential(2)} above ${bound.toExponential(2)}`;
  const scale = want.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const tail = errors.slice(-64).findIndex((error) => Math.abs(error) > 4 * bound * scale);
  return tail < 0 ? null : `one of the last elements is off by ${errors.slice(-64)[tail]}`;
}

const boundOf = (dtype: DType, terms: number): number =>
  dtype === 'f16' ? 3e-3 : Math.max(5e-6, 4 * 2 ** -24 * Math.sqrt(terms));

const derivable = ops.filter((op) => {
  if (['stopGradient', 'customVjp'].includes(op.name)) return false;
  const { inputs, attrs } = fc.sample(samplesOf(op).smooth, { numRuns: 1, seed: 1 })[0]!;
  return inputs.some((x) => isFloat(x.dtype)) && isFloat(op.infer(inputs, attrs as never).dtype);
});

/** Whether devices have the types of the result: f64 is for the reference alone. */
const isComputed = (op: (typeof ops)[number], { inputs, attrs }: Sample): boolean =>
  op.infer(inputs, attrs as never).dtype !== 'f64';

async function expectOpAgrees(device: Device, op: (typeof ops)[number], dtype: 'f32' | 'f16'): Promise<void> {
  const twelve = fc.array(samplesOf(op).smooth, { minLength: 12, maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(twelve, async (drawn) => {
      const samples = drawn
        .map((sample) => withFloats(sample, dtype))
        .filter((sample) => isComputed(op, sample));
      if (samples.length === 0) return;
      const cases = samples.map(
        ({ inputs, attrs }): Case => ({
          leaves: () => inputs.map(leaf),
          f: (...x) => apply(op, x, attrs as never),
        }),
      );
      const [got, want] = [await gradients(device, cases), await gradients(referenceDevice(), cases)];
      // All samples of an input as one vector: a tensor of one element has no norm to hide rounding in.
      want
        .reduce((most, sample) => (sample.length > most.length ? sample : most))
        .forEach((_, input) => {
          const all = (values: Float64Array[][]): Float64Array =>
            Float64Array.from(values.flatMap((sample) => [...(sample[input] ?? [])]));
          const problem = difference(all(got), all(want), boundOf(dtype, 64));
          if (problem === null) return;
          const worst = samples.find((_sample, i) =>
            difference(got[i]![input] ?? none, want[i]![input] ?? none, boundOf(dtype, 64)),
          );
          throw new Error(
            `gradient ${input} of ${op.name}, ${dtype}: ${problem}; ${reproduction(op, worst ?? samples[0]!)}`,
          );
        });
    }),
    { numRuns: 1 },
  );
}

const normal =
  (seed: number, shape: Shape, scale = 1) =>
  (): Tensor =>
    tensor(
      Float32Array.from(normalNumbers(keyOf(seed), numel(shape)), (z) => z * scale),
      shape,
    );

const norms = [1, 0.05].flatMap((deviation) => {
  const pixels = normal(1, [2, 8, 6, 6], deviation);
  const rows = normal(2, [16, 320], deviation);
  const [weight, bias] = [normal(3, [320]), normal(4, [320])];
  const [scale, shift] = [normal(5, [8]), normal(6, [8])];
  return [
    [`layerNorm at deviation ${deviation}`, [rows, weight, bias], layerNorm, 320],
    [`rmsNorm at deviation ${deviation}`, [rows, weight], rmsNorm, 320],
    [
      `groupNorm at deviation ${deviation}`,
      [pixels, scale, shift],
      (x: Tensor, w: Tensor, b: Tensor) => groupNorm(x, 2, w, b),
      144,
    ],
  ] as const;
});

const large = [
  ...norms,
  ['softmax', [normal(7, [16, 256])], (x: Tensor) => softmax(x), 256],
  ['silu', [normal(8, [65_537])], silu, 1],
  ['gelu', [normal(9, [4096])], gelu, 1],
  ['meanSquaredError', [normal(10, [65_537]), normal(11, [65_537])], meanSquaredError, 1],
  ['matmul', [normal(12, [33, 256]), normal(13, [256, 47])], matmul, 256],
  [
    'conv2d',
    [normal(14, [2, 6, 9, 7]), normal(15, [10, 6, 3, 3])],
    (x: Tensor, w: Tensor) => conv2d(x, w, null, { padding: 1 }),
    126,
  ],
  [
    'conv2d with a stride',
    [normal(14, [2, 6, 9, 7]), normal(15, [10, 6, 3, 3])],
    (x: Tensor, w: Tensor) => conv2d(x, w, null, { stride: 2 }),
    54,
  ],
  [
    'attention',
    [normal(16, [2, 2, 19, 16]), normal(17, [2, 2, 23, 16]), normal(18, [2, 2, 23, 16])],
    (q: Tensor, k: Tensor, v: Tensor) => attention(q, k, v),
    23,
  ],
] as const;

function agreement(open: () => Promise<Device>): void {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each(derivable.map((op) => [op.name, op] as const))('of %s', (_name, op) =>
    expectOpAgrees(device, op, 'f32'),
  );

  it.each(derivable.map((op) => [op.name, op] as const))('of %s, stored in half precision', (_name, op) =>
    expectOpAgrees(device, op, 'f16'),
  );

  it.each(large)('of %s, large', async (_name, leaves, f, terms) => {
    const one: Case = { leaves: () => leaves.map((make) => make()), f: f as Case['f'] };
    const [got, want] = [await gradients(device, [one]), await gradients(referenceDevice(), [one])];
    want[0]!.forEach((values, i) => {
      expect(difference(got[0]![i]!, values, boundOf('f32', terms)), `gradient ${i}`).toBeNull();
    });
  });
}

describe('gradients on wasm agree with float64', () => {
  agreement(async () => (await openDevice('wasm')).device);
});

describeWebGPU('gradients on WebGPU agree with float64', () => {
  agreement(async () => (await openDevice('webgpu')).device);
});
