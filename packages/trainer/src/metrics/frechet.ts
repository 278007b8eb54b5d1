/** The distance between two sets of feature vectors (Heusel et al. 2017: FID, when an Inception network makes them). */
import { symmetricEigen } from '@deftjs/autograd/linalg';

interface Gaussian {
  readonly mean: number[];
  readonly covariance: number[][];
}

/**
 * Frechet's distance of the Gaussians with the means and covariances (n - 1) of two sets,
 *
 *     d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)),   tr (S1 S2)^(1/2) = tr (S1^(1/2) S2 S1^(1/2))^(1/2)
 *
 * as a square, as FID is reported: 0 for equal sets. Depends on which network made the features, and is biased for
 * few of them: name both beside the number.
 * @throws {RangeError} when a set has fewer than two vectors or the lengths differ
 */
export function frechetDistance(a: readonly ArrayLike<number>[], b: readonly ArrayLike<number>[]): number {
  const dimensions = a[0]?.length;
  if (a.length < 2 || b.length < 2) {
    throw new RangeError(
      `frechetDistance: expected two vectors or more of each; got ${a.length} and ${b.length}`,
    );
  }
  if ([...a, ...b].some(({ length }) => length !== dimensions)) {
    throw new RangeError('frechetDistance: expected vectors of one length');
  }
  const [p, q] = [gaussian(a), gaussian(b)];
  const apart = p.mean.reduce((sum, value, i) => sum + (value - q.mean[i]!) ** 2, 0);
  const root = squareRoot(p.covariance);
  const spread = symmetricEigen(product(product(root, q.covariance), root)).values;
  const overlap = spread.reduce((sum, value) => sum + Math.sqrt(Math.max(0, value)), 0);
  return Math.max(0, apart + trace(p.covariance) + trace(q.covariance) - 2 * overlap); // rounding may pass below
}

function gaussian(vectors: readonly ArrayLike<number>[]): Gaussian {
  const n = vectors.length;
  const mean = Array.from(vectors[0]!, (_, i) => vectors.reduce((sum, vector) => sum + vector[i]!, 0) / n);
  const centred = vectors.map((vector) => mean.map((value, i) => vector[i]! - value));
  const covariance = mean.map((_, i) =>
    mean.map((_, j) => centred.reduce((sum, vector) => sum + vector[i]! * vector[j]!, 0) / (n - 1)),
  );
  return { mean, covariance };
}

/** V f(L) V^T with f the square root; rounding below zero counts as zero. */
function squareRoot(matrix: readonly number[][]): number[][] {
  const { values, vectors } = symmetricEigen(matrix);
  const roots = values.map((value) => Math.sqrt(Math.max(0, value)));
  return matrix.map((row, i) =>
    row.map((_, j) => vectors.reduce((sum, vector, k) => sum + roots[k]! * vector[i]! * vector[j]!, 0)),
  );
}

function product(a: readonly number[][], b: readonly number[][]): number[][] {
  return a.map((row) => b[0]!.map((_, j) => row.reduce((sum, value, k) => sum + value * b[k]![j]!, 0)));
}

function trace(matrix: readonly number[][]): number {
  return matrix.reduce((sum, row, i) => sum + row[i]!, 0);
}
