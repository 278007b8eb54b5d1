/** The feed-forward layers of diffusers' transformers: to four times the width, an activation, and back. */
import { Linear, Module } from '@deftjs/autograd/nn';
import { gelu, geluTanh, mul, split, type Tensor } from '@deftjs/tensor';

/** What stands between the two layers. "geglu": a gelu(b), a and b the halves of one projection (arXiv 2002.05202). */
export const feedForwardActivations = ['geglu', 'gelu', 'gelu-approximate'] as const;
export type FeedForwardActivation = (typeof feedForwardActivations)[number];

class Activation extends Module {
  readonly proj: Linear;
  readonly kind: FeedForwardActivation;

  constructor(channels: number, inner: number, kind: FeedForwardActivation) {
    super();
    this.proj = new Linear(channels, kind === 'geglu' ? 2 * inner : inner);
    this.kind = kind;
  }

  forward(x: Tensor): Tensor {
    const projected = this.proj.forward(x);
    if (this.kind === 'gelu') return gelu(projected);
    if (this.kind === 'gelu-approximate') return geluTanh(projected);
    const [value, gate] = split(projected, 2) as [Tensor, Tensor];
    return mul(value, gelu(gate));
  }
}

export class FeedForward extends Module {
  readonly net: { readonly 0: Activation; readonly 2: Linear };

  constructor(channels: number, activation: FeedForwardActivation) {
    super();
    this.net = {
      0: new Activation(channels, 4 * channels, activation),
      2: new Linear(4 * channels, channels),
    };
  }

  /** [..., C] -> [..., C]. */
  forward(x: Tensor): Tensor {
    return this.net[2].forward(this.net[0].forward(x));
  }
}
