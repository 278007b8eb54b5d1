import { gradcheck, gradgradcheck } from '@deftjs/autograd/gradcheck';
import { orthonormalBases, orthonormalBasis, polarFactor, qr } from '@deftjs/autograd/linalg';
import { mul, ShapeError, type Tensor, tensor, transpose } from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  eye,
  householder,
  largest,
  matrices,
  matrixOf,
  plus,
  product,
  tensorOf,
  transposed,
} from '../deft/matrices.ts';

/**
 * A tall matrix whose columns are far from dependent: 4 I on top of small entries, signs mixed. None of them is 0: a
 * column of zeros below its head is left alone, and there Q jumps.
 */
const wellConditioned = fc
  .tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 0, max: 4 }))
  .chain(([n, more]) =>
    fc
      .tuple(matrices(n + more, n), fc.array(fc.boolean(), { minLength: n, maxLength: n }))
      .map(([A, signs]) =>
        A.map((row, i) => row.map((x, j) => 0.25 * (x || 1) + (i === j ? (signs[j] ? 4 : -4) : 0))),
      ),
  );

describe('qr', () => {
  it('reconstructs A from orthonormal columns and an upper triangle', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc
          .tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 0, max: 5 }))
          .chain(([n, k]) => matrices(n + k, n)),
        async (A) => {
          const parts = qr(tensorOf(A));
          const [Q, R] = [await matrixOf(parts.Q), await matrixOf(parts.R)];
          // float64 throughout: a few hundred units in the last place for any condition number.
          expect(largest(plus(product(transposed(Q), Q), eye(R.length), -1))).toBeLessThan(1e-13);
          expect(largest(plus(product(Q, R), A, -1))).toBeLessThan(1e-12);
          expect(R.every((row, i) => row.every((x, j) => j >= i || x === 0))).toBe(true);
        },
      ),
      { numRuns: 60 },
    );
  });

  it("has LAPACK's signs", async () => {
    await fc.assert(
      fc.asyncProperty(wellConditioned, async (A) => {
        const expected = householder(A);
        const { Q, R } = qr(tensorOf(A));
        expect(largest(plus(await matrixOf(Q), expected.Q, -1))).toBeLessThan(1e-12);
        expect(largest(plus(await matrixOf(R), expected.R, -1))).toBeLessThan(1e-12);
      }),
      { numRuns: 60 },
    );
  });

  // R_kk = -sign(x_0) |x|, except in a last column of length 1, whose sign is kept.
  it.each([
    ['8 x 3', 8, 3],
    ['4 x 4', 4, 4],
    ['3 x 3', 3, 3],
    ['5 x 1', 5, 1],
    ['1 x 1', 1, 1],
  ])('follows the sign rule on %s', async (_name, m, n) => {
    for (const A of fc.sample(matrices(m, n), { numRuns: 5, seed: m * 10 + n })) {
      const { Q } = qr(tensorOf(A));
      expect(largest(plus(await matrixOf(Q), householder(A).Q, -1))).toBeLessThan(1e-11);
    }
  });

  it('gives unit vectors for columns of zeros', async () => {
    const { Q, R } = qr(
      tensorOf([
        [0, 0],
        [0, 0],
        [0, 0],
      ]),
    );
    expect(await matrixOf(Q)).toEqual([
      [1, 0],
      [0, 1],
      [0, 0],
    ]);
    expect(largest(await matrixOf(R))).toBe(0);
  });

  it('leaves a column alone that is zero below its head', async () => {
    const { Q, R } = qr(tensorOf([[2], [0], [0]]));
    expect([await matrixOf(Q), await matrixOf(R)]).toEqual([[[1], [0], [0]], [[2]]]);
  });

  it('has the derivatives of its definition, through flips of sign too', async () => {
    await fc.assert(
      fc.asyncProperty(wellConditioned, async (A) => {
        await gradcheck((x: Tensor) => qr(x), [tensorOf(A)]);
      }),
      { numRuns: 20 },
    );
    // The head of the first column crosses zero: Q flips, and each side has its own smooth derivative.
    for (const head of [0.01, -0.01]) {
      await gradcheck(
        (x: Tensor) => orthonormalBasis(x),
        [
          tensorOf([
            [head, 1],
            [1, 0.5],
            [-0.5, 2],
          ]),
        ],
      );
    }
  });

  it('has second derivatives', async () => {
    await gradgradcheck(
      (x: Tensor) => orthonormalBasis(x),
      [
        tensorOf([
          [1, 0.5],
          [-0.25, 2],
          [0.75, 1],
        ]),
      ],
    );
  });

  it('stays orthonormal in float64 for nearly dependent columns', async () => {
    const A = [
      [1, 1],
      [1, 1 + 2 ** -20],
      [1, 1],
    ];
    const Q = await matrixOf(orthonormalBasis(tensorOf(A)));
    expect(largest(plus(product(transposed(Q), Q), eye(2), -1))).toBeLessThan(1e-14);
  });

  it.each([
    ['wide', [2, 3]],
    ['empty', [3, 0]],
    ['a vector', [3]],
  ])('refuses a matrix that is %s', (_name, shape) => {
    const size = shape.reduce((a, b) => a * b, 1);
    expect(() => qr(tensor(new Float32Array(size), shape))).toThrow(
      new ShapeError(`qr: expected [..., m, n] with m >= n >= 1; got [${shape.join(', ')}]`),
    );
  });
});

