// What the compiler makes of a DEFT layer and its gradient.
//
//     node --import tsx --conditions=@deftjs/source examples/explain.ts
import { valueAndGrad } from '@deftjs/autograd';
import {
  add,
  compile,
  linear,
  matmul,
  meanSquaredError,
  randomNormal,
  sub,
  type Tensor,
  transpose,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';

await openDevice('wasm');
const [batch, inputs, outputs, rank] = [32, 256, 256, 4];
const normal = (stream: number, ...shape: number[]) => randomNormal([1, stream], shape);
const W = normal(0, outputs, inputs);
const x = normal(1, batch, inputs);
const target = normal(2, batch, outputs);

// y = y0 + (x R^T - y0 P) P^T: (I - P P^T) W0 + P R on activations, without an outputs x outputs matrix.
const deft = ({ P, R }: { P: Tensor; R: Tensor }): Tensor => {
  const y0 = linear(x, W);
  const low = sub(matmul(x, transpose(R)), matmul(y0, P)); // [batch, rank]
  return add(y0, matmul(low, transpose(P)));
};

const step = compile((theta: { P: Tensor; R: Tensor }) =>
  valueAndGrad((t: typeof theta) => meanSquaredError(deft(t), target))(theta),
);
console.log(await step.explain({ P: normal(3, outputs, rank), R: normal(4, rank, inputs) }));
