import { grad, hvp } from '@deftjs/autograd';
import {
  abs,
  clamp,
  expand,
  gather,
  max,
  maximum,
  minimum,
  mul,
  pow,
  read,
  referenceDevice,
  relu,
  scatterAdd,
  setDevice,
  sign,
  softplus,
  sqrt,
  stopGradient,
  sum,
  sumTo,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import { beforeAll, describe, expect, it } from 'vitest';

beforeAll(() => setDevice(referenceDevice()));

const f64 = (...values: number[]): Tensor => tensor(Float64Array.from(values), [values.length]);
const slopes = async (f: (x: Tensor) => Tensor, ...at: number[]): Promise<number[]> =>
  [...(await read(grad((x: Tensor) => sum(f(x)))(f64(...at))))].map((v) => v + 0);
const curvatures = async (f: (x: Tensor) => Tensor, ...at: number[]): Promise<number[]> =>
  [...(await read(hvp((x: Tensor) => sum(f(x)), f64(...at), f64(...at.map(() => 1)))))].map((v) => v + 0);

describe('where a derivative does not exist, the convention holds', () => {
  it('abs and relu have slope 0 at 0', async () => {
    expect(await slopes(abs, -2, 0, 2)).toEqual([-1, 0, 1]);
    expect(await slopes(relu, -2, 0, 2)).toEqual([0, 0, 1]);
    expect(await slopes(sign, -2, 0, 2)).toEqual([0, 0, 0]);
  });

  it('softplus, written with kinks that cancel, has slope 1/2 at 0', async () => {
    expect(await slopes(softplus, 0)).toEqual([0.5]);
  });

  it('ties share: half each in pairs and on bounds, equally among many', async () => {
    expect(await slopes((x) => maximum(x, 1), 0, 1, 2)).toEqual([0, 0.5, 1]);
    expect(await slopes((x) => minimum(x, 1), 0, 1, 2)).toEqual([1, 0.5, 0]);
    expect(await slopes((x) => clamp(x, -1, 1), -2, -1, 0, 1, 2)).toEqual([0, 0.5, 1, 0.5, 0]);
    expect(await slopes((x) => max(x), 3, 1, 3, 3, 3)).toEqual([0.25, 0, 0.25, 0.25, 0.25]);
  });

  it('sqrt is vertical at 0', async () => {
    expect(await slopes(sqrt, 0)).toEqual([Number.POSITIVE_INFINITY]);
  });
});

describe('pow at base 0', () => {
  it('has the derivatives of the polynomial for whole exponents', async () => {
    const at0 =
      (exponent: number) =>
      (x: Tensor): Tensor =>
        pow(x, exponent);
    for (const [exponent, slope, curvature] of [
      [0, 0, 0],
      [1, 1, 0],
      [2, 0, 2],
      [3, 0, 0],
    ] as const) {
      expect(await slopes(at0(exponent), 0), `x^${exponent}`).toEqual([slope]);
      expect(await curvatures(at0(exponent), 0), `x^${exponent}`).toEqual([curvature]);
    }
  });

  it('keeps the derivatives in a negative base', async () => {
    expect(await slopes((x) => pow(x, 3), -2)).toEqual([12]);
    expect(await curvatures((x) => pow(x, 3), -2)).toEqual([-12]);
  });

  it('has none in the exponent', async () => {
    expect(await slopes((b) => pow(f64(0, -2), b), 2, 3)).toEqual([0, 0]);
  });
});

describe('what is left out has derivative 0', () => {
  it('of positions outside, forwards and back', async () => {
    const index = tensor(Int32Array.of(0, -1, 7, 1));
    expect(await slopes((x) => scatterAdd(x, index, 2), 1, 2, 3, 4)).toEqual([1, 0, 0, 1]);
    expect(await slopes((x) => gather(x, index), 1, 2, 3)).toEqual([1, 1, 0]);
  });

  it('of constants, and of the same tensor used beside one', async () => {
    expect(await slopes((x) => mul(x, stopGradient(x)), 2, 3)).toEqual([2, 3]);
  });
});

describe('adjoint pairs', () => {
  it('expand and sumTo undo each other up to the number of copies', async () => {
    expect(await slopes((x) => expand(x, [4, 2]), 1, 2)).toEqual([4, 4]);
    expect([...(await read(sumTo(expand(f64(1, 2), [3, 2]), [2])))]).toEqual([3, 6]);
  });
});
