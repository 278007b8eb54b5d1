/** What holds for every shape: the rank and the column space of a change, what PaRa takes, signs of P, what moves. */
import { grad } from '@deftjs/autograd';
import { svdOnHost } from '@deftjs/autograd/linalg';
import { initialize, Linear, stateOf, trainableState, withState } from '@deftjs/autograd/nn';
import { adamW } from '@deftjs/autograd/optim';
import {
  attach,
  attachedAdapters,
  deft,
  deftPresets,
  type LowRankChange,
  lora,
  type Method,
  methods,
  type ProjectorName,
  projectors,
} from '@deftjs/deft';
import {
  add,
  type Device,
  matmul,
  mul,
  randomNormal,
  read,
  sum,
  type Tensor,
  tensor,
  transpose,
} from '@deftjs/tensor';
import { type DeviceName, openDevice } from '@deftjs/tensor/node';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { hasWebGPU } from '../support/webgpu.ts';
import { relativeError } from './toy.ts';

/** relu_outer is of any rank by its definition; nmf, faithful, has factors instead of P. */
const thin = (Object.keys(projectors) as ProjectorName[]).filter((name) => name !== 'relu_outer');
const options: Readonly<Record<string, (rank: number) => Method>> = {
  ...Object.fromEntries(
    thin.map((projector) => [projector, (rank: number) => deft({ rank, projector, start: 'random' })]),
  ),
  para: (rank) => methods.para({ rank }),
  lora: (rank) => lora({ rank }),
};

const shapes = fc
  .record({ m: fc.integer({ min: 2, max: 9 }), n: fc.integer({ min: 2, max: 9 }), seed: fc.nat(1000) })
  .chain(({ m, n, seed }) =>
    fc.record({
      m: fc.constant(m),
      n: fc.constant(n),
      seed: fc.constant(seed),
      rank: fc.integer({ min: 1, max: Math.min(m, n) - 1 }),
      option: fc.constantFrom(...Object.keys(options)),
    }),
  );

const devices: DeviceName[] = ['reference', 'wasm', ...(hasWebGPU ? ['webgpu' as const] : [])];

