import { customVjp, grad, hvp, jvp, type VjpRule } from '@deftjs/autograd';
import { GradcheckError, gradcheck, gradgradcheck } from '@deftjs/autograd/gradcheck';
import { exp, mul, read, referenceDevice, sum, type Tensor, tensor } from '@deftjs/tensor';
import { describe, expect, it } from 'vitest';

const device = referenceDevice();
const x = tensor([0.3, -1.2, 2]);
const y = tensor([1.5, 0.5, -0.25]);

const product = (a?: Tensor, b?: Tensor): Tensor => mul(exp(a!), b!);
const rightRule: VjpRule = (dy, value, a) => [mul(dy, value), mul(dy, exp(a!))];

describe('customVjp', () => {
  it('has the value of its function', async () => {
    const values = await read(customVjp(product, rightRule)(x, y), device);
    expect([...values]).toEqual([...(await read(product(x, y), device))]);
  });

  it('differentiates by its rule in reverse', async () => {
    const tenfold = customVjp(
      (a) => mul(a!, 2),
      (dy) => [mul(dy, 10)],
    );
    const g = grad((a: Tensor) => sum(tenfold(a)))(x);
    expect([...(await read(g, device))]).toEqual([10, 10, 10]);
  });

  it('differentiates its function itself forwards', async () => {
    const tenfold = customVjp(
      (a) => mul(a!, 2),
      (dy) => [mul(dy, 10)],
    );
    const { tangent } = jvp((a: Tensor) => tenfold(a), [x], [tensor([1, 1, 1])]);
    expect([...(await read(tangent, device))]).toEqual([2, 2, 2]);
  });

  it('takes null in the rule for an input without a derivative', async () => {
    const second = customVjp(product, (dy, _value, a) => [null, mul(dy, exp(a!))]);
    const [da, db] = grad(([a, b]: [Tensor, Tensor]) => sum(second(a, b)))([x, y]);
    expect([...(await read(da, device))]).toEqual([0, 0, 0]);
    expect([...(await read(db, device))]).toEqual([...(await read(exp(x), device))]);
  });

  it('passes the checks of first and second derivatives with a right rule', async () => {
    const f = customVjp(product, rightRule);
    await gradcheck((a: Tensor, b: Tensor) => f(a, b), [x, y]);
    await gradgradcheck((a: Tensor, b: Tensor) => f(a, b), [x, y]);
  });

  it('is caught by the check with a wrong rule', async () => {
    const wrong = customVjp(product, (dy, value, a) => [mul(dy, mul(value, 1.001)), mul(dy, exp(a!))]);
    await expect(gradcheck((a: Tensor, b: Tensor) => wrong(a, b), [x, y])).rejects.toThrow(GradcheckError);
  });

  it('nests in forward over reverse', async () => {
    const f = customVjp(
      (a) => exp(a!),
      (dy, value) => [mul(dy, value)],
    );
    const v = tensor([1, 2, 3]);
    const product = hvp((a: Tensor) => sum(f(a)), x, v);
    expect([...(await read(product, device))]).toEqual([...(await read(mul(exp(x), v), device))]);
  });
});
