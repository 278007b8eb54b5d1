import { gradcheck, gradgradcheck } from '@deftjs/autograd/gradcheck';
import { apply, isFloat, ops, type Tensor } from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { leaf, reproduction, type Sample, samplesOf, withFloats } from '../support/op-samples.ts';

type AnyOp = (typeof ops)[number];

/** Ops that contract or pad cost more for each run of the reference. */
const costly = new Set(['conv2d', 'conv2dWeight', 'matmul']);

const applied = (op: AnyOp, { inputs, attrs }: Sample): { f: (...x: Tensor[]) => Tensor; x: Tensor[] } => ({
  f: (...x) => apply(op, x, attrs as never),
  x: inputs.map(leaf),
});

/** Runs the check on random samples; a failure is shrunk and printed as code to paste. */
async function holds(op: AnyOp, numRuns: number, check: (sample: Sample) => Promise<unknown>): Promise<void> {
  await fc.assert(
    fc.asyncProperty(samplesOf(op).smooth, async (sample) => {
      try {
        await check(sample);
      } catch (cause) {
        throw new Error(`${(cause as Error).message}\n${reproduction(op, sample)}`, { cause });
      }
    }),
    { numRuns },
  );
}

const floatOps = ops.filter((op) => {
  const { inputs, attrs } = fc.sample(samplesOf(op).smooth, { numRuns: 1, seed: 1 })[0]!;
  return inputs.some((x) => isFloat(x.dtype)) && isFloat(op.infer(inputs, attrs as never).dtype);
});
const derivable = floatOps.filter((op) => op.name !== 'stopGradient');

describe.each(derivable.map((op) => [op.name, op] as const))('%s', (_name, op) => {
  it('has the derivatives of its definition, in both directions', async () => {
    await holds(op, costly.has(op.name) ? 100 : 150, async (sample) => {
      const { f, x } = applied(op, sample);
      await gradcheck(f, x);
    });
  });

  it('has second derivatives', async () => {
    await holds(op, costly.has(op.name) ? 20 : 40, async (sample) => {
      const { f, x } = applied(op, sample);
      await gradgradcheck(f, x);
    });
  });

  it('keeps the type of floats in its cotangents', () => {
    for (const dtype of ['f16', 'f64'] as const) {
      fc.assert(
        fc.property(samplesOf(op).smooth, (sample) => {
          const { f, x } = applied(op, withFloats(sample, dtype));
          const y = f(...x);
          const cotangents = op.vjp(y, { inputs: x, output: y, attrs: sample.attrs as never });
          cotangents.forEach((dx, i) => {
            if (dx) expect([dx.dtype, dx.shape]).toEqual([x[i]!.dtype, x[i]!.shape]);
          });
        }),
        { numRuns: 10 },
      );
    }
  });
});

describe('ops without derivatives', () => {
  const others = ops.filter((op) => !derivable.includes(op));

  it.each(others.map((op) => [op.name, op] as const))(
    '%s passes nothing in either direction',
    (_name, op) => {
      const sample = fc.sample(samplesOf(op).valid, { numRuns: 1, seed: 1 })[0]!;
      const { f, x } = applied(op, sample);
      const y = f(...x);
      const context = { inputs: x, output: y, attrs: sample.attrs as never };
      expect(op.vjp(y, context).every((dx) => dx === null)).toBe(true);
      expect(op.jvp(x, context)).toBeNull();
    },
  );
});