describe('orthonormalBases', () => {
  const shapes = [
    [5, 2],
    [4, 4],
    [5, 2],
    [3, 1],
    [5, 2],
  ] as const;
  // 4 on the diagonal: heads keep away from zero, where the sign of a column flips.
  const many = shapes.map(([m, n], seed) => {
    const A = fc.sample(matrices(m, n), { numRuns: 1, seed })[0]!;
    return tensorOf(A.map((row, i) => row.map((x, j) => 0.25 * (x || 1) + (i === j ? 4 : 0))));
  });

  it('gives each matrix the basis and the derivatives that it has alone', async () => {
    const together = orthonormalBases(many);
    for (const [i, A] of many.entries()) {
      const alone = await matrixOf(orthonormalBasis(A));
      expect(await matrixOf(together[i]!)).toEqual(alone);
    }
    await gradcheck((...A: Tensor[]) => orthonormalBases(A), many);
  });

  it('takes as many folds for ten matrices of a shape as for one', () => {
    const folds = (count: number): number => {
      const A = Array.from({ length: count }, () =>
        tensorOf([
          [1, 2],
          [3, 4],
          [5, 6],
        ]),
      );
      const nodes = new Set<Tensor>(orthonormalBases(A));
      for (const { source } of nodes)
        if (source.kind === 'applied') for (const x of source.inputs) nodes.add(x);
      return [...nodes].filter(({ source }) => source.kind === 'applied' && source.op.name === 'sum').length;
    };
    expect(folds(1)).toBeGreaterThan(0);
    expect(folds(10)).toBe(folds(1));
  });
});

describe('polarFactor', () => {
  it('is orthonormal, and the rest of P is symmetric and positive: the polar decomposition', async () => {
    await fc.assert(
      fc.asyncProperty(wellConditioned, async (P) => {
        const Q = await matrixOf(polarFactor(tensorOf(P)));
        const H = product(transposed(Q), P);
        expect(largest(plus(product(transposed(Q), Q), eye(H.length), -1))).toBeLessThan(1e-13);
        expect(largest(plus(H, transposed(H), -1))).toBeLessThan(1e-12);
        expect(H.every((row, i) => row[i]! > 0)).toBe(true);
        expect(largest(plus(product(Q, H), P, -1))).toBeLessThan(1e-12);
      }),
      { numRuns: 40 },
    );
  });

  it('spans what QR spans: the projectors are equal', async () => {
    const [P] = fc.sample(wellConditioned, { numRuns: 1, seed: 3 });
    const [a, b] = [
      await matrixOf(polarFactor(tensorOf(P!))),
      await matrixOf(orthonormalBasis(tensorOf(P!))),
    ];
    const K = (Q: number[][]): number[][] => product(Q, transposed(Q));
    expect(largest(plus(K(a), K(b), -1))).toBeLessThan(1e-13);
  });

  it('reaches directions a thousand times shorter than the longest', async () => {
    const P = [
      [1, 1],
      [1, 1.004],
      [1, 1],
    ];
    const Q = await matrixOf(polarFactor(tensorOf(P)));
    expect(largest(plus(product(transposed(Q), Q), eye(2), -1))).toBeLessThan(1e-12);
  });

  it('does not depend on the scale of P', async () => {
    const P = tensorOf([
      [1, 0.5],
      [-0.25, 2],
      [0.75, 1],
    ]);
    for (const scale of [1e-6, 1e6]) {
      const difference = plus(await matrixOf(polarFactor(mul(P, scale))), await matrixOf(polarFactor(P)), -1);
      expect(largest(difference)).toBeLessThan(1e-12);
    }
  });

  it('has the derivatives of its definition', async () => {
    await fc.assert(
      fc.asyncProperty(wellConditioned, async (P) => {
        await gradcheck((x: Tensor) => polarFactor(x), [tensorOf(P)]);
      }),
      { numRuns: 10 },
    );
  });

  it('refuses a wide matrix', () => {
    expect(() => polarFactor(transpose(tensorOf([[1], [2]])))).toThrow(
      new ShapeError('polar: expected [..., m, n] with m >= n >= 1; got [1, 2]'),
    );
  });
});
