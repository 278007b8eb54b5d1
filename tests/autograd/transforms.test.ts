import {
  AnomalyError,
  customJvp,
  detectAnomaly,
  grad,
  hvp,
  jacobian,
  jvp,
  valueAndGrad,
  vjp,
  vmap,
} from '@deftjs/autograd';
import { gradcheck, gradgradcheck } from '@deftjs/autograd/gradcheck';
import { initialize, Linear, Module, trainableState, withState } from '@deftjs/autograd/nn';
import {
  add,
  apply,
  compile,
  cos,
  DisposedError,
  DTypeError,
  div,
  exp,
  gather,
  layerNorm,
  log,
  matmul,
  mul,
  ops,
  randomNormal,
  read,
  referenceDevice,
  relu,
  ShapeError,
  setDevice,
  sin,
  softmax,
  sqrt,
  square,
  stack,
  sub,
  sum,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { leaf, reproduction, type Sample, type SampleTensor, samplesOf } from '../support/op-samples.ts';

const device = referenceDevice();
beforeAll(() => setDevice(device));

const f64 = (...values: number[]): Tensor => tensor(Float64Array.from(values), [values.length]);
const numbers = async (x: Tensor): Promise<number[]> => [...(await read(x))].map((v) => v + 0);

/** Equal up to a few roundings of float64. */
async function expectClose(got: Tensor, expected: Tensor): Promise<void> {
  expect(got.shape).toEqual(expected.shape);
  const [a, b] = [await numbers(got), await numbers(expected)];
  a.forEach((value, i) => {
    if (Object.is(value, b[i])) return;
    expect(Math.abs(value - b[i]!)).toBeLessThanOrEqual(1e-12 * Math.max(1, Math.abs(b[i]!)));
  });
}

describe('jacobian', () => {
  const narrowing = (x: Tensor): Tensor => matmul(tensor([[1, 2, 3, 4]], [1, 4], 'f64'), square(x));
  it.each([
    ['in reverse, to fewer elements', narrowing, [4, 1]],
    ['forwards, to more elements', (x: Tensor) => stack([sin(x), cos(x), mul(sum(x), x)], 0), [2]],
  ] as const)('holds every partial derivative, %s', async (_name, f, shape) => {
    const x = randomNormal([1, 2], shape, 'f64');
    const whole = jacobian(f)(x);
    const y = f(x);
    expect(whole.shape).toEqual([...y.shape, ...x.shape]);
    const columns = await numbers(whole);
    for (let i = 0; i < x.size; i += 1) {
      const basis = tensor(
        Float64Array.from({ length: x.size }, (_, j) => Number(i === j)),
        x.shape,
      );
      const column = await numbers(jvp(f, [x], [basis]).tangent);
      column.forEach((value, k) => {
        expect(columns[k * x.size + i]).toBeCloseTo(value, 12);
      });
    }
  });

  it('is a tree of trees, and nests: the Hessian is the jacobian of the gradient', async () => {
    const f = ({ a, b }: { a: Tensor; b: Tensor }) => ({ y: mul(a, sum(b)), z: [square(b)] as const });
    const x = { a: f64(1, 2), b: f64(3, 4, 5) };
    const J = jacobian(f)(x);
    expect([J.y.a, J.y.b, J.z[0].a, J.z[0].b].map(({ shape }) => shape)).toEqual([
      [2, 2],
      [2, 3],
      [3, 2],
      [3, 3],
    ]);
    expect(await numbers(J.y.b)).toEqual([1, 1, 1, 2, 2, 2]);
    expect(await numbers(J.z[0].b)).toEqual([6, 0, 0, 0, 8, 0, 0, 0, 10]);
    const cube = (v: Tensor): Tensor => sum(mul(v, square(v)));
    expect(await numbers(jacobian(grad(cube))(f64(1, 2)))).toEqual([6, 0, 0, 12]);
  });

  it('refuses integers', () => {
    expect(() => jacobian((i: Tensor) => i)(tensor(Int32Array.of(1)))).toThrow(DTypeError);
  });
});

/** A batch of samples that differ in values only, drawn with the shapes and attributes of one. */
function batchOf(sample: Sample, size: number, seed: number): SampleTensor[][] {
  return Array.from({ length: size }, (_, item) =>
    sample.inputs.map(({ values, ...x }) => ({
      ...x,
      values: values.map((_value, i) => values[(i * (item + seed + 1) + item) % values.length]!),
    })),
  );
}

describe.each(ops.filter((op) => !['full', 'iota'].includes(op.name)).map((op) => [op.name, op] as const))(
  'vmap of %s',
  (_name, op) => {
    it('is the op of each item, whichever inputs have a batch', async () => {
      const drawn = fc.tuple(samplesOf(op).valid, fc.nat(5), fc.nat(7));
      await fc.assert(
        fc.asyncProperty(drawn, async ([sample, seed, mask]) => {
          const items = batchOf(sample, 3, seed);
          const count = sample.inputs.length;
          const has = sample.inputs.map((_, i) => ((mask >> i) & 1) === 1 || mask % count === i);
          const first = items[0]!.map(leaf);
          const given = (item: readonly Tensor[]): Tensor[] => first.map((x, i) => (has[i] ? item[i]! : x));
          const run = (x: readonly Tensor[]): Tensor => apply(op, x, sample.attrs as never);
          const columns = first.map((_, i) => stack(items.map((item) => leaf(item[i]!))));
          const batched = columns.filter((_, i) => has[i]);
          let next = 0;
          const one = (...x: readonly Tensor[]): Tensor => {
            next = 0;
            return run(first.map((fixed, i) => (has[i] ? x[next++]! : fixed)));
          };
          const got = vmap(one)(...batched);
          const expected = stack(items.map((item) => run(given(item.map(leaf)))));
          try {
            await expectClose(got, expected);
          } catch (cause) {
            throw new Error(`${(cause as Error).message}\nbatch of ${has}: ${reproduction(op, sample)}`, {
              cause,
            });
          }
        }),
        { numRuns: 30 },
      );
    });
  },
);

describe('vmap', () => {
  it('composes with derivatives in any order', async () => {
    const f = (x: Tensor): Tensor => sum(mul(softmax(x), layerNorm(x)));
    const xs = randomNormal([1, 2], [4, 3], 'f64');
    const rows = [0, 1, 2, 3].map((i) => gather(xs, tensor(Int32Array.of(i))));
    const single = stack(rows.map((row) => grad((x: Tensor) => f(gather(x, tensor(0, [], 'i32'))))(row)));
    const expected = gather(single, tensor(0, [], 'i32'), 1);
    await expectClose(vmap(grad(f))(xs), expected);
    await expectClose(grad((x: Tensor) => sum(vmap(f)(x)))(xs), expected);
    await expectClose(
      vmap((x: Tensor) => hvp(f, x, x))(xs),
      hvp((x: Tensor) => sum(vmap(f)(x)), xs, xs),
    );
  });

  it('maps over trees, repeats what does not depend on the item and closes over the rest', async () => {
    const shared = f64(10, 20);
    const f = ({ a }: { a: Tensor }) => ({ moved: add(a, shared), same: shared });
    const { moved, same } = vmap(f)({
      a: tensor(
        [
          [1, 2],
          [3, 4],
        ],
        [2, 2],
        'f64',
      ),
    });
    expect(await numbers(moved)).toEqual([11, 22, 13, 24]);
    expect(await numbers(same)).toEqual([10, 20, 10, 20]);
  });

  it('refuses batches that differ', () => {
    expect(() => vmap((a: Tensor, b: Tensor) => add(sum(a), sum(b)))(f64(1, 2), f64(1))).toThrow(
      'vmap: expected tensors of one first extent; got [2] and [1]',
    );
    expect(() => vmap((a: Tensor) => a)(tensor(1))).toThrow(ShapeError);
  });
});

describe('customJvp', () => {
  // log(1 + e^x) with the derivative that does not overflow.
  const f = customJvp(
    (x) => log(add(exp(x!), 1)),
    ([dx], _y, x) => mul(dx!, sub(1, div(1, add(exp(x!), 1)))),
  );

  it('serves both directions and every order', async () => {
    await gradcheck((x: Tensor) => f(x), [f64(-2, 0.5, 3)]);
    await gradgradcheck((x: Tensor) => f(x), [f64(-2, 0.5, 3)]);
    await expectClose(
      vmap(grad((x: Tensor) => f(x)))(f64(-2, 3)),
      grad((x: Tensor) => sum(f(x)))(f64(-2, 3)),
    );
  });

  it('differentiates by the rule, not by the function', async () => {
    const tenfold = customJvp(
      (x) => mul(x!, 2),
      ([dx]) => mul(dx!, 10),
    );
    expect(await numbers(grad((x: Tensor) => sum(tenfold(x)))(f64(1, 2)))).toEqual([10, 10]);
    expect(await numbers(jvp((x: Tensor) => tenfold(x), [f64(1)], [f64(1)]).tangent)).toEqual([10]);
  });
});

describe('compiled functions', () => {
  const loss = ({ w }: { w: Tensor }, x: Tensor): Tensor => sum(square(sin(mul(w, x))));
  const parameters = { w: f64(0.5, -1) };
  const x = f64(1, 2);

  it('have compiled gradients: of the compiled, and compiled of the plain', async () => {
    const expected = grad(loss)(parameters, x).w;
    await expectClose((await grad(compile(loss))(parameters, x)).w, expected);
    await expectClose((await compile(grad(loss))(parameters, x)).w, expected);
    const { value, gradient } = await valueAndGrad(compile(loss))(parameters, x);
    await expectClose(value, loss(parameters, x));
    await expectClose(gradient.w, expected);
  });

  it('of compiled gradients there are derivatives again', async () => {
    const slope = grad(compile((v: Tensor) => sum(mul(v, square(v)))));
    const curvature = grad(compile((v: Tensor) => sum(slope.fn(v))));
    expect(await numbers(await curvature(f64(1, 2)))).toEqual([6, 12]);
  });

  it('says that a promise cannot be differentiated', () => {
    const late = compile(loss);
    expect(() => grad(((w: { w: Tensor }) => late(w, x)) as never)(parameters as never)).toThrow(
      'grad: the function must return a tensor at once; got Promise',
    );
  });
});

class Net extends Module {
  readonly hidden = new Linear(2, 3);
  readonly out = new Linear(3, 1);
  readonly unused = new Linear(1, 1);

  forward(x: Tensor): Tensor {
    return this.out.forward(relu(this.hidden.forward(x)));
  }
}

describe('modules', () => {
  const net = (seed: number): Net => {
    const made = new Net();
    initialize(made, seed);
    return made;
  };
  const lossOf =
    (model: Net) =>
    (theta: Record<string, Tensor>, x: Tensor): Tensor =>
      sum(square(withState(model, theta, () => model.forward(x))));
  const x = randomNormal([3, 4], [5, 2]);

  it('are differentiated two at the same time, each as if alone', async () => {
    const [a, b] = [net(1), net(2)];
    const alone = [a, b].map((model) => grad(lossOf(model))(trainableState(model), x));
    const both = grad(([p, q]: readonly [Record<string, Tensor>, Record<string, Tensor>]) =>
      // Each model's loss is traced while the other's is.
      withState(a, p, () => add(lossOf(b)(q, x), sum(square(a.forward(x))))),
    )([trainableState(a), trainableState(b)]);
    for (const [i, gradients] of alone.entries()) {
      for (const [path, g] of Object.entries(gradients)) await expectClose(both[i]![path]!, g);
    }
  });

  it('have zero gradients for parameters that are not used', async () => {
    const model = net(1);
    const gradients = grad(lossOf(model))(trainableState(model), x);
    expect(await numbers(gradients['unused.weight']!)).toEqual([0]);
  });
});

describe('bad input', () => {
  it('is named at the call', () => {
    expect(() => grad((v: Tensor) => v)(f64(1, 2))).toThrow(
      'grad: the function must return a scalar; got [2]',
    );
    expect(() => grad((v: Tensor) => sum(v))(tensor(Int32Array.of(1)))).toThrow(DTypeError);
    const gone = f64(1);
    gone.dispose();
    expect(() => grad((v: Tensor) => sum(v))(gone)).toThrow(DisposedError);
    const { pullback } = vjp((v: Tensor) => v, f64(1, 2));
    expect(() => pullback(f64(1))).toThrow('vjp: expected f64 [2]; got f64 [1]');
  });
});

describe('detectAnomaly', () => {
  it('gives value and gradient where nothing is wrong, infinities included', async () => {
    const f = (v: Tensor): Tensor => sum(softmax(add(v, f64(0, Number.NEGATIVE_INFINITY))));
    const { value, gradient } = await detectAnomaly(f, f64(1, 2));
    expect(await numbers(value)).toEqual([1]);
    expect(await numbers(gradient)).toEqual([0, 0]);
  });

  it('names the op whose pullback gives the first NaN, and where it was applied', async () => {
    // |x| as sqrt(x^2): at 0 the cotangent is infinite, and 0 times it is NaN.
    const f = (v: Tensor): Tensor => sum(sqrt(square(v)));
    const found = detectAnomaly(f, f64(1, 0, 2));
    await expect(found).rejects.toThrow(AnomalyError);
    await expect(found).rejects.toThrow(
      /^detectAnomaly: the pullback of mul gives NaN at element 1 of f64 \[3\], in mul; mul was applied at .*transforms\.test\.ts/,
    );
    await expect(found).rejects.toMatchObject({ op: 'mul', origin: expect.stringContaining('square') });
  });

  it('names the op of the forward pass, or the tensor that was given', async () => {
    const f = (v: Tensor): Tensor => sum(exp(log(v)));
    await expect(detectAnomaly(f, f64(1, -1))).rejects.toThrow(
      /^detectAnomaly: log gives NaN at element 1 of f64 \[2\] at .*transforms\.test\.ts/,
    );
    await expect(detectAnomaly(f, f64(1, Number.NaN))).rejects.toThrow(
      'detectAnomaly: a tensor that was given holds NaN at element 1 of f64 [2]',
    );
  });
});
