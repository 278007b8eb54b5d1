import { valueAndGrad } from '@deftjs/autograd';
import { adam, adamW, lion, type Optimizer, packing, sgd } from '@deftjs/autograd/optim';
import * as T from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

type Weights = { readonly [path: string]: T.Tensor };

let device: T.Device;
beforeAll(async () => {
  ({ device } = await openDevice('wasm'));
  T.setDevice(device);
});
afterAll(() => device.close());

const groups = [
  { match: /bias$/, weightDecay: 0 },
  { match: (path: string) => path.startsWith('head'), learningRateFactor: 0.5 },
];

/** Weights of the shapes, some of them biases or of the head, some of them halves. */
function weightsOf(shapes: readonly (readonly number[])[]): Weights {
  const entries = shapes.map((shape, i) => {
    const path = `${i % 3 === 0 ? 'head' : 'body'}.${i}.${i % 2 === 0 ? 'weight' : 'bias'}`;
    const length = shape.reduce((product, extent) => product * extent, 1);
    const values = Float32Array.from({ length }, (_, j) => Math.sin(3 * i + j));
    const x = T.tensor(values, shape);
    return [path, i % 5 === 4 ? T.cast(x, 'f16') : x] as const;
  });
  return Object.fromEntries(entries);
}

const loss = (weights: Weights): T.Tensor =>
  Object.values(weights)
    .map((w) => T.sum(T.square(T.sin(T.cast(w, 'f32')))))
    .reduce((a, b) => T.add(a, b));

const optimizers: Readonly<Record<string, (own: typeof groups) => Optimizer<T.Tree & object>>> = {
  adam: (own) => adam({ groups: own, weightDecay: 0.1 }) as Optimizer<T.Tree & object>,
  adamW: (own) => adamW({ groups: own }) as Optimizer<T.Tree & object>,
  lion: (own) => lion({ groups: own, weightDecay: 0.1 }) as Optimizer<T.Tree & object>,
  sgd: (own) => sgd({ groups: own, momentum: 0.9, weightDecay: 0.1 }) as Optimizer<T.Tree & object>,
};

const shapes = fc.array(fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 3 }), {
  minLength: 1,
  maxLength: 12,
});

async function bits(tree: T.Tree): Promise<number[][]> {
  const leaves = T.treeLeaves(tree);
  await T.evaluate(leaves);
  return Promise.all(leaves.map(async (x) => [...(await T.read(x))]));
}

describe('a packing', () => {
  it('says where each tensor lies', async () => {
    const property = fc.asyncProperty(shapes, async (of) => {
      const weights = weightsOf(of);
      const packed = packing(weights, groups);
      const vectors = packed.pack(weights);
      const cut = T.treeLeaves(weights).map(({ size }, i) => {
        const { vector, start } = packed.places[i]!;
        return T.narrow(vectors[vector]!, 0, start, size);
      });
      expect(await bits(cut)).toEqual(await bits(weights));
    });
    await fc.assert(property, { numRuns: 20 });
  });

  it('gives back what was packed', async () => {
    const property = fc.asyncProperty(shapes, async (of) => {
      const weights = weightsOf(of);
      const { pack, unpack } = packing(weights, groups);
      expect(await bits(unpack(pack(weights)))).toEqual(await bits(weights));
    });
    await fc.assert(property, { numRuns: 20 });
  });

  it.each(Object.keys(optimizers))('leaves the numbers of %s as they are, bit for bit', async (name) => {
    const property = fc.asyncProperty(shapes, async (of) => {
      const weights = weightsOf(of);
      const packed = packing(weights, groups);
      const plain = optimizers[name]!(groups);
      const flat = optimizers[name]!(packed.groups as typeof groups);
      const decayTowards = T.treeMap((x) => T.mul(x, 0.5), weights);
      let [p, state, learningRate] = [weights, plain.init(weights), 0.1];
      let [vectors, flatState] = [packed.pack(weights), flat.init(packed.pack(weights))];
      for (let step = 0; step < 2; step += 1) {
        const next = plain.update(p, valueAndGrad(loss)(p).gradient, state, { learningRate, decayTowards });
        const gradient = packed.pack(valueAndGrad(loss)(packed.unpack(vectors)).gradient);
        const flatNext = flat.update(vectors, gradient, flatState, {
          learningRate,
          decayTowards: packed.pack(decayTowards),
        });
        [p, state, learningRate] = [next.parameters, next.state, 0.05];
        [vectors, flatState] = [flatNext.parameters, flatNext.state];
        await T.evaluate([...T.treeLeaves([p, state]), ...T.treeLeaves([vectors, flatState])]);
      }
      expect(await bits(packed.unpack(vectors))).toEqual(await bits(p));
    });
    await fc.assert(property, { numRuns: 6 });
  });

  it('refuses trees and vectors that do not fit', () => {
    const { pack, unpack } = packing(weightsOf([[2, 3], [4]]), groups);
    expect(() => pack(weightsOf([[2, 3], [5]]))).toThrow(
      /pack: tensors do not fit "body.1.bias"; expected \[4\]/,
    );
    expect(() => unpack({ 'f32.1': T.zeros([5]), 'f32.0': T.zeros([4]) })).toThrow(
      /unpack: vector "f32.1" does not fit; expected \[6\]; got \[5\]/,
    );
    expect(() => unpack({})).toThrow(/unpack: vector/);
  });
});
