/**
 * Conditions that enter through normalisation: adaptive layer norm (FiLM, arXiv 1709.07871; DiT, arXiv 2212.09748,
 * section 3.2). A condition c gives every channel a shift, a scale and perhaps a gate:
 *
 *     y = norm(x) (1 + scale) + shift,     x' = x + gate f(y)                                               (1)
 */
import { Linear, Module } from '@deftjs/autograd/nn';
import { add, mul, silu, split, type Tensor, unsqueeze } from '@deftjs/tensor';

/** The vectors of (1): one linear layer of silu(c). */
export class Modulation extends Module {
  readonly linear: Linear;
  readonly parts: number;

  constructor(width: number, parts: number) {
    super();
    this.linear = new Linear(width, parts * width);
    this.parts = parts;
  }

  /** Condition [B, C] -> as many vectors [B, C] as there are parts. */
  forward(condition: Tensor): Tensor[] {
    return split(this.linear.forward(silu(condition)), this.parts);
  }
}

/** Tokens [B, L, C] scaled and shifted by [B, C] each: (1). */
export function modulate(x: Tensor, shift: Tensor, scale: Tensor): Tensor {
  return add(mul(x, unsqueeze(add(scale, 1), 1)), unsqueeze(shift, 1));
}

/** Tokens [B, L, C] weighed channel by channel by [B, C]. */
export function gated(x: Tensor, gate: Tensor): Tensor {
  return mul(x, unsqueeze(gate, 1));
}
