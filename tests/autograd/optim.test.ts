import { valueAndGrad } from '@deftjs/autograd';
import {
  accumulate,
  adam,
  adamW,
  clipByGlobalNorm,
  clipByValue,
  constant,
  cosine,
  globalNorm,
  linear,
  lion,
  movingAverage,
  type Optimizer,
  type ParameterGroup,
  polynomial,
  sgd,
  warmup,
} from '@deftjs/autograd/optim';
import {
  compile,
  evaluate,
  expand,
  mean,
  mul,
  narrow,
  read,
  referenceDevice,
  setDevice,
  square,
  sub,
  type Tensor,
  type Tree,
  tensor,
  treeLeaves,
} from '@deftjs/tensor';
import { beforeAll, describe, expect, it } from 'vitest';

beforeAll(() => setDevice(referenceDevice()));

const f64 = (values: readonly number[]): Tensor => tensor(Float64Array.from(values), [values.length]);
const rates = [0.1, 0.05, 0.2, 0.01, 0.1, 0.1];
const start = { 'layer.weight': [0.5, -1.25, 3], 'layer.bias': [0, 1e-3] };
type Weights = { [path in keyof typeof start]: Tensor };

/** A gradient that depends on the weights and differs from step to step. */
const gradientAt = (p: number, step: number): number => Math.sin(3 * p + step) + 0.25 * p;

/** The trajectory of an optimizer over the tensors. */
async function trajectory<S extends Tree>(
  optimizer: Optimizer<S>,
  learningRate: (step: number) => number | Tensor,
  decayTowards?: Weights,
): Promise<number[][]> {
  let weights = Object.fromEntries(Object.entries(start).map(([k, v]) => [k, f64(v)])) as Weights;
  let state = optimizer.init(weights);
  const seen: number[][] = [];
  for (let step = 0; step < rates.length; step += 1) {
    const gradients = {} as Weights;
    for (const [path, p] of Object.entries(weights) as [keyof Weights, Tensor][]) {
      gradients[path] = f64([...(await read(p))].map((value) => gradientAt(value, step)));
    }
    const options = { learningRate: learningRate(step), ...(decayTowards && { decayTowards }) };
    const next = optimizer.update(weights, gradients, state, options);
    await evaluate(treeLeaves([next.parameters, next.state]));
    weights = next.parameters;
    state = next.state;
    seen.push([...(await read(weights['layer.weight'])), ...(await read(weights['layer.bias']))]);
  }
  return seen;
}

interface Scalar {
  p: number;
  m: number;
  v: number;
}

/** The same, one number at a time. */
function expectedTrajectory(
  rule: (x: Scalar, g: number, rate: number, t: number, decay: number) => void,
  decayOf: (path: string) => number,
  factorOf: (path: string) => number = () => 1,
): number[][] {
  const scalars = Object.entries(start).flatMap(([path, values]) =>
    values.map((p) => ({ path, x: { p, m: 0, v: 0 } })),
  );
  return rates.map((rate, step) => {
    for (const { path, x } of scalars)
      rule(x, gradientAt(x.p, step), rate * factorOf(path), step + 1, decayOf(path));
    return scalars.map(({ x }) => x.p);
  });
}

/** As torch/optim/adam.py (single tensor) orders the operations. */
function adamRule(decoupled: boolean, b1: number, b2: number, eps: number) {
  return (x: Scalar, gradient: number, rate: number, t: number, decay: number): void => {
    let g = gradient;
    if (decoupled) x.p *= 1 - rate * decay;
    else g += decay * x.p;
    x.m += (g - x.m) * (1 - b1);
    x.v = b2 * x.v + (1 - b2) * g * g;
    const denominator = Math.sqrt(x.v) / Math.sqrt(1 - b2 ** t) + eps;
    x.p -= (rate / (1 - b1 ** t)) * (x.m / denominator);
  };
}

/** Program 1 of the paper. */
function lionRule(b1: number, b2: number) {
  return (x: Scalar, g: number, rate: number, _t: number, decay: number): void => {
    x.p -= rate * (Math.sign(b1 * x.m + (1 - b1) * g) + decay * x.p);
    x.m = b2 * x.m + (1 - b2) * g;
  };
}

