import { checkpoint, hvp, valueAndGrad } from '@deftjs/autograd';
import { gradcheck, gradgradcheck } from '@deftjs/autograd/gradcheck';
import {
  add,
  attention,
  compile,
  type Graph,
  keyOf,
  layerNorm,
  matmul,
  mul,
  normalNumbers,
  numel,
  read,
  referenceDevice,
  relu,
  type Shape,
  silu,
  square,
  sum,
  type Tensor,
  tanh,
  tensor,
  transpose,
  treeLeaves,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { describe, expect, it } from 'vitest';
import { lower } from '../../packages/tensor/src/compiler/lower.ts';
import { graphOf, runPlan } from '../tensor/compiler/execute.ts';

const normal = (seed: number, shape: Shape): Tensor =>
  tensor(
    Float32Array.from(normalNumbers(keyOf(seed), numel(shape)), (z) => z / 4),
    shape,
  );

type Weights = { readonly up: Tensor; readonly down: Tensor };

/** A residual layer that makes intermediates four times as wide as its input. */
const layer = (x: Tensor, { up, down }: Weights): Tensor =>
  add(x, matmul(silu(matmul(layerNorm(x), up)), down));

const width = 16;
const weights = (depth: number): Weights[] =>
  Array.from({ length: depth }, (_, i) => ({
    up: normal(2 * i, [width, 4 * width]),
    down: normal(2 * i + 1, [4 * width, width]),
  }));

/** The loss of a stack of layers, in segments of `length` layers that are kept or computed again. */
const stacked =
  (kept: boolean, length = 1) =>
  (all: readonly Weights[], x: Tensor): Tensor => {
    let y = x;
    for (let start = 0; start < all.length; start += length) {
      // The segment closes over its weights: they are differentiated all the same.
      const segment = (h: Tensor): Tensor => all.slice(start, start + length).reduce(layer, h);
      y = (kept ? segment : checkpoint(segment))(y);
    }
    return sum(square(y));
  };

/** Bytes of temporaries. */
const bytesOf = (graph: Graph): number => lower(graph).slots.reduce((sum, bytes) => sum + bytes, 0);

/** Bytes of temporaries of a training step. */
function temporaryBytes(loss: (all: readonly Weights[], x: Tensor) => Tensor, depth: number): number {
  const { value, gradient } = valueAndGrad(loss)(weights(depth), normal(99, [64, width]));
  return bytesOf(graphOf([value, ...treeLeaves(gradient)]));
}

describe('checkpoint', () => {
  it('gives the same bits as the function without it', async () => {
    const { device } = await openDevice('wasm');
    const gradients = async (kept: boolean): Promise<Tensor[]> => {
      const step = valueAndGrad(stacked(kept));
      const { value, gradient } = await compile(step, { device })(weights(3), normal(99, [8, width]));
      return treeLeaves([value, gradient]);
    };
    const [plain, again] = [await gradients(true), await gradients(false)];
    for (const [i, leaf] of plain.entries()) expect(await read(again[i]!)).toEqual(await read(leaf));
    await device.close();
  });

  it('keeps the inputs of segments instead of everything', () => {
    const [kept, again] = [true, false].map((keep) => temporaryBytes(stacked(keep), 16));
    expect(again! / kept!).toBeLessThan(0.4);
  });

  it('grows with the square root of the depth when segments do', () => {
    const bytes = (depth: number): number => temporaryBytes(stacked(false, Math.sqrt(depth)), depth);
    expect(bytes(36) / bytes(16)).toBeLessThan(1.75);
    expect(temporaryBytes(stacked(true), 36) / temporaryBytes(stacked(true), 16)).toBeGreaterThan(2);
  });

  it('computes again what begins with views and elementwise ops, by a valid plan', () => {
    const graph = (kept: boolean): Graph => {
      const halfway = (h: Tensor, seed: number): Tensor =>
        matmul(square(relu(transpose(h))), normal(seed, [32, 32]));
      const segment = (h: Tensor): Tensor => transpose(halfway(halfway(h, 1), 2));
      const chain = (x: Tensor): Tensor =>
        sum(Array.from({ length: 8 }).reduce<Tensor>(kept ? segment : checkpoint(segment), x));
      const { value, gradient } = valueAndGrad(chain)(normal(7, [32, 32]));
      return graphOf([value, gradient]);
    };
    const [plain, again] = [graph(true), graph(false)];
    expect(bytesOf(again)).toBeLessThan(0.75 * bytesOf(plain));
    expect(runPlan(again)).toEqual(runPlan(plain));
  });

  it('computes attention again, whose operands it reads a second time', () => {
    const graph = (segment: (h: Tensor) => Tensor) => {
      const { value, gradient } = valueAndGrad((x: Tensor) => sum(square(segment(x))))(
        normal(3, [1, 2, 8, 4]),
      );
      return graphOf([value, gradient]);
    };
    const itself = (h: Tensor): Tensor => attention(h, h, h);
    expect(runPlan(graph(checkpoint(itself)))).toEqual(runPlan(graph(itself)));
  });

  it('has the derivatives of its function, of first and second order', async () => {
    const f = checkpoint((a: Tensor, b: Tensor) => mul(tanh(a), square(b)));
    const nested = checkpoint((a: Tensor, b: Tensor) => f(square(a), f(a, b)));
    const x: [Tensor, Tensor] = [tensor([0.5, -1, 2]), tensor([1.5, 0.25, -0.5])];
    await gradcheck((a: Tensor, b: Tensor) => nested(a, b), x);
    await gradgradcheck((a: Tensor, b: Tensor) => nested(a, b), x);
    const [plain, again] = await Promise.all(
      [square, checkpoint(square)].map((g) =>
        read(
          hvp((a: Tensor) => sum(mul(g(a), a)), x[0], x[1]),
          referenceDevice(),
        ),
      ),
    );
    expect(again).toEqual(plain);
  });
});
