import { grad } from '@deftjs/autograd';
import {
  Dropout,
  type Initializer,
  initialize,
  kaimingNormal,
  kaimingUniform,
  MLP,
  Module,
  MultiHeadAttention,
  namedParameters,
  setTrainable,
  setTraining,
  stateOf,
  trainableState,
  truncatedNormal,
  withState,
  xavierNormal,
  xavierUniform,
} from '@deftjs/autograd/nn';
import {
  attention,
  concat,
  keyOf,
  linear,
  mul,
  narrow,
  randomNormal,
  read,
  referenceDevice,
  relu,
  type Shape,
  ShapeError,
  setDevice,
  sum,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import { beforeAll, describe, expect, it } from 'vitest';

beforeAll(() => setDevice(referenceDevice()));

const numbers = async (x: Tensor): Promise<number[]> => [...(await read(x))];

async function expectClose(got: Tensor, want: Tensor): Promise<void> {
  expect(got.shape).toEqual(want.shape);
  const expected = await numbers(want);
  (await numbers(got)).forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i]!, 10);
  });
}

describe('initial values', () => {
  const shape: Shape = [40, 30, 3, 3];
  const [fanIn, fanOut] = [30 * 9, 40 * 9];
  const deviations: readonly (readonly [string, Initializer, number])[] = [
    ['kaimingNormal', kaimingNormal(), Math.sqrt(2 / fanIn)],
    ['kaimingNormal of fan out', kaimingNormal({ fan: 'out' }), Math.sqrt(2 / fanOut)],
    ['kaimingUniform of a layer', kaimingUniform({ slope: Math.sqrt(5) }), Math.sqrt(1 / 3 / fanIn)],
    ['xavierNormal', xavierNormal(2), 2 * Math.sqrt(2 / (fanIn + fanOut))],
    ['xavierUniform', xavierUniform(), Math.sqrt(2 / (fanIn + fanOut))],
    // A standard normal cut at +-2 has variance 1 - 4 phi(2) / (2 Phi(2) - 1).
    ['truncatedNormal', truncatedNormal(0.02), 0.02 * 0.8796256610342398],
  ];

  it.each(deviations)('%s has the standard deviation of its formula', async (_name, init, deviation) => {
    const x = await numbers(init(shape, keyOf(5)));
    const mean = x.reduce((total, value) => total + value, 0) / x.length;
    const variance = x.reduce((total, value) => total + (value - mean) ** 2, 0) / x.length;
    // 10,800 draws: the estimate's own deviation is below 1 %; four of them.
    expect(Math.abs(Math.sqrt(variance) / deviation - 1)).toBeLessThan(0.03);
    expect(Math.abs(mean) / deviation).toBeLessThan(0.04);
  });

  it('stays within its bounds where there are some', async () => {
    const largest = async (init: Initializer): Promise<number> =>
      Math.max(...(await numbers(init(shape, keyOf(6)))).map(Math.abs));
    const bound = Math.sqrt(6 / (fanIn + fanOut));
    expect(await largest(xavierUniform())).toBeLessThanOrEqual(Math.fround(bound));
    expect(await largest(xavierUniform())).toBeGreaterThan(0.99 * bound);
    expect(await largest(truncatedNormal(0.02))).toBeLessThanOrEqual(Math.fround(0.04));
    expect(await largest(truncatedNormal(0.02))).toBeGreaterThan(0.035);
  });

  it('needs two axes to have fans', () => {
    expect(() => xavierUniform()([3], keyOf(1))).toThrow(ShapeError);
    expect(() => kaimingNormal()([], keyOf(1))).toThrow('kaimingNormal: expected at least two axes; got []');
  });
});

class Block extends Module {
  readonly attn = new MultiHeadAttention(6, 4, 2);
  readonly mlp = new MLP([6, 12, 3], relu);
  readonly dropout = new Dropout(0.5);

  forward(x: Tensor, context: Tensor): Tensor {
    return this.mlp.forward(this.dropout.forward(this.attn.forward(x, context), [1, 2]));
  }
}

const block = (): Block => {
  const made = new Block();
  initialize(made, 3);
  return made;
};
const [x, context] = [randomNormal([1, 1], [2, 5, 6]), randomNormal([1, 2], [2, 3, 4])];

describe('modules', () => {
  it('attend with each head as if it were alone', async () => {
    const { attn } = block();
    const head = (h: number): Tensor => {
      const rows = (w: Tensor): Tensor => narrow(w, 0, 3 * h, 3);
      const [q, k, v] = [attn.to_q, attn.to_k, attn.to_v].map(({ weight }) => rows(weight.value));
      return attention(linear(x, q!), linear(context, k!), linear(context, v!));
    };
    const joined = concat([head(0), head(1)], -1);
    const { weight, bias } = attn.to_out[0];
    await expectClose(attn.forward(x, context), linear(joined, weight.value, bias!.value));
  });

  it('see what a mask or their place in time lets them see', async () => {
    const attn = new MultiHeadAttention(6, 6, 2);
    initialize(attn, 1);
    const whole = attn.forward(x, x, { causal: true });
    const first = attn.forward(narrow(x, 1, 0, 2), undefined, { causal: true });
    await expectClose(narrow(whole, 1, 0, 2), first);
    const visible = tensor(Uint32Array.of(1, 1, 0, 0, 0), [5], 'bool');
    await expectClose(attn.forward(x, x, { mask: visible }), attn.forward(x, narrow(x, 1, 0, 2)));
    expect(() => new MultiHeadAttention(6, 6, 4)).toThrow('does not divide into 4 heads');
  });

  it('drop in training only, by the key', async () => {
    const model = block();
    const [a, b] = [model.forward(x, context), model.forward(x, context)];
    await expectClose(a, b);
    setTraining(model, false);
    expect(model.dropout.training).toBe(false);
    await expectClose(model.forward(x, context), model.mlp.forward(model.attn.forward(x, context)));
  });

  it('name parameters by patterns, and freeze by them', () => {
    const model = block();
    expect([...namedParameters(model, /to_[kv]/).keys()]).toEqual(['attn.to_k.weight', 'attn.to_v.weight']);
    expect(setTrainable(model, /^mlp\.layers\.1/)).toBe(3 * 12 + 3);
    expect(Object.keys(trainableState(model))).toEqual(['mlp.layers.1.weight', 'mlp.layers.1.bias']);
    expect(Object.keys(stateOf(model))).toHaveLength(9);
  });

  it('pass gradients to every parameter that is used', async () => {
    const model = block();
    const weights = randomNormal([9, 9], [2, 5, 3]);
    const g = grad((theta: Record<string, Tensor>) =>
      sum(
        mul(
          weights,
          withState(model, theta, () => model.forward(x, context)),
        ),
      ),
    )(stateOf(model));
    for (const [path, value] of Object.entries(g)) {
      expect(
        (await numbers(value)).some((v) => v !== 0),
        path,
      ).toBe(true);
    }
  });
});
