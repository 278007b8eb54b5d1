import { gradcheck, gradgradcheck } from '@deftjs/autograd/gradcheck';
import fc from 'fast-check';
import { describe, it } from 'vitest';
import { composites } from '../support/composites/index.ts';
import { leaf } from '../support/op-samples.ts';

const derivable = Object.entries(composites).flatMap(([name, { smooth }]) =>
  smooth ? [[name, smooth] as const] : [],
);

describe.each(derivable)('%s', (name, cases) => {
  const holds = (numRuns: number, check: typeof gradcheck): Promise<void> =>
    fc.assert(
      fc.asyncProperty(cases, async ({ inputs, f, options }) => {
        try {
          await check(f, inputs.map(leaf));
        } catch (cause) {
          const given = JSON.stringify({ inputs, options });
          throw new Error(`${(cause as Error).message}\n${name} of ${given}`, { cause });
        }
      }),
      { numRuns },
    );

  it('has the derivatives of its definition, in both directions', () => holds(16, gradcheck));
  it('has second derivatives', () => holds(5, gradgradcheck));
});
