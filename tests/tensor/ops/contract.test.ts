import {
  type Aval,
  apply,
  DTypeError,
  dtypes,
  isFloat,
  numel,
  ops,
  placeholder,
  ShapeError,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  opSamples,
  reproduction,
  type Sample,
  type SampleTensor,
  samplesOf,
} from '../../support/op-samples.ts';

type AnyOp = (typeof ops)[number];

/** The op's own definition, and what it infers, on the sample's values. */
function run(op: AnyOp, { inputs, attrs }: Sample): { out: Aval; values: number[] } {
  const out = op.infer(inputs, attrs as never);
  const values = inputs.map((x) => ({ ...x, data: Float64Array.from(x.values) }));
  return { out, values: Array.from(op.reference(values, attrs as never, out)) };
}

/** Equal, or within 1e-12 of the largest value at hand: float64 sums in another order differ by a few 1e-16. */
function close(got: readonly number[], expected: readonly number[]): boolean {
  const scale = expected.reduce((most, v) => (Number.isFinite(v) ? Math.max(most, Math.abs(v)) : most), 1);
  return expected.every((v, i) => Object.is(got[i]! + 0, v + 0) || Math.abs(got[i]! - v) <= 1e-12 * scale);
}

describe('every op', () => {
  it('has samples, and every row of samples has its op', () => {
    for (const op of ops) samplesOf(op);
    expect(Object.keys(opSamples).sort()).toEqual(ops.map((op) => op.name).sort());
  });

  it('has a name of its own', () => {
    expect(new Set(ops.map((op) => op.name)).size).toBe(ops.length);
  });
});

describe.each(ops.map((op) => [op.name, op] as const))('%s', (_name, op) => {
  const samples = samplesOf(op);

  it('computes what it says, in the shape and type that it infers', () => {
    fc.assert(
      fc.property(samples.valid, (sample) => {
        const { out, values } = run(op, sample);
        expect(dtypes).toContain(out.dtype);
        const expected = samples.expected(sample.inputs, sample.attrs);
        const context = `${reproduction(op, sample)}\nexpected ${expected}\ngot      ${values}`;
        expect(values.length, context).toBe(numel(out.shape));
        expect(expected.length, context).toBe(values.length);
        expect(close(values, expected), context).toBe(true);
        if (!isFloat(out.dtype)) expect(values.every(Number.isInteger), context).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  it('gives exact values at the special points', () => {
    for (const { dtype, inputs, output } of samples.special) {
      for (const type of [dtype].flat()) {
        const tensors = inputs.map((value): SampleTensor => ({ shape: [1], dtype: type, values: [value] }));
        expect(run(op, { inputs: tensors, attrs: null }).values, `${op.name}(${inputs}) of ${type}`).toEqual([
          output === 0 ? expect.closeTo(0, 300) : output,
        ]);
      }
    }
  });

  it('refuses what it cannot take by name, before a node exists', () => {
    for (const { inputs, attrs, error, message } of samples.invalid) {
      const leaves = inputs.map(({ shape, dtype }) => placeholder(shape, dtype));
      const refused = (): unknown => apply(op, leaves, attrs as never);
      expect(refused).toThrow(error === 'ShapeError' ? ShapeError : DTypeError);
      expect(refused).toThrow(new RegExp(`^${op.name}: ${message.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`));
    }
  });
});
