import {
  add,
  flip,
  matmul,
  mul,
  permute,
  reshape,
  sum,
  type Tensor,
  tensor,
  transpose,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { describe, expect, it } from 'vitest';
import { lower } from '../../../packages/tensor/src/compiler/lower.ts';
import type { Device, Graph } from '../../../packages/tensor/src/device.ts';
import { describeWebGPU } from '../../support/webgpu.ts';
import { runDevice, runPlan, runReference } from './execute.ts';

const x = tensor([1, 2, 3, 4], [2, 2]);
const y = tensor([5, 6, 7, 8], [2, 2]);
const z = tensor([9, 10, 11, 12], [2, 2]);

/** Inputs are x, y, z; output o takes over input i for each [o, i]. */
function graph(outputs: readonly Tensor[], donations: readonly (readonly [number, number])[]): Graph {
  return { inputs: [x, y, z], outputs, donations: new Map(donations) };
}

type Run = (of: Graph) => Float64Array[] | Promise<Float64Array[]>;

async function expectRight(run: Run, of: Graph): Promise<void> {
  const expected = await runReference(of);
  const got = await run(of);
  expect(got.map((values) => [...values])).toEqual(expected.map((values) => [...values]));
}

/** All of them on one device: small whole numbers are exact in f32. */
async function expectAllRight(kind: Device['kind']): Promise<void> {
  const { device } = await openDevice(kind);
  for (const [, of] of cases) await expectRight((graph) => runDevice(device, graph), of);
  await device.close();
}

const next = mul(x, 2);

const cases: readonly (readonly [string, Graph])[] = [
  ['is overwritten by its own reader', graph([add(x, 1)], [[0, 0]])],
  ['is overwritten after its other readers', graph([add(x, 1), sum(x), mul(x, y)], [[0, 0]])],
  ['is read elsewhere than it is written', graph([flip(x, 0)], [[0, 0]])],
  ['is read transposed beside the place', graph([add(x, transpose(x))], [[0, 0]])],
  ['is read by what needs its new value', graph([next, sum(mul(next, permute(x, [1, 0])))], [[0, 0]])],
  ['is a contraction operand', graph([matmul(x, y)], [[0, 0]])],
  ['is both operands', graph([matmul(x, transpose(x))], [[0, 0]])],
  ['is read by an epilogue', graph([add(x, matmul(y, z))], [[0, 0]])],
  [
    'changes places with another',
    graph(
      [y, x],
      [
        [0, 0],
        [1, 1],
      ],
    ),
  ],
  [
    'changes places with another and is changed',
    graph(
      [add(y, 1), mul(x, 2)],
      [
        [0, 0],
        [1, 1],
      ],
    ),
  ],
  [
    'goes around three',
    graph(
      [y, z, x],
      [
        [0, 0],
        [1, 1],
        [2, 2],
      ],
    ),
  ],
  [
    'goes around three and is changed',
    graph(
      [mul(y, 2), mul(z, 2), mul(x, 2)],
      [
        [0, 0],
        [1, 1],
        [2, 2],
      ],
    ),
  ],
  ['is its own output', graph([x, sum(x)], [[0, 0]])],
  ['is its own output and another', graph([x, x, add(x, 0.5)], [[1, 0]])],
  ['takes a value that is an output already', graph([next, next], [[1, 1]])],
  [
    'takes a value that is several outputs',
    graph(
      [next, next, next],
      [
        [0, 1],
        [1, 0],
        [2, 2],
      ],
    ),
  ],
  ['takes a reshaped value', graph([reshape(reshape(add(x, y), [4]), [2, 2])], [[0, 1]])],
  [
    'takes what is computed from its sum',
    graph(
      [add(y, sum(x)), mul(x, sum(y))],
      [
        [0, 0],
        [1, 1],
      ],
    ),
  ],
];

describe('a donated input', () => {
  it.each(cases)('%s', (_, of) => expectRight(runPlan, of));
  it('is right in all these cases on wasm', () => expectAllRight('wasm'));

  it('costs no copy when an elementwise kernel is its only reader', () => {
    const plan = lower(graph([add(mul(x, y), 1)], [[0, 0]]));
    expect(plan.kernels).toHaveLength(1);
    expect(plan.slots).toEqual([]);
  });

  it('costs no kernel when it is the output', () => {
    expect(lower(graph([x], [[0, 0]])).kernels).toHaveLength(0);
  });

  it('is refused when it does not fit or is donated twice', () => {
    expect(() => lower(graph([sum(x)], [[0, 0]]))).toThrow(
      'a donated input differs from its output; got [] and [2, 2]',
    );
    expect(() =>
      lower(
        graph(
          [next, add(x, y)],
          [
            [0, 0],
            [1, 0],
          ],
        ),
      ),
    ).toThrow('input 0 is donated twice');
  });
});

describeWebGPU('a donated input', () => {
  it('is right in all these cases on WebGPU', () => expectAllRight('webgpu'));
});
