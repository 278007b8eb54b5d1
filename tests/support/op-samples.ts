/** Samples of every op: what the contract, gradient and device suites iterate over. */
import type { Op } from '@deftjs/tensor';
import { attentionSamples } from './samples/attention.ts';
import { elementwiseSamples } from './samples/elementwise.ts';
import type { OpSamples } from './samples/sample.ts';
import { structuralSamples } from './samples/structural.ts';

export * from './samples/sample.ts';

/** By the name of the op. */
export const opSamples = {
  ...elementwiseSamples,
  ...structuralSamples,
  ...attentionSamples,
} as unknown as Readonly<Record<string, OpSamples>>;

/**
 * The samples of an op.
 * @throws Error naming the file to edit when it has none
 */
export function samplesOf(op: Op<never>): OpSamples {
  const samples = opSamples[op.name];
  if (samples === undefined) {
    throw new Error(`no samples for the op "${op.name}": add a row to tests/support/samples/*.ts`);
  }
  return samples;
}
