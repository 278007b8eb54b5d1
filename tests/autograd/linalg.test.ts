import { grad } from '@deftjs/autograd';
import { gradcheck, gradgradcheck } from '@deftjs/autograd/gradcheck';
import {
  cholesky,
  eigh,
  eighOnHost,
  nmf,
  qr,
  qrOnHost,
  randomizedSvd,
  solveTriangular,
  svd,
  svdOnHost,
} from '@deftjs/autograd/linalg';
import {
  abs,
  add,
  cast,
  type Device,
  evaluate,
  matmul,
  mul,
  narrow,
  randomNormal,
  read,
  referenceDevice,
  ShapeError,
  setDevice,
  stack,
  sub,
  sum,
  type Tensor,
  tensor,
  transpose,
  unsqueeze,
  zeros,
} from '@deftjs/tensor';
import { type DeviceName, openDevice } from '@deftjs/tensor/node';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { eye, largest, matrices, matrixOf, plus, product, tensorOf, transposed } from '../deft/matrices.ts';
import { readCase, relativeError } from '../deft/toy.ts';
import { hasWebGPU } from '../support/webgpu.ts';

const exact = referenceDevice();
beforeAll(() => setDevice(exact));

const diagonal = (values: ArrayLike<number>): number[][] =>
  Array.from(values, (v, i) => Array.from(values, (_, j) => (i === j ? v : 0)));
const symmetric = (A: number[][]): number[][] => plus(A, transposed(A));
const projector = (Q: number[][]): number[][] => product(Q, transposed(Q));
const orthonormality = (Q: number[][]): number =>
  largest(plus(product(transposed(Q), Q), eye(Q[0]!.length), -1));

/** Matrices with extents up to 5, wide, tall and square. */
const anyMatrix = fc
  .tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 5 }))
  .chain(([m, n]) => matrices(m, n));
const anySquare = fc.integer({ min: 1, max: 5 }).chain((n) => matrices(n, n));

/** Columns of lengths 1, 2, 3, ...: singular values apart, entries mixed. */
const graded = fc
  .tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 0, max: 2 }))
  .chain(([n, more]) => matrices(n + more, n))
  .map((A) => A.map((row, i) => row.map((x, j) => 0.15 * x + (i === j ? j + 1 : 0))));