/** As torch/optim/sgd.py, without dampening. */
function sgdRule(momentum: number, nesterov: boolean) {
  return (x: Scalar, gradient: number, rate: number, t: number, decay: number): void => {
    const g = gradient + decay * x.p;
    x.m = t === 1 ? g : momentum * x.m + g;
    x.p -= rate * (nesterov ? g + momentum * x.m : x.m);
  };
}

/** Within 1e-9 (float64; the series for 1 - beta^t is cut below 1e-12, the rest is rounding). */
function expectClose(got: readonly number[][], expected: readonly number[][]): void {
  got.flat().forEach((value, i) => {
    const want = expected.flat()[i]!;
    expect(Math.abs(value - want), `number ${i}: ${value} for ${want}`).toBeLessThanOrEqual(
      1e-9 * Math.max(1, Math.abs(want)),
    );
  });
  expect(got.flat().length).toBe(expected.flat().length);
}

const groups: readonly ParameterGroup[] = [{ match: /bias$/, weightDecay: 0, learningRateFactor: 0.5 }];
const isBias = (path: string): boolean => path.endsWith('bias');

describe('trajectories equal those of a loop over numbers', () => {
  it('AdamW', async () => {
    const got = await trajectory(
      adamW({ betas: [0.9, 0.95], eps: 1e-6, weightDecay: 0.1 }),
      (step) => rates[step]!,
    );
    expectClose(
      got,
      expectedTrajectory(adamRule(true, 0.9, 0.95, 1e-6), () => 0.1),
    );
  });

  it('AdamW with the settings that PyTorch starts from', async () => {
    expectClose(
      await trajectory(adamW(), (step) => rates[step]!),
      expectedTrajectory(adamRule(true, 0.9, 0.999, 1e-8), () => 0.01),
    );
  });

  it('AdamW with groups', async () => {
    expectClose(
      await trajectory(adamW({ weightDecay: 0.3, groups }), (step) => rates[step]!),
      expectedTrajectory(
        adamRule(true, 0.9, 0.999, 1e-8),
        (path) => (isBias(path) ? 0 : 0.3),
        (path) => (isBias(path) ? 0.5 : 1),
      ),
    );
  });

  it('Adam, whose decay joins the gradient', async () => {
    expectClose(
      await trajectory(adam({ weightDecay: 0.2 }), (step) => rates[step]!),
      expectedTrajectory(adamRule(false, 0.9, 0.999, 1e-8), () => 0.2),
    );
  });

  it('Adam without averaging of either moment', async () => {
    expectClose(
      await trajectory(adam({ betas: [0, 0] }), (step) => rates[step]!),
      expectedTrajectory(adamRule(false, 0, 0, 1e-8), () => 0),
    );
  });

  it('Lion', async () => {
    expectClose(
      await trajectory(lion({ weightDecay: 0.3, groups }), (step) => rates[step]!),
      expectedTrajectory(
        lionRule(0.9, 0.99),
        (path) => (isBias(path) ? 0 : 0.3),
        (path) => (isBias(path) ? 0.5 : 1),
      ),
    );
  });

  it.each([
    ['AdamW', adamW({ weightDecay: 0.3 }), adamRule(true, 0.9, 0.999, 1e-8)],
    ['Adam', adam({ weightDecay: 0.3 }), adamRule(false, 0.9, 0.999, 1e-8)],
    ['SGD', sgd({ weightDecay: 0.3 }), sgdRule(0, false)],
    ['Lion', lion({ weightDecay: 0.3 }), lionRule(0.9, 0.99)],
  ] as const)('%s with decay towards a reference, which moves the origin', async (_name, optimizer, rule) => {
    const origin = 0.75;
    const towards = Object.fromEntries(
      Object.entries(start).map(([path, values]) => [path, f64(values.map(() => origin))]),
    ) as Weights;
    const shifted = (x: Scalar, g: number, rate: number, t: number, decay: number): void => {
      x.p -= origin;
      rule(x, g, rate, t, decay);
      x.p += origin;
    };
    expectClose(
      await trajectory(optimizer as Optimizer<Tree>, (step) => rates[step]!, towards),
      expectedTrajectory(shifted, () => 0.3),
    );
  });

  it.each([
    ['plain', 0, false],
    ['momentum', 0.9, false],
    ['Nesterov', 0.9, true],
  ] as const)('SGD, %s', async (_name, momentum, nesterov) => {
    expectClose(
      await trajectory(sgd({ momentum, nesterov, weightDecay: 0.05, groups }), (step) => rates[step]!),
      expectedTrajectory(
        sgdRule(momentum, nesterov),
        (path) => (isBias(path) ? 0 : 0.05),
        (path) => (isBias(path) ? 0.5 : 1),
      ),
    );
  });
});