describe.each(devices)('on %s', (name) => {
  let device: Device;
  beforeAll(async () => {
    ({ device } = await openDevice(name));
    return () => device.close();
  });
  const runs = { reference: 60, wasm: 12, webgpu: 2 }[name as 'reference' | 'wasm' | 'webgpu']; // shapes are compiled
  const singular = async (x: Tensor): Promise<number[]> => [...(await read((await svdOnHost(x, device)).S))];

  /** A layer with an adapter whose parameters are normal numbers. */
  const adapted = async (m: number, n: number, seed: number, method: Method) => {
    const layer = new Linear(n, m, { bias: false });
    initialize(layer, seed);
    await attach(layer, { method, targetModules: '', seed, device });
    const { adapter } = attachedAdapters(layer)[0]!;
    Object.values(adapter.parameters).forEach((parameter, i) => {
      parameter.value = randomNormal([seed, i], parameter.shape);
    });
    return { layer, adapter };
  };

  it('a change has at most the rank, in the directions that it writes and removes', async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async ({ m, n, seed, rank, option }) => {
        const { layer, adapter } = await adapted(m, n, seed, options[option]!(rank));
        const delta = adapter.deltaWeight(layer);
        const { written, removed } = adapter.change as LowRankChange;
        const apart = written && removed && written.basis !== removed.left;
        const values = await singular(delta);
        const most = option === 'relu_both' && apart ? 2 * rank : rank; // it removes and writes in two spans
        for (const value of values.slice(most)) expect(value).toBeLessThanOrEqual(1e-5 * values[0]!);
        if (values[0] === 0) return; // nmf where no entry of W is above zero
        // delta^T z = 0 for every z orthogonal to the directions: with F their basis, delta = F F^T delta.
        const directions = [written?.basis, removed?.left].filter((x) => x !== undefined);
        const gram = directions.map((x) => matmul(x, transpose(x))).reduce((a, b) => add(a, b));
        const { U, S } = await svdOnHost(gram, device);
        const squares = [...(await read(S))];
        const kept = squares.map((s) => Number(s > 1e-6 * squares[0]!));
        const F = mul(U, tensor(kept, [1, m]));
        const inside = matmul(F, matmul(transpose(F), delta));
        expect(relativeError(await read(inside, device), await read(delta, device))).toBeLessThan(1e-3); // squares halve the digits of float32
      }),
      { numRuns: runs },
    );
  });

  it('PaRa takes exactly r from the rank of a weight of full row rank', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 2, max: 6 }),
        fc.integer({ min: 0, max: 3 }),
        fc.nat(1000),
        async (m, more, seed) => {
          const rank = 1 + (seed % (m - 1));
          const { layer, adapter } = await adapted(m, m + more, seed, methods.para({ rank }));
          layer.weight.value = add(layer.weight.value, tensor(wideEye(m, m + more), [m, m + more]));
          const values = await singular(add(layer.weight.value, adapter.deltaWeight(layer)));
          expect(values.filter((s) => s > 1e-5 * values[0]!)).toHaveLength(m - rank);
        },
      ),
      { numRuns: runs },
    );
  });

  it('signs of the columns of P are nothing to qr: Q stays, and the gradient turns with them', async () => {
    const [m, n, rank] = [6, 4, 3];
    const method = deft({ rank, projector: 'qr', start: 'random' });
    const W0 = randomNormal([8, 0], [m, n]);
    const [P, R, C] = [
      randomNormal([8, 1], [m, rank]),
      randomNormal([8, 2], [rank, n]),
      randomNormal([8, 3], [m, n]),
    ];
    const loss = (deft_P: Tensor): Tensor =>
      sum(mul(method.changes([{ deft_P, deft_R: R }])[0]!.delta(W0), C));
    const plain = await read(grad(loss)(P), device);
    for (const signs of [
      [-1, 1, 1],
      [1, -1, 1],
      [-1, -1, -1],
    ]) {
      const flipped = mul(P, tensor(signs, [1, rank]));
      expect(
        relativeError([...(await read(loss(flipped), device))], [...(await read(loss(P), device))]),
      ).toBeLessThan(1e-5);
      const expected = Array.from(plain, (g, i) => g * signs[i % rank]!);
      expect(relativeError(await read(grad(loss)(flipped), device), expected)).toBeLessThan(1e-4);
    }
  });

  it('a step of training moves P and R alone, each at its own rate', async () => {
    const layer = new Linear(5, 7);
    initialize(layer, 3);
    const { options: preset, basisRate } = deftPresets.recommended;
    await attach(layer, { method: deft({ rank: 2, ...preset }), targetModules: '', seed: 1, device });
    const weights = trainableState(layer);
    expect(Object.keys(weights)).toEqual(['adapters.default.deft_P', 'adapters.default.deft_R']);
    const frozen = Object.values(stateOf(layer, (_path, { trainable }) => !trainable));
    const before = await Promise.all(frozen.map(async (x) => [...(await read(x, device))]));
    const [x, C] = [randomNormal([5, 1], [9, 5]), randomNormal([5, 2], [9, 7])];
    const loss = (theta: typeof weights): Tensor =>
      withState(layer, theta, () => sum(mul(layer.forward(x), C)));
    const optimizer = adamW({
      weightDecay: 0,
      groups: [{ match: /deft_P$/, learningRateFactor: basisRate }],
    });
    const { parameters } = optimizer.update(weights, grad(loss)(weights), optimizer.init(weights), {
      learningRate: 0.01,
    });
    // Adam's first step is the rate in each entry, whatever the size of its gradient.
    for (const [path, rate] of [
      ['deft_P', 0.001],
      ['deft_R', 0.01],
    ] as const) {
      const [from, to] = [weights, parameters].map((theta) => theta[`adapters.default.${path}`]!);
      const moved = [...(await read(add(to!, mul(from!, -1)), device))].map(Math.abs);
      expect(Math.max(...moved) / rate).toBeCloseTo(1, 2);
      expect(Math.min(...moved) / rate).toBeCloseTo(1, 2);
    }
    expect(await Promise.all(frozen.map(async (w) => [...(await read(w, device))]))).toEqual(before);
  });
});

function wideEye(m: number, n: number): number[] {
  return Array.from({ length: m * n }, (_, i) => (i % n === Math.floor(i / n) ? 1 : 0));
}
