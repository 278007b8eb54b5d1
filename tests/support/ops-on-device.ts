/** Every op on a device that compiles, against the op's definition. */
import {
  apply,
  type Device,
  type DType,
  decode,
  encode,
  type HostArray,
  isFloat,
  type ops,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { expect } from 'vitest';
import {
  leaf,
  reproduction,
  type Sample,
  type Special,
  samplesOf,
  stored,
  withFloats,
} from './op-samples.ts';

export type AnyOp = (typeof ops)[number];

function hostValues({ source }: Tensor): HostArray {
  if (source.kind !== 'host') throw new Error('a sample has host leaves');
  return source.values;
}

/** The outputs' values, all computed by one program. */
async function compute(device: Device, inputs: readonly Tensor[], outputs: readonly Tensor[]) {
  const program = await device.prepare({ inputs, outputs, donations: new Map() });
  const storages = inputs.map((x) => device.upload(x.dtype, hostValues(x)));
  const results = program.run(storages);
  const values = await Promise.all(results.map(async (x) => decode(x.dtype, await device.read(x))));
  for (const storage of [...storages, ...results]) storage.dispose();
  program.dispose();
  return values;
}

/** What the op's definition gives, with the type that it is stored in. */
function defined(op: AnyOp, { inputs, attrs }: Sample): { dtype: DType; expected: readonly number[] } {
  const output = op.infer(inputs, attrs as never);
  const values = inputs.map((x) => ({ ...x, data: Float64Array.from(stored(x.dtype, x.values)) }));
  return { dtype: output.dtype, expected: Array.from(op.reference(values, attrs as never, output)) };
}

/** Whether the op's rule accepts the sample without f64. */
function isUsable(op: AnyOp, { inputs, attrs }: Sample): boolean {
  if (inputs.some(({ dtype }) => dtype === 'f64')) return false;
  try {
    return op.infer(inputs, attrs as never).dtype !== 'f64';
  } catch {
    return false;
  }
}

/** Draws samples of an op in f32 and f16, and fails where the device and the definition differ. */
export async function expectSamplesAgree(device: Device, op: AnyOp): Promise<void> {
  const pair = fc.tuple(samplesOf(op).valid, fc.constantFrom('f32', 'f16' as const));
  const property = fc.asyncProperty(fc.array(pair, { minLength: 6, maxLength: 6 }), async (pairs) => {
    const batch = pairs
      .map(([sample, dtype]) => withFloats(sample, dtype as 'f32'))
      .filter((sample) => isUsable(op, sample));
    const leaves = batch.map(({ inputs }) => inputs.map(leaf));
    const outputs = batch.map(({ attrs }, i) => apply(op as never, leaves[i]!, attrs as never) as Tensor);
    const results = await compute(device, leaves.flat(), outputs);
    batch.forEach((sample, i) => {
      const { dtype, expected } = defined(op, sample);
      // f32: a few roundings and functions good to 1e-6. f16: half a unit in the last of 11 bits.
      const bound = dtype === 'f16' ? 2 ** -10 : isFloat(dtype) ? 4e-6 : 0;
      const scale = Math.max(1, ...expected.map(Math.abs).filter(Number.isFinite));
      expected.forEach((want, j) => {
        const got = results[i]![j]!;
        if (Object.is(got + 0, want + 0) || Math.abs(got - want) <= bound * scale) return;
        expect.fail(`${op.name}: element ${j} is ${got}; expected ${want}; ${reproduction(op, sample)}`);
      });
    });
  });
  await fc.assert(property, { numRuns: 2 });
}

/** Fails where a special value goes through an elementwise op otherwise than its definition says. */
export async function expectSpecialValues(device: Device, list: readonly AnyOp[]): Promise<void> {
  const cases = list.flatMap((op) =>
    (['f32', 'i32', 'u32', 'bool'] as const).flatMap((dtype) => {
      const rows = samplesOf(op).special.filter((row: Special) => [row.dtype].flat().includes(dtype));
      return rows.length === 0 ? [] : [{ op, dtype, rows }];
    }),
  );
  const leaves = cases.map(({ rows, dtype }) =>
    rows[0]!.inputs.map((_, i) => {
      const column = rows.map(({ inputs }) => inputs[i]!);
      return tensor(encode(dtype, column), [rows.length], dtype);
    }),
  );
  const outputs = cases.map(({ op }, i) => apply(op as never, leaves[i]!, null as never) as Tensor);
  const results = await compute(device, leaves.flat(), outputs);
  cases.forEach(({ op, dtype, rows }, c) => {
    rows.forEach(({ inputs, output }, i) => {
      const got = results[c]![i]!;
      const close = Object.is(got + 0, output + 0) || Math.abs(got - output) <= 1e-6 * Math.abs(output);
      expect(close, `${op.name} of ${dtype} (${inputs}): ${got}; expected ${output}`).toBe(true);
    });
  });
}