describe.each<[DeviceName, 'f64' | 'f32']>([
  ['reference', 'f64'],
  ['wasm', 'f32'],
  ...(hasWebGPU ? [['webgpu', 'f32'] as [DeviceName, 'f32']] : []),
])('on %s', (name, dtype) => {
  let device: Device;
  beforeAll(async () => {
    ({ device } = await openDevice(name));
    return () => {
      setDevice(exact);
      return device.close();
    };
  });

  // Hundreds of kernels take a software adapter minutes to compile: there, the smaller batches below.
  const itWhereQuick = name === 'webgpu' ? () => {} : it;
  itWhereQuick('equals PyTorch: QR, SVD and eigh, and gradients of functions of them', async () => {
    const golden = await readCase('linalg');
    const at = (key: string): Tensor => cast(golden[key]!, dtype);
    const wide: Tensor[] = [];
    const expectations: [Tensor, string][] = [];
    const expectEqual = (x: Tensor, key: string): void => {
      wide.push(x);
      expectations.push([x, key]);
    };
    const parts = qr(at('qr/A'));
    expectEqual(parts.Q, 'qr/Q');
    expectEqual(parts.R, 'qr/R');
    const ofQr = (A: Tensor): Tensor => add(sum(mul(qr(A).Q, at('qr/wQ'))), sum(mul(qr(A).R, at('qr/wR'))));
    expectEqual(grad(ofQr)(at('qr/A')), 'qr/gradA');
    expectEqual(svd(at('svd/A')).S, 'svd/S');
    const ofSvd = (A: Tensor): Tensor => {
      const { U, S } = svd(A);
      return add(sum(mul(S, at('svd/wS'))), sum(mul(matmul(U, transpose(U)), at('svd/wUU'))));
    };
    expectEqual(grad(ofSvd)(at('svd/A')), 'svd/gradA');
    expectEqual(eigh(at('eigh/A')).values, 'eigh/values');
    const ofEigh = (A: Tensor): Tensor => {
      const { values, vectors } = eigh(A);
      const top = narrow(vectors, -1, vectors.shape.at(-1)! - 3, 3);
      const projection = matmul(top, transpose(top));
      return add(sum(mul(values, at('eigh/wValues'))), sum(mul(projection, at('eigh/wTop3Projector'))));
    };
    expectEqual(grad(ofEigh)(at('eigh/A')), 'eigh/gradA');
    await evaluate(wide, device);
    // float32 of another library: 1e-5 is some hundred units in the last place.
    for (const [x, key] of expectations) {
      expect(relativeError(await read(x), await read(golden[key]!)), key).toBeLessThan(1e-5);
    }
  });

  it('decomposes batches: each matrix as alone, factors multiplying back to it', async () => {
    const A = randomNormal([4, 2], name === 'webgpu' ? [2, 1, 3, 2] : [2, 2, 7, 4], dtype);
    const gram = matmul(transpose(A), A);
    const { U, S, V } = svd(A);
    const { values, vectors } = eigh(gram);
    const L = cholesky(gram);
    const alone = svd(narrow(A, 0, 1, 1));
    const differences = [
      sub(matmul(mul(U, unsqueeze(S, -2)), transpose(V)), A),
      sub(matmul(mul(vectors, unsqueeze(values, -2)), transpose(vectors)), gram),
      sub(matmul(L, transpose(L)), gram),
      sub(matmul(gram, solveBoth(L, transpose(A))), transpose(A)),
      sub(alone.S, narrow(S, 0, 1, 1)),
    ];
    await evaluate(differences, device);
    for (const difference of differences) {
      const worst = Math.max(...(await read(difference)).map(Math.abs));
      expect(worst).toBeLessThan(dtype === 'f64' ? 1e-13 : 1e-4); // entries of gram reach 20
    }
  });
});

/** A^-1 B by the Cholesky factor of A. */
function solveBoth(L: Tensor, B: Tensor): Tensor {
  return solveTriangular(transpose(L), solveTriangular(L, B, 'lower'), 'upper');
}

