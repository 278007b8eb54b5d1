/**
 * Full fine-tuning of the targeted weights: DreamBooth (Ruiz et al. 2023, arXiv 2208.12242) on a whole model, Custom
 * Diffusion (Kumari et al. 2023, arXiv 2212.04488) on the keys and values of cross-attention.
 *
 *     W = W0 + D,   y = y0 + x D^T                D as W0, 0 at the start                                     (1)
 *
 * As an adapter it has one interface with the others, and W0 stays as it is. Trained: m n numbers; (1) doubles the cost of
 * the layer, which `merge` takes away.
 */
import { cast, reshape, zeros } from '@deftjs/tensor';
import { matrixShape } from '../linearMap.ts';
import type { Parametrization } from '../parametrization.ts';

export interface Full extends Parametrization {
  readonly name: 'full';
  readonly options: Record<string, never>;
}

/** The method that trains whole weights. */
export function full(): Full {
  return {
    name: 'full',
    options: {},
    rank: null,
    dropout: 0,
    identityAtInit: true,
    shapes: (weight) => ({ full_D: weight }),
    init: (layers) => layers.map(({ W0 }) => ({ full_D: zeros(W0.shape) })),
    changes: (thetas) =>
      thetas.map(({ full_D: D }) => ({
        delta: () => cast(D!, 'f32'),
        apply: (x, _y0, map) => map.read(x, reshape(D!, matrixShape(D!.shape))),
        tensors: [D!],
      })),
  };
}
