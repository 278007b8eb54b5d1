/** Eigenvalues of a small symmetric matrix, on the host, by Jacobi's rotations: exact to rounding, O(n^3) a sweep. */

const maxSweeps = 60;

/**
 * The eigenvalues of a symmetric matrix given in rows, largest first, and the eigenvector of each as a row. NaN in the
 * matrix gives NaN. Meant for n up to a few hundred.
 */
export function symmetricEigen(matrix: readonly ArrayLike<number>[]): {
  readonly values: number[];
  readonly vectors: number[][];
} {
  const n = matrix.length;
  const A = matrix.map((row) => Array.from(row));
  const V = A.map((_, i) => A.map((_, j) => Number(i === j)));
  for (let sweep = 0; sweep < maxSweeps; sweep += 1) {
    let rotated = false;
    for (let p = 0; p < n; p += 1) {
      for (let q = p + 1; q < n; q += 1) {
        const off = A[p]![q]!;
        if (off === 0 || Math.abs(off) <= Number.EPSILON * Math.sqrt(Math.abs(A[p]![p]! * A[q]![q]!)))
          continue;
        rotated = true;
        rotate(A, V, p, q);
      }
    }
    if (!rotated) break;
  }
  const order = A.map((_, i) => i).sort((i, j) => A[j]![j]! - A[i]![i]!);
  return { values: order.map((i) => A[i]![i]!), vectors: order.map((i) => V[i]!) };
}

/** A <- J A J^T and V <- J V with the rotation in the plane (p, q) that makes A_pq zero (Golub and Van Loan 8.5). */
function rotate(A: number[][], V: number[][], p: number, q: number): void {
  const tau = (A[q]![q]! - A[p]![p]!) / (2 * A[p]![q]!);
  const t = (tau >= 0 ? 1 : -1) / (Math.abs(tau) + Math.hypot(1, tau));
  const c = 1 / Math.hypot(1, t);
  const s = c * t;
  const turn = (rows: number[][]): void => {
    for (let k = 0; k < rows[p]!.length; k += 1) {
      const [x, y] = [rows[p]![k]!, rows[q]![k]!];
      rows[p]![k] = c * x - s * y;
      rows[q]![k] = s * x + c * y;
    }
  };
  turn(A);
  for (const row of A) {
    const [x, y] = [row[p]!, row[q]!];
    row[p] = c * x - s * y;
    row[q] = s * x + c * y;
  }
  turn(V);
}
