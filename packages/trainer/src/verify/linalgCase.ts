/**
 * Decompositions of matrices against LAPACK: their factors, and gradients of random scalars of them.
 *
 *   qr     sum(Q wQ) + sum(R wR)
 *   svd    sum(S wS) + sum(U U^T wUU)            which does not depend on the signs of U
 *   eigh   sum(values wValues) + sum(V V^T w)    V: the eigenvectors of the three largest values
 */
import { grad } from '@deftjs/autograd';
import { eigh, qr, svd } from '@deftjs/autograd/linalg';
import { add, type Device, matmul, mul, narrow, sum, type Tensor, transpose } from '@deftjs/tensor';
import { type Check, compareAll, outputBound } from './check.ts';
import type { GoldenFolder } from './goldenFolder.ts';

/** sum(x w). */
function weighted(x: Tensor, w: Tensor): Tensor {
  return sum(mul(x, w));
}

const outer = (X: Tensor) => matmul(X, transpose(X));

/** Checks every decomposition that the case has a matrix for. */
export async function checkLinalg(golden: GoldenFolder, device: Device): Promise<Check[]> {
  const weight = (name: string) => golden.get(name);
  const scalars: Readonly<Record<string, (A: Tensor) => Tensor>> = {
    qr(A) {
      const { Q, R } = qr(A);
      return add(weighted(Q, weight('qr/wQ')), weighted(R, weight('qr/wR')));
    },
    svd(A) {
      const { U, S } = svd(A);
      return add(weighted(S, weight('svd/wS')), weighted(outer(U), weight('svd/wUU')));
    },
    eigh(A) {
      const { values, vectors } = eigh(A);
      const top = narrow(vectors, 1, vectors.shape[1]! - 3, 3);
      return add(
        weighted(values, weight('eigh/wValues')),
        weighted(outer(top), weight('eigh/wTop3Projector')),
      );
    },
  };
  const factors: Readonly<Record<string, (A: Tensor) => Readonly<Record<string, Tensor>>>> = {
    qr: (A) => qr(A),
    svd: (A) => ({ S: svd(A).S }),
    eigh: (A) => ({ values: eigh(A).values }),
  };
  const computed: Record<string, Tensor> = {};
  for (const [name, scalar] of Object.entries(scalars)) {
    const A = golden.get(`${name}/A`);
    for (const [factor, value] of Object.entries(factors[name]!(A))) computed[`${name}/${factor}`] = value;
    computed[`${name}/gradA`] = grad(scalar)(A);
  }
  const recorded = Object.fromEntries(Object.keys(computed).map((name) => [name, golden.get(name)]));
  return compareAll(computed, recorded, outputBound, device);
}
