// Fits sin(3x) with a small network: the engine in forty lines.
//
//     node --import tsx --conditions=@deftjs/source examples/fit.ts
import { valueAndGrad } from '@deftjs/autograd';
import { initialize, Linear, Module, trainableState, withState } from '@deftjs/autograd/nn';
import { adamW } from '@deftjs/autograd/optim';
import { alias, compile, item, meanSquaredError, type Tensor, tanh, tensor, treeMap } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';

class Net extends Module {
  readonly first = new Linear(1, 32);
  readonly second = new Linear(32, 1);

  /** [B, 1] -> [B, 1]. */
  forward(x: Tensor): Tensor {
    return this.second.forward(tanh(this.first.forward(x)));
  }
}

const { why } = await openDevice();
console.log(why);

const net = new Net();
initialize(net, 1);
const optimizer = adamW({ weightDecay: 0 });
const weights = treeMap(alias, trainableState(net)); // copies: steps use their state up
let state = { weights, optimizer: optimizer.init(weights) };

const xs = Float32Array.from({ length: 64 }, (_, i) => i / 32 - 1);
const x = tensor(xs, [64, 1]);
const y = tensor(
  xs.map((v) => Math.sin(3 * v)),
  [64, 1],
);

const step = compile(
  (now: typeof state, learningRate: Tensor) => {
    const loss = (w: typeof weights) => withState(net, w, () => meanSquaredError(net.forward(x), y));
    const { value, gradient } = valueAndGrad(loss)(now.weights);
    const next = optimizer.update(now.weights, gradient, now.optimizer, { learningRate });
    return { state: { weights: next.parameters, optimizer: next.state }, loss: value };
  },
  { donate: { 0: 'state' } },
);

for (let i = 1; i <= 1000; i += 1) {
  const result = await step(state, tensor(0.01));
  state = result.state;
  if (i % 200 === 0) console.log(`step ${i}: loss ${(await item(result.loss)).toExponential(2)}`);
  result.loss.dispose();
}
