import {
  apply,
  type Device,
  type DType,
  decode,
  type HostArray,
  isFloat,
  ops,
  type Storage,
  type Tensor,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openWebGPU, type WebGPUDevice } from '../../../packages/tensor/src/webgpu/index.ts';
import { leaf, reproduction, type Sample, samplesOf, stored, withFloats } from '../../support/op-samples.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';

type AnyOp = (typeof ops)[number];

function hostValues({ source }: Tensor): HostArray {
  if (source.kind !== 'host') throw new Error('a sample has host leaves');
  return source.values;
}

/** The op on each sample, all in one program. */
async function compute(device: Device, op: AnyOp, samples: readonly Sample[]): Promise<Float64Array[]> {
  const leaves = samples.map(({ inputs }) => inputs.map(leaf));
  const outputs = samples.map(({ attrs }, i) => apply(op as never, leaves[i]! as Tensor[], attrs as never));
  const inputs = leaves.flat();
  const storages = inputs.map((x) => device.upload(x.dtype, hostValues(x)));
  const program = await device.prepare({ inputs, outputs, donations: new Map() });
  const results = program.run(storages);
  const values = await Promise.all(
    results.map(async (storage) => decode(storage.dtype, await device.read(storage))),
  );
  for (const storage of [...storages, ...results] as Storage[]) storage.dispose();
  program.dispose();
  return values;
}

describeWebGPU('every op on WebGPU', () => {
  let device: WebGPUDevice;
  beforeAll(async () => {
    device = await openWebGPU((await testAdapter()).adapter);
  });
  afterAll(() => device.close());

  describe.each(ops.map((op) => [op.name, op] as const))('%s', (name, op) => {
    const samples = samplesOf(op);

    test('agrees with its samples', async () => {
      const drawn = fc.array(fc.tuple(samples.valid, fc.constantFrom('f32', 'f16' as const)), {
        minLength: 6,
        maxLength: 6,
      });
      await fc.assert(
        fc.asyncProperty(drawn, async (pairs) => {
          const batch = pairs.map(([sample, dtype]) => withFloats(sample, dtype as 'f32')).filter(usable(op));
          const results = await compute(device, op, batch);
          batch.forEach((sample, i) => {
            const { dtype, expected } = defined(op, sample);
            // f32: a few roundings and functions good to 1e-6. f16: half a unit in the last of 11 bits.
            const bound = dtype === 'f16' ? 2 ** -10 : isFloat(dtype) ? 4e-6 : 0;
            const scale = expected.reduce(
              (most, v) => (Number.isFinite(v) ? Math.max(most, Math.abs(v)) : most),
              1,
            );
            expected.forEach((want, j) => {
              const got = results[i]![j]!;
              if (Object.is(got + 0, want + 0) || Math.abs(got - want) <= bound * scale) return;
              expect.fail(`${name}: element ${j} is ${got}; expected ${want}; ${reproduction(op, sample)}`);
            });
          });
        }),
        { numRuns: 1 },
      );
    });
  });
});

/** What the op's definition gives, with the type that it is stored in. */
function defined(op: AnyOp, { inputs, attrs }: Sample): { dtype: DType; expected: readonly number[] } {
  const output = op.infer(inputs, attrs as never);
  const values = inputs.map((x) => ({ ...x, data: Float64Array.from(stored(x.dtype, x.values)) }));
  return { dtype: output.dtype, expected: Array.from(op.reference(values, attrs as never, output)) };
}

/** Samples that the op's rule accepts in that type. */
function usable(op: AnyOp): (sample: Sample) => boolean {
  return ({ inputs, attrs }) => {
    if (inputs.some(({ dtype }) => dtype === 'f64')) return false;
    try {
      return op.infer(inputs, attrs as never).dtype !== 'f64';
    } catch {
      return false;
    }
  };
}