describe('a step', () => {
  it('takes the learning rate as a tensor', async () => {
    const rule = adamRule(true, 0.9, 0.999, 1e-8);
    // An f32 tensor rounds the rate to 24 bits; these are exact.
    const exact = [0.125, 0.5, 0.25, 0.0625, 1, 2];
    const got = await trajectory(adamW(), (step) => tensor(exact[step]!));
    const scalars = Object.values(start)
      .flat()
      .map((p) => ({ p, m: 0, v: 0 }));
    const want = exact.map((rate, step) => {
      for (const x of scalars) rule(x, gradientAt(x.p, step), rate, step + 1, 0.01);
      return scalars.map(({ p }) => p);
    });
    expectClose(got, want);
  });

  it('stays valid when compiled: a new rate and a new step count need no new program', async () => {
    const optimizer = adamW({ weightDecay: 0 });
    const step = compile(
      (weights: Weights, state: ReturnType<typeof optimizer.init>, learningRate: Tensor) => {
        const { parameters, state: next } = optimizer.update(weights, weights, state, { learningRate });
        return { weights: parameters, state: next };
      },
    );
    let weights: Weights = { 'layer.weight': f64([1, -2, 3]), 'layer.bias': f64([0.5, 0.25]) };
    let state = optimizer.init(weights);
    const scalars = [1, -2, 3, 0.5, 0.25].map((p) => ({ p, m: 0, v: 0 }));
    const rule = adamRule(true, 0.9, 0.999, 1e-8);
    for (const [i, rate] of [0.5, 0.25, 0.125].entries()) {
      ({ weights, state } = await step(weights, state, tensor(rate)));
      for (const x of scalars) rule(x, x.p, rate, i + 1, 0);
      const got = [...(await read(weights['layer.weight'])), ...(await read(weights['layer.bias']))];
      expectClose([got], [scalars.map(({ p }) => p)]);
    }
    expect(step.signatures).toBe(1);
  });

  it('keeps moments of half-precision parameters in single precision', () => {
    const half = { w: tensor(new Uint16Array(3), [3], 'f16') };
    const optimizer = adamW();
    const { parameters, state } = optimizer.update(half, half, optimizer.init(half), { learningRate: 0.1 });
    expect(parameters.w.dtype).toBe('f16');
    expect(treeLeaves([state.m, state.v]).map((x) => x.dtype)).toEqual(['f32', 'f32']);
  });

  it('corrects the bias to float64 accuracy from the first step to the millionth', async () => {
    // One parameter 0 with gradient 1 and m = v = 1 - beta^t moves by exactly the rate.
    const optimizer = adamW({ eps: 0, weightDecay: 0 });
    for (const t of [1, 2, 10, 100, 124, 125, 126, 1000, 100_000, 1_000_000]) {
      const previous = (beta: number): Tensor => f64([-Math.expm1((t - 1) * Math.log(beta))]);
      const state = { step: tensor(t - 1), m: { w: previous(0.9) }, v: { w: previous(0.999) } };
      const { parameters } = optimizer.update({ w: f64([0]) }, { w: f64([1]) }, state, { learningRate: 1 });
      expect(Math.abs((await read(parameters.w))[0]! + 1), `step ${t}`).toBeLessThan(1e-11);
    }
  });

  it('refuses what does not fit, by the name of the parameter', () => {
    const weights = { a: f64([1, 2]), b: f64([3]) };
    const optimizer = adamW();
    const state = optimizer.init(weights);
    const learningRate = 0.1;
    expect(() => optimizer.update(weights, { a: f64([1]), b: f64([3]) }, state, { learningRate })).toThrow(
      'adamW: gradients do not fit "a"; expected [2]; got f64 [1]',
    );
    expect(() => optimizer.update(weights, { a: f64([1, 2]) } as never, state, { learningRate })).toThrow(
      'adamW: expected gradients for 2 parameters; got 1',
    );
    expect(() => adamW({ betas: [1, 0.9] })).toThrow('adamW: betas[0] must be in [0, 1); got 1');
    expect(() => adam({ weightDecay: -1 })).toThrow('adam: weightDecay must be in [0, Infinity); got -1');
    expect(() => sgd({ momentum: 1 })).toThrow('sgd: momentum must be in [0, 1); got 1');
  });
});

