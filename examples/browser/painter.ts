// A small network learns a picture: from the place of a pixel to its colour. Runs in a page and in Node alike.
import { valueAndGrad } from '@deftjs/autograd';
import { initialize, Linear, Module, trainableState, withState } from '@deftjs/autograd/nn';
import { adamW } from '@deftjs/autograd/optim';
import {
  alias,
  compile,
  type Device,
  item,
  meanSquaredError,
  read,
  sigmoid,
  silu,
  type Tensor,
  tensor,
  treeMap,
} from '@deftjs/tensor';

/** Pixels along a side of the picture. */
export const side = 32;

/** Waves of the place that the network sees: sin and cos of pi 2^f x and pi 2^f y for f < 4. */
const frequencies = [0, 1, 2, 3];
const features = 4 * frequencies.length;

class Painter extends Module {
  readonly first = new Linear(features, 64);
  readonly second = new Linear(64, 64);
  readonly third = new Linear(64, 3);

  /** [pixels, features] -> [pixels, 3], colours in (0, 1). */
  forward(x: Tensor): Tensor {
    const h = silu(this.second.forward(silu(this.first.forward(x))));
    return sigmoid(this.third.forward(h));
  }
}

/** The picture to learn, [side * side, 3] in [0, 1]: a sun over hills. */
export function target(): Float32Array {
  const colour = (x: number, y: number): readonly [number, number, number] => {
    if (y > 0.62 + 0.1 * Math.sin(7 * x)) return [0.15, 0.45 + 0.3 * (1 - y), 0.2];
    if (Math.hypot(x - 0.68, y - 0.3) < 0.16) return [1, 0.82, 0.25];
    return [0.35 + 0.5 * y, 0.6 + 0.25 * y, 0.95];
  };
  const pixels = Array.from({ length: side * side }, (_, i) =>
    colour(((i % side) + 0.5) / side, (Math.floor(i / side) + 0.5) / side),
  );
  return Float32Array.from(pixels.flat());
}

function places(): Float32Array {
  const pixels = Array.from({ length: side * side }, (_, i) => {
    const [x, y] = [((i % side) + 0.5) / side, (Math.floor(i / side) + 0.5) / side];
    return frequencies.flatMap((f) =>
      [x, y].flatMap((v) => [Math.sin(Math.PI * 2 ** f * v), Math.cos(Math.PI * 2 ** f * v)]),
    );
  });
  return Float32Array.from(pixels.flat());
}

/** What the page tells its driver. */
export interface Report {
  why: string;
  losses: number[];
  /** null while it works, '' when it ended well, else what went wrong. */
  outcome: string | null;
}

/** What a step gives: the loss before its update, and the picture as the network paints it then, [side * side, 3]. */
export interface Progress {
  readonly step: number;
  readonly loss: number;
  readonly picture: Float32Array;
}

/** Trains on the device, one update at a time. The same numbers on every device, up to rounding. */
export async function* paint(device: Device, steps: number): AsyncGenerator<Progress> {
  const net = new Painter();
  initialize(net, 1);
  const optimizer = adamW({ weightDecay: 0 });
  const weights = treeMap(alias, trainableState(net)); // copies: steps use their state up
  let state = { weights, optimizer: optimizer.init(weights) };
  const x = tensor(places(), [side * side, features]);
  const colours = tensor(target(), [side * side, 3]);

  const step = compile(
    (now: typeof state, learningRate: Tensor) => {
      const picture = (w: typeof weights) => withState(net, w, () => net.forward(x));
      const loss = (w: typeof weights) => meanSquaredError(picture(w), colours);
      const { value, gradient } = valueAndGrad(loss)(now.weights);
      const next = optimizer.update(now.weights, gradient, now.optimizer, { learningRate });
      return {
        state: { weights: next.parameters, optimizer: next.state },
        loss: value,
        picture: picture(now.weights),
      };
    },
    { device, donate: { 0: 'state' } },
  );
  for (let i = 1; i <= steps; i += 1) {
    const result = await step(state, tensor(0.01));
    state = result.state;
    const [loss, picture] = [await item(result.loss), (await read(result.picture)) as Float32Array];
    result.loss.dispose();
    result.picture.dispose();
    yield { step: i, loss, picture };
  }
  step.dispose();
}
