import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { runPlan, runReference } from './execute.ts';
import { programs } from './programs.ts';

/** Both sides compute in float64; results are read as f32, and folded constants are rounded to f32. */
function expectClose(got: Float64Array, expected: Float64Array, text: string): void {
  expect(got.length).toBe(expected.length);
  const scale = expected.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1);
  expected.forEach((value, i) => {
    const same = Object.is(got[i], value) || Math.abs(got[i]! - value) <= 1e-5 * scale;
    if (!same) expect.fail(`element ${i}: ${got[i]} instead of ${value}\n${text}`);
  });
}

describe('a compiled graph', () => {
  it('computes what its ops define', async () => {
    await fc.assert(
      fc.asyncProperty(programs(14), async ({ graph, text }) => {
        const expected = await runReference(graph);
        const got = runPlan(graph);
        got.forEach((values, i) => {
          expectClose(values, expected[i]!, text);
        });
      }),
      { numRuns: Number(process.env['RUNS'] ?? 300) },
    );
  });
});
