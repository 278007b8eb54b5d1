import { valueAndGrad } from '@deftjs/autograd';
import { adamW, lossScale, takeIf } from '@deftjs/autograd/optim';
import { cast, compile, item, mul, read, sum, type Tensor, tensor, treeLeaves } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { describe, expect, it } from 'vitest';

const half = (...values: number[]): Tensor => cast(tensor(values), 'f16');

describe('loss scaling', () => {
  const optimizer = adamW({ weightDecay: 0 });
  const scaling = lossScale({ initial: 1024, interval: 3 });
  const start = () => {
    const weights = { w: half(0.5, -1) };
    return { weights, moments: optimizer.init(weights), scale: scaling.init() };
  };
  type State = ReturnType<typeof start>;
  /** A step whose gradient is x, in half precision. */
  const step = (state: State, x: Tensor) => {
    const loss = ({ w }: { w: Tensor }): Tensor => scaling.scaled(sum(mul(w, x)), state.scale);
    const { gradient } = valueAndGrad(loss)(state.weights);
    const { gradients, finite, state: scale } = scaling.unscaled(gradient, state.scale);
    const next = optimizer.update(state.weights, gradients, state.moments, { learningRate: 0.1 });
    const taken = takeIf(
      finite,
      { weights: next.parameters, moments: next.state },
      { weights: state.weights, moments: state.moments },
    );
    return { state: { ...taken, scale }, gradients, finite };
  };

  it('leaves out the steps that overflow, bit for bit, in one compiled program', async () => {
    const { device } = await openDevice('wasm');
    const compiled = compile(step, { device });
    const steps = async (...xs: number[]): Promise<{ bits: number[][]; scales: number[] }> => {
      let state: State = start();
      const bits: number[][] = [];
      const scales: number[] = [];
      for (const x of xs) {
        ({ state } = await compiled(state, half(x, 1)));
        const { weights, moments } = state;
        bits.push(
          (await Promise.all(treeLeaves([weights, moments]).map((leaf) => read(leaf)))).flatMap((v) => [
            ...v,
          ]),
        );
        scales.push(await item(state.scale.scale));
      }
      return { bits, scales };
    };
    // 1e5 is beyond half precision.
    const { bits, scales } = await steps(1, 1e5, 20, 1, 1, 1, Number.NaN, 1);
    expect(scales).toEqual([1024, 512, 512, 512, 1024, 1024, 512, 512]);
    expect(bits[1]).toEqual(bits[0]);
    expect(bits[6]).toEqual(bits[5]);
    const clean = await steps(1, 20, 1, 1, 1, 1);
    expect(bits.at(-1)).toEqual(clean.bits.at(-1));
    expect(compiled.signatures).toBe(1);
    await device.close();
  });

  it('gives the gradients of the loss itself, in single precision', async () => {
    const { device } = await openDevice('wasm');
    const { gradients, finite } = step(start(), half(2 ** -20, 3));
    expect(gradients.w.dtype).toBe('f32');
    expect([...(await read(gradients.w, device))]).toEqual([2 ** -20, 3]);
    expect(await item(finite, device)).toBe(1);
    expect(() => lossScale({ backoff: 1 })).toThrow('lossScale: backoff must be in [0, 1); got 1');
    await device.close();
  });
});
