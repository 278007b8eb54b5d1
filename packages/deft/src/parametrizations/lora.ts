/**
 * LoRA: add a product of two thin matrices (Hu et al. 2021, arXiv 2106.09685).
 *
 *     W = W0 + s B A,   y = y0 + s (x A^T) B^T                A [r, n], B [m, r]                               (1)
 *
 * s = alpha / r, or alpha / sqrt(r) (rsLoRA, arXiv 2312.03732). B starts at zero, so step 0 is the base model, and A
 * has no gradient there. Trained: r (m + n) numbers. Cost of (1) per row of x: r (n + m) multiply-adds.
 * For a convolution A is one with the layer's geometry to r channels and B a 1 x 1 convolution.
 */
import { kaimingUniform } from '@deftjs/autograd/nn';
import { foldIn, mul, randomNormal, reshape, type Shape, type Tensor, zeros } from '@deftjs/tensor';
import { matrixShape } from '../linearMap.ts';
import { lowRankChange } from '../lowRankChange.ts';
import { expectAlpha, expectDropout, expectRank, type Parametrization } from '../parametrization.ts';

export interface LoraOptions {
  readonly rank: number;
  readonly alpha: number;
  /** A: uniform in +-1/sqrt(n), or normal with standard deviation 1/r. */
  readonly start: 'kaiming' | 'gaussian';
  /** Rank-stabilised: divide alpha by sqrt(r) instead of r. */
  readonly rsLora: boolean;
  /** Probability of dropping an entry of x before A. */
  readonly dropout: number;
}

export interface Lora extends Parametrization {
  readonly name: 'lora';
  readonly options: LoraOptions;
}

/**
 * The LoRA method with the options given; default: rank 4, alpha = rank (s = 1), kaiming start.
 * @throws RangeError for a rank below 1 or an alpha <= 0
 */
export function lora(given: Partial<LoraOptions> = {}): Lora {
  const { rank = 4, alpha = rank, start = 'kaiming', rsLora = false, dropout = 0 } = given;
  expectRank('lora', rank);
  expectAlpha('lora', alpha);
  expectDropout('lora', dropout);
  const scale = alpha / (rsLora ? Math.sqrt(rank) : rank);
  const shapes = (weight: Shape): { lora_A: Shape; lora_B: Shape } => {
    const [m, ...rest] = weight;
    return { lora_A: [rank, ...rest], lora_B: [m!, rank, ...rest.slice(1).map(() => 1)] };
  };
  return {
    name: 'lora',
    options: { rank, alpha, start, rsLora, dropout },
    rank,
    dropout,
    identityAtInit: true,
    shapes,
    init: (layers) =>
      layers.map(({ W0, key }) => {
        const { lora_A, lora_B } = shapes(W0.shape);
        const stream = foldIn(key, 0);
        const A =
          start === 'kaiming'
            ? kaimingUniform({ slope: Math.sqrt(5) })(lora_A, stream)
            : mul(randomNormal(stream, lora_A), 1 / rank);
        return { lora_A: A, lora_B: zeros(lora_B) };
      }),
    changes: (thetas) =>
      thetas.map(({ lora_A, lora_B }) => {
        const [A, B] = [asMatrix(lora_A!), asMatrix(lora_B!)];
        return lowRankChange({ basis: B, rows: scale === 1 ? A : mul(A, scale) }, null);
      }),
  };
}

function asMatrix(x: Tensor): Tensor {
  return reshape(x, matrixShape(x.shape));
}
