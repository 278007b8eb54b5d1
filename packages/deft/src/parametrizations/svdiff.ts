/**
 * SVDiff: move singular values and nothing else (Han et al. 2023, arXiv 2303.11305).
 *
 *     W0 = U diag(s) V^T,   W = U diag(relu(s + c d)) V^T        d [min(m, n)], 0 at the start                 (1)
 *     y = y0 + ((x V) o (relu(s + c d) - s)) U^T                                                              (2)
 *
 * A convolution is its matrix [co, ci kh kw]. U, s and V are computed once, on the host, when the adapter is attached, and
 * are kept beside the weight: k (m + n + 1) numbers for k = min(m, n). Cost of (2) per row of x: k (m + n) multiply-adds.
 */
import { svdOnHost } from '@deftjs/autograd/linalg';
import {
  add,
  cast,
  evaluate,
  mul,
  relu,
  reshape,
  type Shape,
  sub,
  transpose,
  unsqueeze,
  zeros,
} from '@deftjs/tensor';
import { matrixShape } from '../linearMap.ts';
import { lowRankChange } from '../lowRankChange.ts';
import type { Parametrization } from '../parametrization.ts';

export interface SvdiffOptions {
  /** c of (1). */
  readonly scale: number;
}

export interface Svdiff extends Parametrization {
  readonly name: 'svdiff';
  readonly options: SvdiffOptions;
}

/** The SVDiff method; default: scale 1. @throws RangeError unless the scale is positive */
export function svdiff({ scale = 1 }: Partial<SvdiffOptions> = {}): Svdiff {
  if (!(scale > 0 && Number.isFinite(scale))) {
    throw new RangeError(`svdiff: scale must be a positive number; got ${scale}`);
  }
  const shapes = (weight: Shape): Record<string, Shape> => ({ svdiff_d: [Math.min(...matrixShape(weight))] });
  return {
    name: 'svdiff',
    options: { scale },
    rank: null,
    dropout: 0,
    identityAtInit: true,
    shapes,
    init: (layers) => layers.map(({ W0 }) => ({ svdiff_d: zeros(shapes(W0.shape).svdiff_d!) })),
    async fixed(W0, device) {
      const matrix = reshape(cast(W0, 'f32'), matrixShape(W0.shape));
      await evaluate([matrix], device);
      const { U, S, V } = await svdOnHost(matrix);
      return { U, S, V };
    },
    changes: (thetas) =>
      thetas.map(({ svdiff_d, U, S, V }) => {
        const moved = sub(relu(add(S!, mul(svdiff_d!, scale))), S!);
        return lowRankChange({ basis: mul(U!, unsqueeze(moved, 0)), rows: transpose(V!) }, null);
      }),
  };
}
