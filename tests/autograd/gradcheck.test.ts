import { customVjp } from '@deftjs/autograd';
import { GradcheckError, gradcheck, gradgradcheck } from '@deftjs/autograd/gradcheck';
import {
  add,
  DTypeError,
  exp,
  gather,
  greater,
  mul,
  sin,
  square,
  stopGradient,
  sub,
  sum,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import { describe, expect, it } from 'vitest';

const f64 = (...values: number[]): Tensor => tensor(Float64Array.from(values), [values.length]);

describe('gradcheck', () => {
  it('reports how many numbers it compared and the worst of them', async () => {
    // 3 by 3 elements, each against a difference and a jvp.
    const report = await gradcheck(sin, [f64(0.5, 1, -2)]);
    expect(report.comparisons).toBe(18);
    expect(report.worst).toBeGreaterThan(0);
    expect(report.worst).toBeLessThan(1e-9);
  });

  it('names the worst element, what was expected and what came', async () => {
    const wrong = customVjp(square, (dy, _y, x) => [mul(dy, mul(x!, f64(2, 2, 3)))]);
    const checked = gradcheck(wrong, [f64(1, 2, 4)]);
    await expect(checked).rejects.toThrow(GradcheckError);
    await expect(checked).rejects.toThrow(
      /^gradcheck: vjp against central differences, output 0 at \[2\] by input 0 at \[2\]; expected (8|8\.0{6}\d*|7\.9{6}\d*); got 12; relative error 3\.33e-1$/,
    );
  });

  it('walks trees of inputs and results, and leaves integers as they are', async () => {
    const f = ({ table, rows }: { table: Tensor; rows: Tensor }, [scale]: readonly [Tensor]) => {
      const picked = gather(table, rows);
      return { picked: mul(picked, scale), total: [sum(square(table))], index: rows };
    };
    const table = tensor([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    const report = await gradcheck(f, [{ table, rows: tensor(Int32Array.of(2, 0, 2)) }, [tensor([0.5])]]);
    // (6 results of one output + 1 of the other) by (6 + 1 elements of two inputs), twice.
    expect(report.comparisons).toBe(2 * 7 * 7);
  });

  it('computes in float64 whatever the type of the inputs', async () => {
    // In f32, a step of 1e-5 would leave two digits of the difference.
    const { worst } = await gradcheck((x: Tensor) => exp(mul(x, 3)), [tensor([0.1, 0.7, -1.3])]);
    expect(worst).toBeLessThan(1e-8);
  });

  it('takes random directions through large inputs', async () => {
    const { comparisons } = await gradcheck(
      (x: Tensor) => sum(square(x)),
      [tensor(new Float64Array(1000).map((_, i) => Math.sin(i)))],
    );
    expect(comparisons).toBe(16);
  });

  it('reads tensors that the function closes over', async () => {
    const weight = tensor(Uint16Array.of(0x3c00, 0x4000), [2], 'f16'); // 1 and 2
    await gradcheck(
      (x: Tensor) => mul(mul(x, x), weight),
      [tensor(Uint16Array.of(0x3c00, 0xbc00), [2], 'f16')],
    );
  });

  it('finds a derivative that is missing altogether', async () => {
    await expect(gradcheck((x: Tensor) => add(x, stopGradient(square(x))), [f64(1, 2)])).rejects.toThrow(
      GradcheckError,
    );
  });

  it('tells the rounding inside of a function from a wrong derivative', async () => {
    const cancelled = (x: Tensor) => sub(add(mul(x, 1e-6), 100), 100); // 14 digits of 100 leave 8 of x / 10^6
    await gradcheck(cancelled, [f64(0.3, 0.7)]);
    const wrong = customVjp(cancelled, (dy) => [mul(dy, 1.5e-6)]);
    await expect(gradcheck(wrong, [f64(0.3, 0.7)])).rejects.toThrow(
      /expected 1e-6|expected (1\.0|9\.9)\d*e-[67]/,
    );
  });

  it('finds a derivative that is not a number', async () => {
    const wrong = customVjp(square, (dy) => [mul(dy, Number.NaN)]);
    await expect(gradcheck(wrong, [f64(1)])).rejects.toThrow(/got NaN|expected NaN/);
  });

  it('refuses functions without floats to differentiate', async () => {
    await expect(gradcheck((x: Tensor) => greater(x, 0), [f64(1)])).rejects.toThrow(DTypeError);
    await expect(gradcheck((x: Tensor) => x, [tensor(Int32Array.of(1))])).rejects.toThrow(
      'gradcheck: expected floats to differentiate; got 0 inputs and 0 results',
    );
  });
});

describe('gradgradcheck', () => {
  it('passes where second derivatives are right', async () => {
    const { worst } = await gradgradcheck(
      (x: Tensor, y: Tensor) => mul(exp(x), square(y)),
      [f64(0.5, -1), f64(2, 3)],
    );
    expect(worst).toBeLessThan(1e-8);
  });

  it('finds a pullback that is right but cannot be differentiated again', async () => {
    const once = customVjp(square, (dy, _y, x) => [mul(dy, stopGradient(mul(x!, 2)))]);
    await gradcheck(once, [f64(1, 2)]);
    await expect(gradgradcheck(once, [f64(1, 2)])).rejects.toThrow(GradcheckError);
  });
});
