import { Linear, Module } from '@deftjs/autograd/nn';
import { silu, type Tensor } from '@deftjs/tensor';

/** Two linear layers around a silu: features of a condition to a vector of the model's width. */
export class TimestepEmbedding extends Module {
  readonly linear_1: Linear;
  readonly linear_2: Linear;

  constructor(inputWidth: number, width: number) {
    super();
    this.linear_1 = new Linear(inputWidth, width);
    this.linear_2 = new Linear(width, width);
  }

  /** [B, input width] -> [B, width]. */
  forward(x: Tensor): Tensor {
    return this.linear_2.forward(silu(this.linear_1.forward(x)));
  }
}
