/**
 * DEFT: remove a rank-r part of the weight and write another in its place (arXiv 2509.22793), and PaRa, which only
 * removes (arXiv 2406.05641).
 *
 *     W = W0 - K W0 + s Q R,   K = L T^T                      W0 [m, n], P [m, r], R [r, n]                    (1)
 *
 * Q, L and T come from P by one of the projectors. s is 1, or alpha / r. Trained: P and R, r (m + n) numbers; PaRa
 * trains P alone, r m.
 *
 * Identity start: s Q R0 = K W0, that is R0 = T^T W0 / s, makes step 0 the base model for any P, yet P has a gradient
 * from the start. Random start: R0 ~ N(0, (0.02 initScale)^2), as the authors' code has it.
 */
import { cast, foldIn, matmul, mul, randomNormal, reshape, type Shape, transpose } from '@deftjs/tensor';
import { matrixShape } from '../linearMap.ts';
import { lowRankChange } from '../lowRankChange.ts';
import { expectAlpha, expectRank, type Parametrization } from '../parametrization.ts';
import { type ProjectorName, projectAll } from './projectors.ts';

/** Standard deviation of P, and of R at a random start. */
const initialDeviation = 0.02;

export interface DeftOptions {
  readonly rank: number;
  readonly projector: ProjectorName;
  /** PaRa: no R. The start is never the base model. */
  readonly para: boolean;
  /** s = alpha / rank; null: s = 1. */
  readonly alpha: number | null;
  readonly start: 'identity' | 'random';
  /** Factor on the standard deviation of a random start. */
  readonly initScale: number;
}

export interface Deft extends Parametrization {
  readonly name: 'deft';
  readonly options: DeftOptions;
}

/**
 * The DEFT (or PaRa) method with the options given; default: rank 4, projector none, alpha null, identity start.
 * @throws RangeError for a rank below 1, an alpha <= 0, or relu_both with an identity start
 */
export function deft(given: Partial<DeftOptions> = {}): Deft {
  const options: DeftOptions = {
    rank: 4,
    projector: 'none',
    para: false,
    alpha: null,
    start: 'identity',
    initScale: 1,
    ...given,
  };
  const { rank, projector, para, alpha, start } = options;
  expectRank('deft', rank);
  expectAlpha('deft', alpha);
  const identityAtInit = start === 'identity' && !para;
  if (projector === 'relu_both' && identityAtInit) {
    throw new RangeError(
      'deft: relu_both removes relu(P) relu(P)^T W0, which P R cannot give back; use start "random" or para',
    );
  }
  const scale = alpha === null ? 1 : alpha / rank;

  return {
    name: 'deft',
    options,
    rank,
    identityAtInit,
    shapes(weight: Shape): Record<string, Shape> {
      const [m, n] = matrixShape(weight);
      return para ? { deft_P: [m, rank] } : { deft_P: [m, rank], deft_R: [rank, n] };
    },
    init(layers) {
      const P = layers.map(({ W0, key }) =>
        mul(randomNormal(foldIn(key, 0), [W0.shape[0]!, rank]), initialDeviation),
      );
      if (para) return P.map((deft_P) => ({ deft_P }));
      if (start === 'random') {
        const deviation = initialDeviation * options.initScale;
        return layers.map(({ W0, key }, i) => {
          const R = randomNormal(foldIn(key, 1), [rank, matrixShape(W0.shape)[1]]);
          return { deft_P: P[i]!, deft_R: mul(R, deviation) };
        });
      }
      return projectAll(projector, P).map(({ right }, i) => {
        const { W0 } = layers[i]!;
        const kept = matmul(transpose(right), reshape(cast(W0, 'f32'), matrixShape(W0.shape)));
        return { deft_P: P[i]!, deft_R: mul(kept, 1 / scale) };
      });
    },
    changes(thetas) {
      const projected = projectAll(
        projector,
        thetas.map(({ deft_P }) => deft_P!),
      );
      return projected.map(({ basis, left, right }, i) => {
        const R = thetas[i]!.deft_R;
        const rows = R && (scale === 1 ? R : mul(R, scale));
        return lowRankChange(rows ? { basis, rows } : null, { left, right });
      });
    },
  };
}

/** A preset: options of the method, and the learning rate of P as a multiple of R's. */
export interface DeftPreset {
  readonly options: Partial<DeftOptions>;
  readonly basisRate: number;
}

/**
 * Choices that belong together: `paper` follows its formula and code (raw P P^T, random start, P at a tenth of R's
 * rate), `peft` the library's defaults, `recommended` a true projector that starts at the base model.
 */
export const deftPresets = {
  paper: { options: { projector: 'none', start: 'random' }, basisRate: 0.1 },
  peft: { options: { projector: 'relu', start: 'identity' }, basisRate: 1 },
  recommended: { options: { projector: 'qr', start: 'identity' }, basisRate: 0.1 },
} as const satisfies Readonly<Record<string, DeftPreset>>;
