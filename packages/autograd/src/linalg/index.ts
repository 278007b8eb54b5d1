/** Decompositions of matrices [..., m, n] as differentiable functions, batched over leading axes. */
export { inBatches } from './batches.ts';
export { type Eigen, eigh } from './eigh.ts';
export { eighOnHost, qrOnHost, svdOnHost, symmetricEigen } from './host.ts';
export { type NonNegativeFactors, nmf } from './nmf.ts';
export { polar, polarFactor } from './polar.ts';
export { orthonormalBases, orthonormalBasis, qr } from './qr.ts';
export { type RandomizedSvdOptions, randomizedSvd, type Svd, svd } from './svd.ts';
export { cholesky, solveTriangular } from './triangular.ts';