describe('accumulation', () => {
  it('gives the gradient of the whole batch from parts of unequal size', async () => {
    const x = f64(Array.from({ length: 12 }, (_, i) => Math.sin(i)));
    const loss = valueAndGrad(({ w }: { w: Tensor }, part: Tensor) =>
      mean(square(sub(mul(part, expand(w, part.shape)), 1))),
    );
    const parameters = { w: f64([0.7]) };
    const whole = loss(parameters, x).gradient;
    let total = { w: f64([0]) };
    for (const [from, count] of [
      [0, 3],
      [3, 4],
      [7, 5],
    ] as const) {
      total = accumulate(total, loss(parameters, narrow(x, 0, from, count)).gradient, count / 12);
    }
    expect((await read(total.w))[0]).toBeCloseTo((await read(whole.w))[0]!, 14);
    expect(() => accumulate({ a: f64([1]) }, { a: f64([1, 2]) }, 1)).toThrow(
      'accumulate: gradients do not fit "a"; expected [1]; got f64 [2]',
    );
  });
});

describe('clipping and averaging', () => {
  const gradients = { a: f64([3, 0]), b: [f64([-4])] };
  const all = async (tree: Tree): Promise<number[]> =>
    (await Promise.all(treeLeaves(tree).map(async (x) => [...(await read(x))]))).flat();

  it('scales all gradients to the norm, and says what it was', async () => {
    const { clipped, norm } = clipByGlobalNorm(gradients, 1);
    expect((await read(norm))[0]).toBe(5);
    const factor = 1 / (5 + 1e-6);
    const got = await all(clipped);
    for (const [i, g] of [3, 0, -4].entries()) expect(got[i]).toBeCloseTo(g * factor, 15);
  });

  it('leaves small gradients as they are', async () => {
    expect(await all(clipByGlobalNorm(gradients, 5.1).clipped)).toEqual([3, 0, -4]);
    expect((await read(globalNorm({})))[0]).toBe(0);
  });

  it('holds every element within the limit', async () => {
    expect(await all(clipByValue(gradients, 3.5))).toEqual([3, 0, -3.5]);
  });

  it('moves an average towards the parameters', async () => {
    const average = { a: f64([1, 1]), b: [f64([8])] };
    expect(await all(movingAverage(average, gradients, 0.75))).toEqual([1.5, 0.75, 5]);
    expect(await all(movingAverage(average, gradients, tensor(0.75)))).toEqual([1.5, 0.75, 5]);
  });
});

describe('schedules', () => {
  it('start and end where they say, and stay there', () => {
    for (const schedule of [linear(2, 10, 0.5), cosine(2, 10, 0.5), polynomial(2, 10, 3, 0.5)]) {
      expect([schedule(0), schedule(10), schedule(1000)]).toEqual([2, 0.5, 0.5]);
    }
    expect([constant(3)(0), constant(3)(99)]).toEqual([3, 3]);
  });

  it('are half way at the middle where the curve is symmetric', () => {
    expect(linear(2, 10, 0.5)(5)).toBe(1.25);
    expect(cosine(2, 10, 0.5)(5)).toBeCloseTo(1.25, 15);
    expect(polynomial(2, 10, 2)(5)).toBe(0.5);
  });

  it('warm up over the first steps to the schedule beneath', () => {
    const schedule = warmup(constant(4), 4);
    expect([0, 1, 2, 3, 4, 100].map(schedule)).toEqual([1, 2, 3, 4, 4, 4]);
    expect(warmup(constant(4), 0)(0)).toBe(4);
  });
});