describe('svd', () => {
  it('is orthonormal vectors and values in order that multiply back, for every shape and rank', async () => {
    const rankDeficient = fc
      .tuple(matrices(5, 2), matrices(2, 4))
      .map(([B, C]) => product(B, C).map((row) => [...row, 0]));
    await fc.assert(
      fc.asyncProperty(fc.oneof(anyMatrix, rankDeficient), async (A) => {
        const { U, S, V } = svd(tensorOf(A));
        const [u, v, s] = [await matrixOf(U), await matrixOf(V), [...(await read(S))]];
        const size = Math.max(1, largest(A));
        expect(largest(plus(product(product(u, diagonal(s)), transposed(v)), A, -1)) / size).toBeLessThan(
          1e-13,
        );
        expect(Math.max(orthonormality(u), orthonormality(v))).toBeLessThan(1e-13);
        expect(s.every((x, i) => x >= 0 && (i === 0 || x <= s[i - 1]!))).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  it('has the derivatives of its definition, to the second order', async () => {
    await fc.assert(
      fc.asyncProperty(graded, async (A) => {
        await gradcheck((x: Tensor) => ({ ...svd(x) }), [tensorOf(A)]);
        await gradcheck((x: Tensor) => ({ ...svd(x) }), [tensorOf(transposed(A))]);
      }),
      { numRuns: 2 },
    );
    const A = tensorOf([
      [2, 0.25],
      [0.5, 1],
      [-0.25, 0.75],
    ]);
    await gradgradcheck((x: Tensor) => ({ ...svd(x) }), [A]);
  });

  it('has exact gradients at repeated values for functions that do not see the choice of vectors', async () => {
    const A = tensorOf([
      [2, 0, 0],
      [0, 2, 0],
      [0, 0, 2],
      [0, 0, 0],
    ]);
    const W = tensorOf(fc.sample(matrices(4, 4), { numRuns: 1, seed: 2 })[0]!);
    const total = await matrixOf(grad((x: Tensor) => sum(svd(x).S))(A)); // nuclear norm: U V^T
    expect(total).toEqual([...eye(3), [0, 0, 0]]);
    await gradcheck(
      (x: Tensor) => {
        const { U } = svd(x);
        return sum(mul(matmul(U, transpose(U)), W));
      },
      [A],
    );
  });

  it('leaves out what has no derivative at a zero value: finite gradients', async () => {
    const A = tensorOf([
      [1, 2],
      [2, 4],
      [3, 6],
    ]);
    const g = grad((x: Tensor) => {
      const { U, S, V } = svd(x);
      return add(sum(mul(S, S)), add(sum(mul(U, U)), sum(mul(V, V))));
    })(A);
    // The squares of S sum to |A|^2; those of U and V are constants.
    expect(largest(plus(await matrixOf(g), await matrixOf(A), -2))).toBeLessThan(1e-12);
  });
});

describe('randomizedSvd', () => {
  it('is exact for a matrix of its rank, and near the best for others', async () => {
    const B = randomNormal([1, 1], [40, 3], 'f64');
    const C = randomNormal([1, 2], [3, 30], 'f64');
    const noise = randomNormal([1, 3], [40, 30], 'f64');
    const A = add(matmul(B, C), mul(noise, 1e-3));
    const { U, S, V } = randomizedSvd(A, 3, [5, 6], { oversample: 3, iterations: 1 });
    const whole = [...(await read((await svdOnHost(A)).S))];
    expect(relativeError(await read(S), whole.slice(0, 3))).toBeLessThan(1e-9);
    const rest = sub(matmul(mul(U, unsqueeze(S, 0)), transpose(V)), A);
    expect(Math.hypot(...(await read(rest))) / Math.hypot(...whole.slice(3))).toBeLessThan(1.01); // Eckart and Young
  });

  it('refuses a rank that the matrix does not have', () => {
    expect(() => randomizedSvd(zeros([3, 4]), 4, [1, 2])).toThrow(
      new RangeError('randomizedSvd: expected a rank in [1, 3]; got 4'),
    );
  });
});

describe('eigh', () => {
  it('diagonalises: orthonormal vectors, values in order, the matrix back', async () => {
    await fc.assert(
      fc.asyncProperty(anySquare, async (A) => {
        const M = symmetric(A);
        const { values, vectors } = eigh(tensorOf(M));
        const [V, w] = [await matrixOf(vectors), [...(await read(values))]];
        expect(orthonormality(V)).toBeLessThan(1e-13);
        expect(largest(plus(product(product(V, diagonal(w)), transposed(V)), M, -1))).toBeLessThan(1e-12);
        expect(w.every((x, i) => i === 0 || x >= w[i - 1]!)).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  it('converges on values of both signs, clusters and sizes far apart', async () => {
    for (const w of [
      [-1, -1, 1, 1, 1, 0, 0],
      [1e-8, -1e-4, 1, 2, 2, 2 + 1e-9, -2],
      [1, 1, 1, 1, 1, 1, 1],
    ]) {
      const { Q } = qr(randomNormal([3, 3], [7, 7], 'f64'));
      const A = matmul(mul(Q, tensor(w, [1, 7], 'f64')), transpose(Q));
      const { values, vectors } = eigh(A);
      expect(
        relativeError(
          await read(values),
          [...w].sort((a, b) => a - b),
        ),
      ).toBeLessThan(1e-14 * 7);
      expect(orthonormality(await matrixOf(vectors))).toBeLessThan(1e-13);
    }
  });

  it('has the derivatives of its definition, to the second order', async () => {
    const A = tensorOf([
      [1, 0.5, -0.25],
      [0.25, 3, 0.5],
      [0.5, 0, 6],
    ]);
    await gradcheck((x: Tensor) => ({ ...eigh(x) }), [A]);
    const small = tensorOf([
      [1, 0.5],
      [0.25, 3],
    ]);
    await gradgradcheck((x: Tensor) => ({ ...eigh(x) }), [small]);
  });

  it('has exact gradients at repeated values for sums and projectors of whole spaces', async () => {
    const A = tensorOf(diagonal([1, 1, 3]));
    await gradcheck(
      (x: Tensor) => {
        const { values, vectors } = eigh(x);
        const space = narrow(vectors, -1, 0, 2);
        return { total: sum(narrow(values, -1, 0, 2)), space: matmul(space, transpose(space)) };
      },
      [A],
    );
  });
});

describe('cholesky and solveTriangular', () => {
  const positive = anySquare.map((A) => plus(product(A, transposed(A)), eye(A.length)));

  it('factor and solve to rounding', async () => {
    await fc.assert(
      fc.asyncProperty(positive, async (A) => {
        const L = await matrixOf(cholesky(tensorOf(A)));
        expect(largest(plus(product(L, transposed(L)), A, -1))).toBeLessThan(1e-12);
        expect(L.every((row, i) => row.every((x, j) => (j > i ? x === 0 : j < i || x > 0)))).toBe(true);
        const B = tensorOf(A.map((row) => row.slice(0, 1)));
        const X = await matrixOf(solveBoth(tensorOf(L), B));
        expect(largest(plus(product(A, X), await matrixOf(B), -1))).toBeLessThan(1e-11);
      }),
      { numRuns: 40 },
    );
  });

  it('have the derivatives of their definitions, to the second order', async () => {
    const A = tensorOf([
      [3, 0.5, -0.25],
      [0.25, 2, 0.5],
      [0.5, 0, 1],
    ]);
    const B = tensorOf([
      [1, 2],
      [0.5, -1],
      [0, 3],
    ]);
    await gradcheck(cholesky, [A]);
    await gradgradcheck(cholesky, [A]);
    for (const side of ['lower', 'upper'] as const) {
      await gradcheck((T: Tensor, b: Tensor) => solveTriangular(T, b, side), [A, B]);
      await gradgradcheck((T: Tensor, b: Tensor) => solveTriangular(T, b, side), [A, B]);
    }
  });

  it('give NaN for a matrix that is not positive definite', async () => {
    expect([...(await read(cholesky(tensorOf([[-1]]))))]).toEqual([Number.NaN]);
  });

  it('refuse shapes that do not fit', () => {
    expect(() => cholesky(zeros([2, 3]))).toThrow(
      new ShapeError('cholesky: expected [..., n, n] with n >= 1; got [2, 3]'),
    );
    expect(() => solveTriangular(zeros([2, 2]), zeros([3, 1]), 'lower')).toThrow(
      new ShapeError('solveTriangular: expected [..., n, n] and [..., n, k]; got [2, 2] and [3, 1]'),
    );
  });
});

describe('nmf', () => {
  const nonNegative = matrices(5, 4).map((A) => A.map((row) => row.map(Math.abs)));

  it('never increases its objective, and stays non-negative', async () => {
    await fc.assert(
      fc.asyncProperty(nonNegative, fc.nat(1000), async (V, seed) => {
        const start = {
          W: abs(randomNormal([seed, 1], [5, 2], 'f64')),
          H: abs(randomNormal([seed, 2], [2, 4], 'f64')),
        };
        let before = Number.POSITIVE_INFINITY;
        for (let iterations = 0; iterations < 6; iterations += 1) {
          const { W, H } = nmf(tensorOf(V), start, iterations);
          const [w, h] = [await matrixOf(W), await matrixOf(H)];
          const objective = Math.hypot(...plus(product(w, h), V, -1).flat());
          expect(Math.min(...w.flat(), ...h.flat())).toBeGreaterThanOrEqual(0);
          expect(objective).toBeLessThanOrEqual(before * (1 + 1e-12));
          before = objective;
        }
      }),
      { numRuns: 25 },
    );
  });

  it('finds factors that exist', async () => {
    const W = abs(randomNormal([1, 1], [6, 2], 'f64'));
    const H = abs(randomNormal([1, 2], [2, 5], 'f64'));
    const start = {
      W: abs(randomNormal([2, 1], [6, 2], 'f64')),
      H: abs(randomNormal([2, 2], [2, 5], 'f64')),
    };
    const V = matmul(W, H);
    const found = nmf(V, start, 300);
    expect(relativeError(await read(matmul(found.W, found.H)), await read(V))).toBeLessThan(1e-2);
  });

  it('has the derivatives of its updates', async () => {
    const positive = (seed: number, shape: readonly number[]): Tensor =>
      add(abs(randomNormal([seed, 0], shape, 'f64')), 0.5);
    await gradcheck(
      (V: Tensor, W: Tensor, H: Tensor) => ({ ...nmf(V, { W, H }, 2) }),
      [positive(1, [3, 3]), positive(2, [3, 2]), positive(3, [2, 3])],
    );
  });

  it('refuses factors of other shapes', () => {
    expect(() => nmf(zeros([3, 4]), { W: zeros([3, 2]), H: zeros([3, 4]) }, 1)).toThrow(
      new ShapeError('nmf: expected W [3, r] and H [r, 4]; got [3, 2] and [3, 4]'),
    );
  });
});

describe('on the host', () => {
  it('decomposes as the graphs do, in float64', async () => {
    await fc.assert(
      fc.asyncProperty(anyMatrix, async (A) => {
        const { U, S, V } = await svdOnHost(tensorOf(A));
        const [u, v, s] = [await matrixOf(U), await matrixOf(V), [...(await read(S))]];
        expect(largest(plus(product(product(u, diagonal(s)), transposed(v)), A, -1))).toBeLessThan(1e-13);
        expect(Math.max(orthonormality(u), orthonormality(v))).toBeLessThan(1e-13);
        const graph = [...(await read(svd(tensorOf(A)).S))];
        expect(Math.max(...s.map((x, i) => Math.abs(x - graph[i]!)))).toBeLessThan(1e-13);
        if (A.length < A[0]!.length) return;
        const [host, own] = [await qrOnHost(tensorOf(A)), qr(tensorOf(A))];
        expect(largest(plus(await matrixOf(host.R), await matrixOf(own.R), -1))).toBeLessThan(1e-12);
        expect(largest(plus(product(await matrixOf(host.Q), await matrixOf(host.R)), A, -1))).toBeLessThan(
          1e-12,
        );
      }),
      { numRuns: 40 },
    );
  });

  it('diagonalises symmetric matrices of both signs, with repeated values', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(anySquare, fc.constant(eye(6))), async (A) => {
        const M = symmetric(A);
        const { values, vectors } = await eighOnHost(tensorOf(M));
        const [V, w] = [await matrixOf(vectors), [...(await read(values))]];
        expect(orthonormality(V)).toBeLessThan(1e-13);
        expect(largest(plus(product(product(V, diagonal(w)), transposed(V)), M, -1))).toBeLessThan(1e-12);
        expect(w.every((x, i) => i === 0 || x >= w[i - 1]!)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  it('keeps small singular values and their vectors, which squares of the matrix would lose', async () => {
    const { Q } = qr(randomNormal([3, 3], [60, 20], 'f64'));
    const { Q: P } = qr(randomNormal([3, 4], [20, 20], 'f64'));
    const s = Array.from({ length: 20 }, (_, i) => 10 ** (-i / 2)); // down to 3e-10
    const A = matmul(mul(Q, tensor(s, [1, 20], 'f64')), transpose(P));
    const { U, S, V } = await svdOnHost(A);
    expect(Math.max(...[...(await read(S))].map((x, i) => Math.abs(x - s[i]!)))).toBeLessThan(1e-15);
    expect(Math.max(orthonormality(await matrixOf(U)), orthonormality(await matrixOf(V)))).toBeLessThan(
      1e-13,
    );
    const spread = largest(plus(projector(await matrixOf(U)), projector(await matrixOf(Q)), -1));
    expect(spread).toBeLessThan(1e-5); // rounding of A over the smallest value
  });

  it('takes float32 to float32', async () => {
    const { S } = await svdOnHost(stack([tensor([3, 0]), tensor([0, 4])]));
    expect([S.dtype, ...(await read(S))]).toEqual(['f32', 4, 3]);
  });
});
