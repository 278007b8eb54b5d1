import { qrOnHost } from '@deftjs/autograd/linalg';
import { Linear, Module, namedParameters } from '@deftjs/autograd/nn';
import {
  advise,
  attach,
  type Candidate,
  costOf,
  halve,
  type LayerSignals,
  layerSignals,
  lora,
  probe,
  rungsWithin,
  type Trial,
  trialsOf,
} from '@deftjs/deft';
import {
  meanSquaredError,
  mul,
  randomNormal,
  read,
  referenceDevice,
  setDevice,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { eye, matrixOf, product, rowsOf, tensorOf, transposed } from './matrices.ts';

beforeAll(() => setDevice(referenceDevice()));

const [m, n] = [7, 5];

/** Orthonormal columns [rows, k], by stream. */
const orthonormal = async (rows: number, k: number, stream: number): Promise<number[][]> =>
  matrixOf((await qrOnHost(randomNormal([3, stream], [rows, k], 'f64'))).Q);

const norm = (a: number[][]): number => Math.hypot(...a.flat());

/** U diag(s) V^T */
const composed = (U: number[][], s: readonly number[], V: number[][]): number[][] =>
  product(
    U.map((row) => row.map((u, i) => u * s[i]!)),
    transposed(V),
  );

describe('layerSignals', () => {
  it('read off singular values that were planted, and the directions that hold 90 %', async () => {
    const values = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: n });
    await fc.assert(
      fc.asyncProperty(values, fc.nat(50), async (planted, stream) => {
        const s = planted.toSorted((a, b) => b - a);
        const [U, V] = [await orthonormal(m, s.length, stream), await orthonormal(n, s.length, 51 + stream)];
        const W = randomNormal([4, stream], [m, n]);
        const { energy, rank, gradientNorm } = await layerSignals('', W, tensorOf(composed(U, s, V)));
        const whole = s.reduce((sum, x) => sum + x * x, 0);
        const shares = s.map((_, i) => s.slice(0, i + 1).reduce((sum, x) => sum + x * x, 0) / whole);
        expect(gradientNorm).toBeCloseTo(Math.sqrt(whole), 5);
        shares.forEach((share, i) => {
          expect(energy[i]).toBeCloseTo(share, 6);
        });
        const fitting = shares.findIndex((share) => share >= 0.9);
        if (Math.min(...shares.map((share) => Math.abs(share - 0.9))) > 1e-6) expect(rank).toBe(1 + fitting);
      }),
      { numRuns: 25 },
    );
  });

  it("tell a gradient in the weight's own directions from one beside them", async () => {
    const U = await orthonormal(m, 4, 1);
    const V = await orthonormal(n, 4, 2);
    const W = composed(
      U.map((row) => row.slice(0, 2)),
      [4, 3],
      V.map((row) => row.slice(0, 2)),
    );
    const own = await layerSignals('', tensorOf(W), tensorOf(W));
    expect(own.rank).toBe(2);
    expect(Math.max(...own.anglesToWeight)).toBeLessThan(1e-6);
    expect(own.removal).toBeCloseTo(1, 6);
    expect(own.askedRemoval).toBeCloseTo(1, 6); // descent along -W shrinks W
    const growing = await layerSignals('', tensorOf(W), tensorOf(W.map((row) => row.map((w) => -w))));
    expect(growing.askedRemoval).toBeCloseTo(-1, 6);
    const beside = composed(
      U.map((row) => row.slice(2)),
      [4, 3],
      V.map((row) => row.slice(2)),
    );
    const other = await layerSignals('', tensorOf(W), tensorOf(beside));
    expect(other.removal).toBeLessThan(1e-6);
    expect(Math.min(...other.anglesToWeight)).toBeCloseTo(Math.PI / 2, 6);
  });

  it('have a removal equal to that of the dense projector', async () => {
    const s = [5, 4, 0.1];
    const U = await orthonormal(m, 3, 5);
    const W = randomNormal([6, 6], [m, n]);
    const signals = await layerSignals('', W, tensorOf(composed(U, s, await orthonormal(n, 3, 6))));
    const Q = U.map((row) => row.slice(0, 2));
    const dense = await matrixOf(W);
    expect(signals.removal).toBeCloseTo((norm(product(transposed(Q), dense)) / norm(dense)) ** 2, 6);
  });

  it("of sparsity and sign follow Hoyer's measure and the entries", async () => {
    const W = randomNormal([6, 6], [4, 4]);
    const of = (rows: number[][]): Promise<LayerSignals> => layerSignals('', W, tensorOf(rows));
    const flat = await of(eye(4).map((row) => row.map(() => -2)));
    expect([flat.sparsity, flat.growing]).toEqual([expect.closeTo(0, 12), expect.closeTo(1, 12)]);
    const single = await of(eye(4).map((row, i) => row.map((x) => (i === 1 ? 3 * x : 0))));
    expect([single.sparsity, single.growing]).toEqual([expect.closeTo(1, 12), 0]);
  });

  it('of a convolution are those of its matrix', async () => {
    const W = randomNormal([6, 6], [4, 2, 3, 3]);
    const G = randomNormal([6, 7], [4, 2, 3, 3]);
    const flat = (x: Tensor): Promise<Tensor> =>
      read(x).then((values) => tensor(Float32Array.from(values), [4, 18]));
    const { shape: _, ...conv } = await layerSignals('', W, G);
    const { shape: __, ...matrix } = await layerSignals('', await flat(W), await flat(G));
    expect(conv).toEqual(matrix);
  });

  it('of no gradient are zero; what does not fit or is not finite is refused', async () => {
    const W = randomNormal([6, 6], [2, 2]);
    const zero = await layerSignals('a', W, tensor([0, 0, 0, 0], [2, 2]));
    expect(zero).toMatchObject({ rank: 0, energy: [], removal: 0, gradientNorm: 0 });
    await expect(layerSignals('a', W, tensor([0, 0], [1, 2]))).rejects.toThrow(
      'the gradient of a must be of its',
    );
    await expect(layerSignals('a', W, tensor([0, 0, Number.NaN, 0], [2, 2]))).rejects.toThrow(
      'the gradient of a must be finite',
    );
  });
});

