/**
 * Custom Diffusion (Kumari et al. 2023, arXiv 2212.04488): the keys and values of cross-attention, fine-tuned whole
 * (`methods.full`), with a new word (`addWords`); and its merge of several concepts in closed form.
 *
 *     minimise |W C_reg^T - W0 C_reg^T|^2   so that   W C^T = V,   rows of V: what each concept's weight makes of its
 *     words C [s, n]                                                                                         (1)
 *
 * With G = C_reg^T C_reg and D = W - W0 the Lagrangian gives
 *
 *     D = E^T (C G^-1 C^T)^-1 (C G^-1),   E^T = V - W0 C^T                                                    (2)
 */
import { cholesky, solveTriangular } from '@deftjs/autograd/linalg';
import { add, concat, formatShapes, matmul, ShapeError, sub, type Tensor, transpose } from '@deftjs/tensor';

/** The layers that Custom Diffusion trains in a UNet: an expression for targetModules. */
export const crossAttentionKeysAndValues = String.raw`.*attn2\.to_(k|v)`;

/** A^-1 B for positive definite A. */
function solve(A: Tensor, B: Tensor): Tensor {
  const L = cholesky(A);
  return solveTriangular(transpose(L), solveTriangular(L, B, 'lower'), 'upper');
}

/**
 * The weight W [m, n] of (1): what is closest to W0 on the regularisation words and gives each concept's words what its
 * own weight gives them.
 * @param regularisation C_reg [at least n, n]: features of words that are to keep their meaning, of full column rank
 * @param concepts for each, the features of its words [s, n] and its fine-tuned weight [m, n]; all words independent
 * @throws ShapeError
 */
export function mergeConcepts(
  W0: Tensor,
  regularisation: Tensor,
  concepts: readonly { readonly words: Tensor; readonly weight: Tensor }[],
): Tensor {
  const [m, n] = W0.shape;
  const shapes = concepts.flatMap(({ words, weight }) => [words.shape, weight.shape]);
  const fits = concepts.every(
    ({ words, weight }) => words.shape[1] === n && weight.shape[0] === m && weight.shape[1] === n,
  );
  if (concepts.length === 0 || !fits || regularisation.shape[1] !== n || regularisation.shape[0]! < n!) {
    throw new ShapeError(
      `mergeConcepts: expected C_reg [>= ${n}, ${n}] and concepts with [s, ${n}] and [${m}, ${n}]; got ${formatShapes([regularisation.shape, ...shapes])}`,
    );
  }
  const C = concat(
    concepts.map(({ words }) => words),
    0,
  ); // [S, n]
  const V = concat(
    concepts.map(({ words, weight }) => matmul(words, transpose(weight))),
    0,
  ); // [S, m]
  const E = sub(V, matmul(C, transpose(W0)));
  const gram = matmul(transpose(regularisation), regularisation);
  const spread = solve(gram, transpose(C)); // G^-1 C^T [n, S]
  const multipliers = solve(matmul(C, spread), E); // [S, m]
  return add(W0, matmul(transpose(multipliers), transpose(spread)));
}
