/**
 * DEFT: remove a rank-r part of the weight and write another in its place (arXiv 2509.22793), and PaRa, which only
 * removes (arXiv 2406.05641).
 *
 *     W = W0 - K W0 + s Q R,   K = L T^T                      W0 [m, n], P [m, r], R [r, n]                    (1)
 *
 * Q, L and T come from P by one of the projectors. s is 1, or alpha / r, and with a gate times sigmoid(gate), a trained
 * number. Trained: P and R, r (m + n) numbers; PaRa trains P alone, r m.
 *
 * Identity start: s Q R0 = K W0, that is R0 = T^T W0 / s, makes step 0 the base model for any P, yet P has a gradient
 * from the start. Random start: R0 ~ N(0, (0.02 initScale)^2), as the authors' code has it.
 */
import {
  cast,
  foldIn,
  full,
  matmul,
  mul,
  randomNormal,
  reshape,
  type Shape,
  sigmoid,
  transpose,
} from '@deftjs/tensor';
import { matrixShape } from '../linearMap.ts';
import { lowRankChange } from '../lowRankChange.ts';
import {
  expectAlpha,
  expectDropout,
  expectRank,
  type Parametrization,
  type Theta,
} from '../parametrization.ts';
import { type ProjectorName, type ProjectorScaling, projectAll, projectorOf } from './projectors.ts';

/** Standard deviation of P, and of R at a random start. */
const initialDeviation = 0.02;

export interface DeftOptions {
  readonly rank: number;
  readonly projector: ProjectorName;
  /** Of tsvd, lrmf, eigen and nmf: as published code scales K, or as a projector. */
  readonly scaling: ProjectorScaling;
  /** PaRa: no R. The start is never the base model. */
  readonly para: boolean;
  /** s = alpha / rank; null: s = 1. */
  readonly alpha: number | null;
  readonly start: 'identity' | 'random';
  /** Factor on the standard deviation of a random start. */
  readonly initScale: number;
  /** Start of the trained gate: what is written is scaled by sigmoid(gate). null: no gate. */
  readonly gate: number | null;
  /** Probability of dropping an entry of x before R. What is removed sees no dropout. */
  readonly dropout: number;
}

export interface Deft extends Parametrization {
  readonly name: 'deft';
  readonly options: DeftOptions;
}

/**
 * The DEFT (or PaRa) method with the options given; default: rank 4, projector none, alpha null, identity start.
 * @throws RangeError for a rank below 1, an alpha <= 0, a scaling that the projector does not have, a gate with PaRa,
 * or an identity start where R cannot give back what K removes
 */
export function deft(given: Partial<DeftOptions> = {}): Deft {
  const options: DeftOptions = {
    rank: 4,
    projector: 'none',
    scaling: 'faithful',
    para: false,
    alpha: null,
    start: 'identity',
    initScale: 1,
    gate: null,
    dropout: 0,
    ...given,
  };
  const { rank, para, alpha, start, gate, dropout } = options;
  expectRank('deft', rank);
  expectAlpha('deft', alpha);
  expectDropout('deft', dropout);
  if (para && gate !== null) throw new RangeError('deft: PaRa writes nothing that a gate could scale');
  const projector = projectorOf(options.projector, options.scaling);
  const identityAtInit = start === 'identity' && !para;
  if (!projector.restorable && identityAtInit) {
    throw new RangeError(
      `deft: ${options.projector} removes what P R cannot give back; use start "random" or para`,
    );
  }
  const scale = alpha === null ? 1 : alpha / rank;

  return {
    name: 'deft',
    options,
    rank,
    dropout,
    identityAtInit,
    shapes(weight: Shape): Record<string, Shape> {
      const [m, n] = matrixShape(weight);
      const written = { deft_R: [rank, n], ...(gate === null ? {} : { deft_gate: [1] }) };
      return { ...projector.shapes(m, rank), ...(para ? {} : written) };
    },
    init(layers) {
      const directions = layers.map(({ W0, key }) =>
        Object.entries(projector.shapes(W0.shape[0]!, rank)).map(([name, shape], i) => {
          const stream = foldIn(key, i === 0 ? 0 : 1 + i); // 1 is R's
          return [name, mul(randomNormal(stream, shape), initialDeviation)] as const;
        }),
      );
      const thetas = directions.map((entries): Theta => Object.fromEntries(entries));
      if (para) return thetas;
      const gates: Theta = gate === null ? {} : { deft_gate: full([1], gate) };
      if (start === 'random') {
        const deviation = initialDeviation * options.initScale;
        return layers.map(({ W0, key }, i) => {
          const R = randomNormal(foldIn(key, 1), [rank, matrixShape(W0.shape)[1]]);
          return { ...thetas[i], deft_R: mul(R, deviation), ...gates };
        });
      }
      const open = gate === null ? 1 : 1 / (1 + Math.exp(-gate));
      return projectAll(projector, thetas).map(({ right }, i) => {
        const { W0 } = layers[i]!;
        const kept = matmul(transpose(right!), reshape(cast(W0, 'f32'), matrixShape(W0.shape)));
        return { ...thetas[i], deft_R: mul(kept, 1 / (scale * open)), ...gates };
      });
    },
    changes: (thetas) =>
      projectAll(projector, thetas).map(({ basis, left, right }, i) => {
        const { deft_R: R, deft_gate } = thetas[i]!;
        if (!R) return lowRankChange(null, { left, right });
        const scaled = scale === 1 ? R : mul(R, scale);
        const rows = deft_gate ? mul(scaled, sigmoid(deft_gate)) : scaled;
        return lowRankChange({ basis, rows }, { left, right });
      }),
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