/** Trials that score by a function of the candidate and the steps taken, and say when they end. */
function scripted<C>(score: (candidate: C, steps: number) => number) {
  const log = { steps: 0, open: 0, most: new Map<C, number>() };
  const start = async (candidate: C): Promise<Trial> => {
    log.open += 1;
    let taken = 0;
    return {
      advance: async (more) => {
        taken += more;
        log.steps += more;
        log.most.set(candidate, taken);
        return score(candidate, taken);
      },
      end: () => {
        log.open -= 1;
      },
    };
  };
  return { log, start };
}

describe('halving', () => {
  const games = fc.record({
    candidates: fc.integer({ min: 1, max: 80 }),
    steps: fc.integer({ min: 1, max: 300 }),
    share: fc.double({ min: 0.02, max: 1, noNaN: true }),
  });

  it('keeps to its budget, brings its best to the end and finds what is best from the start', async () => {
    await fc.assert(
      fc.asyncProperty(games, async ({ candidates, steps, share }) => {
        const budget = share * candidates * steps;
        let rungs: ReturnType<typeof rungsWithin>;
        try {
          rungs = rungsWithin(budget, candidates, steps);
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
          return;
        }
        const { log, start } = scripted((candidate: number, taken) => ((candidate * 7919) % 97) + 1 / taken);
        const all = Array.from({ length: candidates }, (_, i) => i);
        const ranking = await halve(all, rungs, start);
        expect(log.steps).toBe(costOf(rungs));
        expect(log.steps).toBeLessThanOrEqual(budget);
        expect(log.open).toBe(0);
        expect(ranking.map(({ candidate }) => candidate).toSorted((a, b) => a - b)).toEqual(all);
        expect(ranking[0]!.steps).toBe(steps);
        const least = Math.min(...all.map((candidate) => (candidate * 7919) % 97));
        expect(((ranking[0]!.candidate as number) * 7919) % 97).toBe(least);
        for (const { candidate, steps: taken } of ranking) expect(log.most.get(candidate)).toBe(taken);
      }),
      { numRuns: 200 },
    );
  });

  it('counts NaN as the worst, and ends every trial when one throws', async () => {
    const rungs = [
      { candidates: 3, steps: 1 },
      { candidates: 2, steps: 2 },
    ];
    const { start } = scripted((candidate: number) => (candidate === 0 ? Number.NaN : candidate));
    expect((await halve([0, 1, 2], rungs, start)).map(({ candidate }) => candidate)).toEqual([1, 2, 0]);
    const failing = scripted((candidate: number) => {
      if (candidate === 1) throw new Error('no memory');
      return candidate;
    });
    await expect(halve([0, 1, 2], rungs, failing.start)).rejects.toThrow('no memory');
    expect(failing.log.open).toBe(0);
  });
});

