import { vjp } from '@deftjs/autograd';
import {
  add,
  attention,
  matmul,
  mul,
  permute,
  placeholder,
  reshape,
  softmax,
  type Tensor,
  tensor,
  transpose,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { lower } from '../../../packages/tensor/src/compiler/lower.ts';
import { validatePlan } from '../../../packages/tensor/src/compiler/validate.ts';
import type { Plan } from '../../../packages/tensor/src/kernel.ts';
import { attentionOutputs, type Case } from '../../support/attention-cases.ts';
import { graphOf, runPlan, runReference } from '../compiler/execute.ts';

const length = 4096;
const heads = 8;
const width = 64;

/** [1, L, H D] -> [1, H, L, D], a view. */
const split = (x: Tensor): Tensor => permute(reshape(x, [1, length, heads, width]), [0, 2, 1, 3]);

function planOf(inputs: readonly Tensor[], outputs: readonly Tensor[]): Plan {
  const plan = lower({ inputs, outputs, donations: new Map() });
  validatePlan(plan);
  return plan;
}

const forward = (a: Tensor, b: Tensor, c: Tensor): Tensor => attention(split(a), split(b), split(c));

describe('the plan of attention', () => {
  const inputs = [0, 1, 2].map(() => placeholder([1, length, heads * width], 'f32')) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  const largest = (plan: Plan): number => Math.max(...plan.buffers.map((buffer) => buffer.length));

  it('is one kernel that reads heads where they are, and stores nothing as large as the scores', () => {
    const plan = planOf(inputs, [forward(...inputs)]);
    expect(plan.kernels.map(({ kind }) => kind)).toEqual(['attend']);
    expect(largest(plan)).toBe(length * heads * width);
  });

  it('adds one reduction and one kernel for all three gradients', () => {
    const dO = placeholder([1, heads, length, width], 'f32');
    const { value, pullback } = vjp(forward, ...inputs);
    const plan = planOf([...inputs, dO], [value, ...(pullback(dO) as Tensor[])]);
    expect(plan.kernels.filter(({ kind }) => kind === 'attend').length).toBe(2);
    expect(plan.kernels.filter(({ kind }) => kind === 'reduce').length).toBe(1);
    expect(largest(plan)).toBe(length * heads * width);
  });

  it('reads a broadcast mask through a view', () => {
    const mask = placeholder([length, length], 'bool');
    const y = attention(split(inputs[0]), split(inputs[1]), split(inputs[2]), { mask });
    expect(planOf([...inputs, mask], [y]).kernels.length).toBe(1);
  });
});

describe('attention', () => {
  const extent = fc.constantFrom(1, 2, 3, 5);
  const cases: fc.Arbitrary<Case> = fc.record({
    heads: extent,
    queries: extent,
    keys: extent,
    width: extent,
    valueWidth: extent,
    causal: fc.boolean(),
    mask: fc.constantFrom('none', 'bool', 'floats'),
  });

  it('is computed by its plan as by its definition', async () => {
    await fc.assert(
      fc.asyncProperty(cases, async (drawn) => {
        const graph = graphOf(attentionOutputs(drawn));
        const [got, expected] = [runPlan(graph), await runReference(graph)];
        expected.forEach((values, o) => {
          values.forEach((want, i) => {
            expect(got[o]![i], `output ${o}, element ${i}`).toBeCloseTo(want, 5);
          });
        });
      }),
      { numRuns: 60 },
    );
  });

  it('has the values and gradients of the softmax of products, times the values', async () => {
    const values = (shape: readonly number[]) =>
      fc
        .array(fc.double({ min: -3, max: 3, noNaN: true }), {
          minLength: shape.reduce((a, b) => a * b),
          maxLength: shape.reduce((a, b) => a * b),
        })
        .map((list) => tensor(Float64Array.from(list), shape));
    const drawn = fc
      .tuple(extent, extent, extent, extent)
      .chain(([lq, lk, d, e]) =>
        fc.tuple(
          values([2, lq, d]),
          values([2, lk, d]),
          values([2, lk, e]),
          values([lq, lk]),
          values([2, lq, e]),
        ),
      );
    await fc.assert(
      fc.asyncProperty(drawn, async ([q, k, v, mask, dO]) => {
        const composed = (a: Tensor, b: Tensor, c: Tensor, m: Tensor): Tensor =>
          matmul(softmax(add(mul(matmul(a, transpose(b)), 0.5), m)), c);
        const fused = (a: Tensor, b: Tensor, c: Tensor, m: Tensor): Tensor =>
          attention(a, b, c, { scale: 0.5, mask: m });
        const [x, y] = [composed, fused].map((f) => {
          const { value, pullback } = vjp(f, q, k, v, mask);
          return [value as Tensor, ...(pullback(dO) as Tensor[])];
        });
        const results = await runReference(graphOf([...x!, ...y!]));
        results.slice(0, 5).forEach((want, o) => {
          want.forEach((value, i) => {
            const got = results[o + 5]![i]!;
            expect(Math.abs(got - value), `output ${o}, element ${i}: ${got}`).toBeLessThanOrEqual(
              1e-12 * Math.max(1, ...want.map(Math.abs)),
            );
          });
        });
      }),
      { numRuns: 60 },
    );
  });
});
