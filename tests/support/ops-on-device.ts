/** Every op, and every function made of ops, on a device that compiles, against definitions in float64. */
import {
  apply,
  cast,
  type Device,
  type DType,
  encode,
  evaluate,
  isFloat,
  type ops,
  read,
  referenceDevice,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { expect } from 'vitest';
import type { Case } from './composites/index.ts';
import { type LaidOut, type Layout, laidOut, layouts } from './layout.ts';
import { reproduction, type Sample, type Special, samplesOf, stored, withFloats } from './op-samples.ts';

export type AnyOp = (typeof ops)[number];

/** One way to meet a sample: the type of its floats, and how its inputs lie in memory. */
interface Way {
  readonly dtype: 'f32' | 'f16';
  readonly layout: Layout;
}

/** Both float types, each dense, transposed, and behind an offset or repeated (in turns). */
const everyWay = (i: number): Way[] =>
  (['f32', 'f16'] as const).flatMap((dtype) =>
    (['dense', 'transposed', i % 2 === 0 ? 'offset' : 'broadcast'] as const).map((layout) => ({
      dtype,
      layout,
    })),
  );

/** One way a sample, in turns: eight samples meet each float type in each layout. */
const oneWay = (i: number): Way[] => [
  { dtype: i % 2 === 0 ? 'f32' : 'f16', layout: layouts[Math.floor(i / 2) % 4]! },
];

/** How many samples a run draws, and whether each is met every way or one way, in turns. */
export interface Coverage {
  readonly samples: number;
  readonly ways: 'every' | 'one';
}

/** The sample's inputs the given way, stored and as the op sees them. */
function meet(sample: Sample, { dtype, layout }: Way): { seen: Sample; inputs: LaidOut[] } {
  const inputs = withFloats(sample, dtype).inputs.map((x) => laidOut(x, layout));
  return { seen: { ...sample, inputs: inputs.map(({ seen }) => seen) }, inputs };
}

/** What the op's definition gives for inputs as they are stored, with the type that it is stored in. */
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

/**
 * The first place where a device's values differ from what they should be by more than `bound` of the largest; -1 where
 * there is none. What is not finite must be equal.
 */
function differs(got: ArrayLike<number>, expected: ArrayLike<number>, bound: number): number {
  const list = Array.from(expected);
  const scale = list.reduce((most, v) => (Number.isFinite(v) ? Math.max(most, Math.abs(v)) : most), 1);
  return list.findIndex((want, i) => {
    return !(Object.is(got[i]! + 0, want + 0) || Math.abs(got[i]! - want) <= bound * scale);
  });
}

/**
 * Draws samples of an op, runs them in one program, and fails where the device and the definition differ; gives the
 * number of results compared.
 */
export async function expectSamplesAgree(
  device: Device,
  op: AnyOp,
  { samples: count, ways }: Coverage,
): Promise<number> {
  let compared = 0;
  const drawn = fc.array(samplesOf(op).valid, { minLength: count, maxLength: count });
  const property = fc.asyncProperty(drawn, async (samples) => {
    const batch = samples.flatMap((sample, i) =>
      (ways === 'every' ? everyWay(i) : oneWay(i))
        .filter(({ dtype }) => isUsable(op, withFloats(sample, dtype)))
        .map((way) => ({ way, ...meet(sample, way) })),
    );
    const outputs = batch.map(
      ({ inputs, seen }) =>
        apply(
          op as never,
          inputs.map(({ view }) => view),
          seen.attrs as never,
        ) as Tensor,
    );
    await evaluate(outputs, device);
    for (const [i, { seen, way }] of batch.entries()) {
      const { dtype, expected } = defined(op, seen);
      const got = await read(outputs[i]!);
      // f32: a few roundings and functions good to 1e-6. f16: half a unit in the last of 11 bits.
      const wrong = differs(got, expected, dtype === 'f16' ? 2 ** -10 : isFloat(dtype) ? 4e-6 : 0);
      compared += 1;
      if (wrong < 0) continue;
      expect.fail(
        `${op.name}, ${way.layout}: element ${wrong} is ${got[wrong]}; expected ${expected[wrong]}; ${reproduction(op, seen)}`,
      );
    }
    for (const x of [...outputs, ...batch.flatMap(({ inputs }) => inputs.map((input) => input.stored))])
      x.dispose();
  });
  await fc.assert(property, { numRuns: 1, endOnFailure: true });
  return compared;
}

/** The same for cases of a function made of ops, against the float64 reference device on the same graph. */
export async function expectCasesAgree(
  device: Device,
  name: string,
  cases: fc.Arbitrary<Case>,
  { samples: count, ways }: Coverage,
): Promise<number> {
  let compared = 0;
  const drawn = fc.array(cases, { minLength: count, maxLength: count });
  const property = fc.asyncProperty(drawn, async (list) => {
    const batch = list.flatMap(({ f, inputs, options }, i) =>
      (ways === 'every' ? everyWay(i) : oneWay(i)).map((way) => {
        const sample = { inputs, attrs: null };
        const [{ inputs: given, seen }, { inputs: again }] = [meet(sample, way), meet(sample, way)];
        const [output, truth] = [given, again].map((list) => f(...list.map(({ view }) => view)));
        return { way, given, seen, options, output: output!, truth: truth! };
      }),
    );
    await evaluate(
      batch.map(({ output }) => output),
      device,
    );
    for (const { way, output, truth, seen, options } of batch) {
      const got = await read(output);
      const expected = await read(isFloat(truth.dtype) ? cast(truth, 'f64') : truth, referenceDevice());
      // f32: tens of roundings one after the other. f16: so are a few values on the way to the result.
      const wrong = differs(got, expected, output.dtype === 'f16' ? 4e-3 : isFloat(output.dtype) ? 1e-5 : 0);
      compared += 1;
      if (wrong < 0) continue;
      const given = JSON.stringify({ inputs: seen.inputs, options });
      expect.fail(
        `${name}, ${way.layout}: element ${wrong} is ${got[wrong]}; expected ${expected[wrong]}; of ${given}`,
      );
    }
    for (const { given, output } of batch)
      for (const x of [output, ...given.map((input) => input.stored)]) x.dispose();
  });
  await fc.assert(property, { numRuns: 1, endOnFailure: true });
  return compared;
}

/** Fails where a special value goes through an elementwise op otherwise than its definition says. */
export async function expectSpecialValues(device: Device, list: readonly AnyOp[]): Promise<void> {
  const cases = list.flatMap((op) =>
    (['f32', 'i32', 'u32', 'bool'] as const).flatMap((dtype) => {
      const rows = samplesOf(op).special.filter((row: Special) => [row.dtype].flat().includes(dtype));
      return rows.length === 0 ? [] : [{ op, dtype, rows }];
    }),
  );
  const outputs = cases.map(({ op, rows, dtype }) => {
    const leaves = rows[0]!.inputs.map((_, i) => {
      const column = rows.map(({ inputs }) => inputs[i]!);
      return tensor(encode(dtype, column), [rows.length], dtype);
    });
    return apply(op as never, leaves, null as never) as Tensor;
  });
  await evaluate(outputs, device);
  for (const [c, { op, dtype, rows }] of cases.entries()) {
    const got = await read(outputs[c]!);
    rows.forEach(({ inputs, output }, i) => {
      const close =
        Object.is(got[i]! + 0, output + 0) || Math.abs(got[i]! - output) <= 1e-6 * Math.abs(output);
      expect(close, `${op.name} of ${dtype} (${inputs}): ${got[i]}; expected ${output}`).toBe(true);
    });
  }
}