describe('advise', () => {
  const signal = (rank: number, askedRemoval: number): LayerSignals => ({
    path: 'layer',
    shape: [8, 8],
    gradientNorm: 1,
    energy: [],
    rank,
    anglesToWeight: [0],
    removal: 0.2,
    askedRemoval,
    sparsity: 0,
    growing: 0.5,
  });

  it('takes at most a quarter of the steps of a sweep, probe included, whatever the signals say', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 40, max: 200 }),
        fc.integer({ min: 0, max: 50 }),
        fc.uniqueArray(fc.integer({ min: 1, max: 64 }), { minLength: 3, maxLength: 6 }),
        fc.integer({ min: 0, max: 64 }),
        fc.double({ min: -1, max: 1, noNaN: true }),
        async (steps, probeSteps, ranks, needed, asked) => {
          const { log, start } = scripted(({ rank }: Candidate, taken) => rank / taken);
          const signals = [signal(needed, asked)];
          const advice = await advise({ signals, probeSteps, ranks, steps, start });
          expect(advice.steps).toBe(log.steps + probeSteps);
          expect(advice.sweepSteps).toBe(9 * ranks.length * steps);
          expect(advice.steps).toBeLessThanOrEqual(0.25 * advice.sweepSteps);
          expect(advice.best).toEqual(advice.ranking[0]!.candidate);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('leaves out ranks that are too small and removal that is not asked for, and says so', async () => {
    const { log, start } = scripted(({ rank }: Candidate) => rank);
    const { reasons } = await advise({
      signals: [signal(6, 0)],
      probeSteps: 20,
      ranks: [1, 2, 4, 8],
      steps: 50,
      start,
    });
    const tried = [...log.most.keys()];
    expect(new Set(tried.map(({ rank }) => rank))).toEqual(new Set([4, 8]));
    expect(tried.some(({ name }) => name === 'para')).toBe(false);
    expect(reasons.slice(1, 3)).toEqual([
      expect.stringContaining('ranks 1, 2 are left out'),
      expect.stringContaining('para is left out'),
    ]);
    await expect(advise({ signals: [], probeSteps: 1, ranks: [1], steps: 1, start })).rejects.toThrow(
      'advise: expected signals and ranks; got 0 layers and 1 ranks',
    );
  });
});

class Two extends Module {
  readonly a = new Linear(4, 6, { bias: false });
  readonly b = new Linear(6, 3);
}

describe('probe and trials', () => {
  const [W, x, y] = [
    randomNormal([1, 1], [6, 4]),
    randomNormal([1, 2], [9, 4]),
    randomNormal([1, 3], [9, 6]),
  ];
  const model = (): Two => {
    const two = new Two();
    for (const [path, parameter] of namedParameters(two))
      parameter.value = path === 'a.weight' ? W : randomNormal([2, path.length], parameter.shape);
    return two;
  };
  const taskOf = (module: Two) => ({
    module,
    targetModules: ['a'],
    data: (step: number) => ({ shift: tensor([step]) }),
    loss: ({ shift }: { shift: Tensor }) => meanSquaredError(module.a.forward(x), mul(y, shift)),
    heldOut: { wanted: y },
    score: ({ wanted }: { wanted: Tensor }) => meanSquaredError(module.a.forward(x), wanted),
    learningRate: 0.05,
    seed: 3,
  });
  it('average the gradient over the steps: that of the mean target', async () => {
    const module = model();
    const [signals] = await probe(taskOf(module), 3); // targets y s with s = 0, 1, 2
    const [dense, inputs, targets] = [await matrixOf(W), await matrixOf(x), await matrixOf(y)];
    // d/dW mean (x W^T - y)^2 = 2 / 54 (x W^T - y)^T x, linear in the target
    const error = product(inputs, transposed(dense)).map((row, i) => row.map((v, j) => v - targets[i]![j]!));
    const gradient = product(transposed(error), inputs).map((row) => row.map((v) => (2 / 54) * v));
    expect(signals!.path).toBe('a');
    expect(signals!.gradientNorm).toBeCloseTo(norm(gradient), 5);
  });

  it('train a candidate as a whole training would, in any portions, and leave the module as it was', async () => {
    const module = model();
    module.b.weight.trainable = false;
    const before = [...namedParameters(module)].map(([path, p]) => [path, p.value, p.trainable]);
    using trials = trialsOf(taskOf(module));
    const scores: number[] = [];
    for (const portions of [[5], [2, 3]]) {
      const trial = await trials.start({ name: 'qr', rank: 2 });
      let score = Number.NaN;
      for (const steps of portions) score = await trial.advance(steps);
      scores.push(score);
      trial.end();
    }
    expect(scores[0]).toBe(scores[1]);
    expect([...namedParameters(module)].map(([path, p]) => [path, p.value, p.trainable])).toEqual(before);
    const base = rowsOf(await read(meanSquaredError(module.a.forward(x), y)), 1)[0]![0]!;
    expect(scores[0]).not.toBe(base);
    const untrained = await trials.start({ name: 'lora', rank: 1 });
    expect(await untrained.advance(0)).toBeCloseTo(base, 6); // an identity start
    untrained.end();
    await expect(trials.start({ name: 'lora', rank: 5 })).rejects.toThrow('rank 5 is too large for a');
    await attach(module, { method: lora({ rank: 1 }), targetModules: ['a'], seed: 0 });
    const beside = await trials.start({ name: 'para', rank: 1 });
    beside.end();
    expect(Object.keys(module.a.adapters)).toEqual(['default']);
  });
});
