/** Attention at sizes that fill blocks and leave rests, with its gradients, against the reference. */
import { vjp } from '@deftjs/autograd';
import { attention, type Device, permute, type Tensor, tensor } from '@deftjs/tensor';
import { expect } from 'vitest';
import { graphOf, runDevice, runReference } from '../tensor/compiler/execute.ts';

export interface Case {
  readonly heads: number;
  readonly queries: number;
  readonly keys: number;
  readonly width: number;
  readonly valueWidth: number;
  readonly causal: boolean;
  readonly mask: 'none' | 'bool' | 'floats';
}

/** Numbers in [-1, 1), the same every time. */
function numbers(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** O, dQ, dK and dV, of heads that lie beside each other in memory: [1, L, H, D]. */
export function attentionOutputs({ heads, queries, keys, width, valueWidth, causal, mask }: Case): Tensor[] {
  const leaf = (length: number, columns: number, seed: number): Tensor => {
    const beside = tensor(numbers(length * heads * columns, seed), [1, length, heads, columns]);
    return permute(beside, [0, 2, 1, 3]);
  };
  const [q, k, v, dO] = [
    leaf(queries, width, 1),
    leaf(keys, width, 2),
    leaf(keys, valueWidth, 3),
    leaf(queries, valueWidth, 4),
  ] as const;
  const drawn = numbers(queries * keys, 5);
  // The first query sees nothing.
  const visible = Uint32Array.from(drawn, (x, i) => Number(i >= keys && x > -0.5));
  const masks = {
    none: null,
    bool: tensor(visible, [queries, keys], 'bool'),
    floats: tensor(
      drawn.map((x, i) => (i < keys ? Number.NEGATIVE_INFINITY : x)),
      [queries, keys],
    ),
  };
  const f = (a: Tensor, b: Tensor, c: Tensor) => attention(a, b, c, { causal, mask: masks[mask] });
  const { value, pullback } = vjp(f, q, k, v);
  return [value as Tensor, ...(pullback(dO) as Tensor[])];
}

/** Fails unless the device's results are those of the definitions, within rounding of sums of a few hundred terms. */
export async function expectAttention(device: Device, drawn: Case): Promise<void> {
  const graph = graphOf(attentionOutputs(drawn));
  const [got, expected] = [await runDevice(device, graph), await runReference(graph)];
  expected.forEach((values, o) => {
    const scale = Math.max(1, ...values.map(Math.abs));
    values.forEach((want, i) => {
      if (Math.abs(got[o]![i]! - want) <= 4e-6 * scale) return;
      expect.fail(
        `output ${o}, element ${i}: ${got[o]![i]}; expected ${want}; case ${JSON.stringify(drawn)}`,
      );
    });
  });
}
