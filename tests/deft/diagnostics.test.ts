import { symmetricEigen } from '@deftjs/autograd/linalg';
import { initialize, Linear } from '@deftjs/autograd/nn';
import {
  attach,
  deft,
  diagnose,
  full,
  type LayerAdapter,
  type LayerDiagnostics,
  type LowRankChange,
  lora,
  type Method,
} from '@deftjs/deft';
import { randomNormal, referenceDevice, setDevice } from '@deftjs/tensor';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { eye, largest, matrices, matrixOf, plus, product, transposed } from './matrices.ts';

beforeAll(() => setDevice(referenceDevice()));

async function adapted(
  method: Method,
  perturbed = true,
): Promise<{ layer: Linear; numbers: LayerDiagnostics }> {
  const layer = new Linear(6, 8);
  initialize(layer, 4);
  await attach(layer, { method, targetModules: '', seed: 1 });
  const adapter = layer.adapters.default as LayerAdapter;
  if (perturbed) {
    Object.values(adapter.parameters).forEach((parameter, i) => {
      parameter.value = randomNormal([2, i], parameter.shape);
    });
  }
  const [numbers] = await diagnose(layer);
  return { layer, numbers: numbers! };
}

const norm = (a: number[][]): number => Math.hypot(...a.flat());

describe('diagnose', () => {
  it.each<[string, Method]>([
    ['none', deft({ rank: 2, start: 'random' })],
    ['relu', deft({ rank: 2, projector: 'relu', start: 'random', alpha: 5 })],
    ['relu_both', deft({ rank: 2, projector: 'relu_both', start: 'random' })],
    ['svd', deft({ rank: 2, projector: 'svd', start: 'random' })],
    ['qr', deft({ rank: 2, projector: 'qr', start: 'random' })],
    ['para', deft({ rank: 2, projector: 'relu', para: true })],
    ['lora', lora({ rank: 2, alpha: 5 })],
  ])('%s: equals the numbers of the dense matrices', async (_name, method) => {
    const { layer, numbers } = await adapted(method);
    const { written, removed } = (layer.adapters.default as LayerAdapter).change as LowRankChange;
    const W0 = await matrixOf(layer.weight.value);
    const zero = W0.map((row) => row.map(() => 0));
    const put = written ? product(await matrixOf(written.basis), await matrixOf(written.rows)) : zero;
    const K = removed && product(await matrixOf(removed.left), transposed(await matrixOf(removed.right!)));
    const taken = K ? product(K, W0) : zero;
    const delta = plus(put, taken, -1);
    // Small matrices are read as float32, and the roots of differences halve the digits at worst.
    expect(numbers.injectedEnergy).toBeCloseTo(norm(put) / norm(W0), 4);
    expect(numbers.removedEnergy).toBeCloseTo(norm(taken) / norm(W0), 4);
    expect(numbers.changeEnergy).toBeCloseTo(norm(delta) / norm(W0), 4);
    if (K) expect(numbers.projectorDefect).toBeCloseTo(norm(plus(product(K, K), K, -1)), 3);
    else expect(numbers.projectorDefect).toBeNull();
    const singular = symmetricEigen(product(transposed(delta), delta)).values.map((v) =>
      Math.sqrt(Math.max(0, v)),
    );
    const total = singular.reduce((a, b) => a + b, 0);
    const entropy = singular.reduce((a, s) => (s < 1e-6 ? a : a - (s / total) * Math.log(s / total)), 0);
    expect(numbers.effectiveRank).toBeCloseTo(Math.exp(entropy), 2);
    const kept = K ? plus(eye(8), K, -1) : eye(8);
    const spectrum = symmetricEigen(product(transposed(kept), kept)).values.map((v) =>
      Math.sqrt(Math.max(0, v)),
    );
    const amplifies = spectrum[0]! > 1.01;
    expect(numbers.warnings).toHaveLength(amplifies ? 1 : 0);
    if (!K) expect(numbers.keptSpectrum).toEqual([]);
    // Outside of the span of L and T the spectrum of I - K is 1.
    else if (amplifies) expect(numbers.keptSpectrum[0]! / spectrum[0]!).toBeCloseTo(1, 3);
    else expect(numbers.keptSpectrum.every((s) => Math.min(Math.abs(s), Math.abs(s - 1)) < 2e-3)).toBe(true);
  });

  it('counts the directions of a whole weight', async () => {
    const { numbers } = await adapted(full());
    expect(numbers.effectiveRank).toBeGreaterThan(3);
    expect(numbers.injectedEnergy).toBe(numbers.changeEnergy);
    expect(numbers.projectorDefect).toBeNull();
  });

  it('sees no change at an identity start, though as much is removed as is written', async () => {
    const { numbers } = await adapted(deft({ rank: 2, projector: 'qr' }), false);
    expect(numbers.changeEnergy).toBeLessThan(1e-3); // a root of float32 rounding
    expect(numbers.removedEnergy).toBeGreaterThan(0.1);
    expect(numbers.injectedEnergy).toBeCloseTo(numbers.removedEnergy, 5);
    expect(numbers.projectorDefect).toBeLessThan(1e-3);
    expect(numbers.path).toBe('');
  });

  it('says which adapters there are', async () => {
    const { layer } = await adapted(lora({ rank: 1 }));
    await expect(diagnose(layer, 'other')).rejects.toThrow(
      'diagnose: no adapter is named "other"; there are: default',
    );
  });
});

describe('symmetricEigen', () => {
  it('diagonalises: orthonormal vectors, values in order, the matrix back', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }).chain((n) => matrices(n, n)),
        (A) => {
          const S = plus(A, transposed(A));
          const { values, vectors } = symmetricEigen(S);
          expect(largest(plus(product(vectors, transposed(vectors)), eye(S.length), -1))).toBeLessThan(1e-12);
          const D = eye(S.length).map((row, i) => row.map((x) => x * values[i]!));
          expect(largest(plus(product(product(transposed(vectors), D), vectors), S, -1))).toBeLessThan(1e-11);
          expect([...values].sort((a, b) => b - a)).toEqual(values);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('converges on products of few vectors of many numbers, whose other values are rounding errors', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: -6, max: 0 }),
        fc.nat(),
        (k, power, seed) => {
          let state = seed % 2147483647 || 1;
          const uniform = () => {
            state = (state * 48271) % 2147483647;
            return (state / 2147483647 - 0.5) * 10 ** power;
          };
          const X = Array.from({ length: k }, () => Array.from({ length: 64 }, uniform));
          const S = product(transposed(X), X); // 64 x 64, of rank k
          const { values, vectors } = symmetricEigen(S);
          const D = eye(64).map((row, i) => row.map((x) => x * values[i]!));
          const rest = largest(plus(product(product(transposed(vectors), D), vectors), S, -1));
          expect(rest).toBeLessThan(1e-13 * 64 * largest(S));
          expect(Math.abs(values[k]!)).toBeLessThan(1e-13 * values[0]!);
        },
      ),
      { numRuns: 40 },
    );
  });
});
