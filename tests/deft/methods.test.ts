import { grad } from '@deftjs/autograd';
import { gradcheck } from '@deftjs/autograd/gradcheck';
import { Conv2d, initialize, Linear } from '@deftjs/autograd/nn';
import {
  type AdaptedLayer,
  attach,
  deft,
  deftPresets,
  lora,
  type Method,
  merge,
  type ProjectorName,
  parameterCount,
  projections,
} from '@deftjs/deft';
import {
  add,
  conv2d,
  linear,
  mul,
  numel,
  randomNormal,
  read,
  referenceDevice,
  setDevice,
  sum,
  type Tensor,
  tensor,
} from '@deftjs/tensor';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { LayerAdapter } from '../../packages/deft/src/adapter.ts';
import { linearMapOf, matrixShape } from '../../packages/deft/src/linearMap.ts';
import { largest, matrixOf, plus, product, rowsOf, tensorOf, transposed } from './matrices.ts';
import { relativeError } from './toy.ts';

const device = referenceDevice();
beforeAll(() => setDevice(device));

const projectors = Object.keys(projections) as ProjectorName[];

/** Every option of every method that changes what is computed. */
const options: [string, Method][] = [
  ...projectors.flatMap((projector): [string, Method][] => [
    [`deft ${projector}`, deft({ rank: 2, projector, start: 'random' })],
    [`deft ${projector}, alpha`, deft({ rank: 2, projector, start: 'random', alpha: 3 })],
    [`para ${projector}`, deft({ rank: 2, projector, para: true })],
  ]),
  ['lora', lora({ rank: 2 })],
  ['lora, alpha, rsLoRA', lora({ rank: 2, alpha: 3, rsLora: true, start: 'gaussian' })],
];

const identityOptions = options.flatMap(([name, method]): [string, Method][] => {
  if (method.name === 'lora') return [[name, method]];
  const { para, projector } = method.options;
  if (para || projector === 'relu_both') return [];
  return [[name, deft({ ...method.options, start: 'identity' })]];
});

/** Layers of several geometries, with weights, and an input for each. */
const layers: [string, () => AdaptedLayer, readonly number[]][] = [
  ['Linear', () => new Linear(5, 7), [2, 3, 5]],
  ['Linear to fewer', () => new Linear(9, 4, { bias: false }), [3, 9]],
  ['Conv2d 3 x 3', () => new Conv2d(2, 4, 3, { padding: 1 }), [2, 2, 3, 4]],
  [
    'Conv2d with stride and dilation',
    () => new Conv2d(2, 5, 2, { stride: 2, dilation: 2, bias: false }),
    [1, 2, 7, 6],
  ],
];

function prepared(make: () => AdaptedLayer): AdaptedLayer {
  const layer = make();
  initialize(layer, 5);
  return layer;
}

/** Theta with every tensor filled with normal numbers: no zeros hide a term. */
function perturb(adapter: LayerAdapter): void {
  Object.values(adapter.parameters).forEach((parameter, i) => {
    parameter.value = randomNormal([17, i], parameter.shape);
  });
}

async function adapt(layer: AdaptedLayer, method: Method): Promise<LayerAdapter> {
  await attach(layer, { method, targetModules: '', seed: 3 });
  return layer.adapters.default as LayerAdapter;
}

describe.each(layers)('%s', (layerName, make, inputShape) => {
  const x = randomNormal([1, 2], inputShape);
  const output = (layer: AdaptedLayer): Promise<Iterable<number> & ArrayLike<number>> =>
    read(layer.forward(x), device);

  it.each(options)('%s: adapted on activations, dense and merged are one model', async (_option, method) => {
    const layer = prepared(make);
    const adapter = await adapt(layer, method);
    perturb(adapter);
    const adapted = await output(layer);

    const plain = prepared(make);
    plain.weight.value = add(plain.weight.value, await dense(layer, adapter));
    expect(relativeError(adapted, await output(plain))).toBeLessThan(1e-6); // outputs are read as float32

    const base = await read(layer.weight.value);
    const merged = await merge(layer);
    expect(Object.keys(layer.adapters)).toEqual([]);
    expect(relativeError(await output(layer), adapted)).toBeLessThan(1e-6);
    merged.unmerge();
    expect([...(await read(layer.weight.value))]).toEqual([...base]);
    expect([...(await output(layer))]).toEqual([...adapted]);
  });

  it.each(identityOptions)('%s: starts as the base model', async (_option, method) => {
    const layer = prepared(make);
    const base = await output(layer);
    await adapt(layer, method);
    expect(method.identityAtInit).toBe(true);
    expect(relativeError(await output(layer), base)).toBeLessThan(1e-6); // R0 is rounded to float32
  });

  it.each(options.filter(([, { identityAtInit }]) => !identityAtInit))(
    '%s: does not start as the base model',
    async (_option, method) => {
      const layer = prepared(make);
      const base = await output(layer);
      await adapt(layer, method);
      expect(relativeError(await output(layer), base)).toBeGreaterThan(1e-6);
    },
  );

  it.each(options)('%s: trains as many numbers as it says', async (_option, method) => {
    const layer = prepared(make);
    const [m, n] = matrixShape(layer.weight.shape);
    const { parameters } = await adapt(layer, method);
    const count = Object.values(parameters).reduce((total, { shape }) => total + numel(shape), 0);
    expect(count).toBe(parameterCount(method, layer.weight.shape));
    expect(count).toBe(method.name === 'deft' && method.options.para ? 2 * m : 2 * (m + n));
  });

  // The layer enters through linearMapOf alone: one option of each shape of formula tells for convolutions.
  const differentiated = options.filter(
    ([option]) =>
      layerName === 'Linear' || ['deft relu_both', 'para qr', 'lora, alpha, rsLoRA'].includes(option),
  );
  it.each(differentiated)('%s: has the gradients of its definition', async (_option, method) => {
    const layer = prepared(make);
    const adapter = await adapt(layer, method);
    perturb(adapter);
    const names = Object.keys(adapter.parameters);
    const map = linearMapOf(layer);
    const y0 =
      layer instanceof Linear
        ? linear(x, layer.weight.value)
        : conv2d(x, layer.weight.value, null, layer.options);
    const f = (...theta: Tensor[]): Tensor =>
      method.changes([Object.fromEntries(names.map((name, i) => [name, theta[i]!]))])[0]!.apply(x, y0, map);
    await gradcheck(
      f,
      names.map((name) => adapter.parameters[name]!.value),
    );
  });
});

/** s Q R - L T^T W0 or s B A by plain loops, from the projection's factors. */
async function dense(layer: AdaptedLayer, { method, parameters }: LayerAdapter): Promise<Tensor> {
  const [m, n] = matrixShape(layer.weight.shape);
  const asMatrix = async (value: Tensor): Promise<number[][]> =>
    rowsOf(await read(value), value.size / value.shape[0]!);
  const W0 = rowsOf(await read(layer.weight.value), n);
  const scaled = (a: number[][], s: number): number[][] => a.map((row) => row.map((value) => s * value));
  let delta: number[][];
  if (method.name === 'lora') {
    const { rank, alpha, rsLora } = method.options;
    const [A, B] = [await asMatrix(parameters.lora_A!.value), await asMatrix(parameters.lora_B!.value)];
    delta = scaled(product(B, A), alpha / (rsLora ? Math.sqrt(rank) : rank));
  } else {
    const { rank, alpha, para, projector } = method.options;
    const projection = projections[projector](parameters.deft_P!.value);
    const [Q, L, T] = [
      await asMatrix(projection.basis),
      await asMatrix(projection.left),
      await asMatrix(projection.right),
    ];
    const removed = product(product(L, transposed(T)), W0); // K is built here, and only here
    delta = scaled(removed, -1);
    if (!para) {
      const R = await asMatrix(parameters.deft_R!.value);
      delta = plus(delta, scaled(product(Q, R), alpha === null ? 1 : alpha / rank));
    }
  }
  expect(delta.length).toBe(m);
  return tensor(Float32Array.from(delta.flat()), layer.weight.shape);
}

describe('cost', () => {
  /** The nodes that a result is computed from. */
  function graphOf(...results: Tensor[]): Tensor[] {
    const nodes = new Set(results);
    for (const { source } of nodes)
      if (source.kind === 'applied') for (const input of source.inputs) nodes.add(input);
    return [...nodes];
  }

  const [b, m, n, r] = [2, 41, 3, 2];

  it.each(options)('%s: nothing in a training step is larger than the weight', async (_option, method) => {
    const layer = prepared(() => new Linear(n, m));
    const adapter = await adapt(layer, method);
    const x = randomNormal([4, 4], [b, n]);
    const theta = Object.fromEntries(
      Object.entries(adapter.parameters).map(([name, { value }]) => [name, value]),
    );
    const map = linearMapOf(layer);
    const step = grad((parameters: Record<string, Tensor>) => {
      const y0 = linear(x, layer.weight.value);
      return sum(mul(add(y0, method.changes([parameters])[0]!.apply(x, y0, map)), 2));
    })(theta);
    const nodes = graphOf(...Object.values(step));
    expect(Math.max(...nodes.map(({ size }) => size))).toBeLessThanOrEqual(m * n); // m m is 1681, m n is 123
    expect(nodes.length).toBeGreaterThan(5);
  });

  it('DEFT multiplies b r (n + 2 m) times beside the base, LoRA b r (n + m)', async () => {
    const x = randomNormal([4, 4], [b, n]);
    const products = async (method: Method): Promise<number> => {
      const layer = prepared(() => new Linear(n, m));
      await adapt(layer, method);
      return graphOf(layer.forward(x)).reduce(
        (count, { source, shape }) => {
          if (source.kind !== 'applied' || source.op.name !== 'matmul') return count;
          return count + numel(shape) * source.inputs[0]!.shape.at(-1)!;
        },
        -b * m * n,
      );
    };
    expect(await products(deft({ rank: r }))).toBe(b * r * (n + 2 * m));
    expect(await products(lora({ rank: r }))).toBe(b * r * (n + m));
  });
});

describe('projections', () => {
  const P = tensorOf([
    [0.5, -1],
    [-2, 0.25],
    [1, 1.5],
    [-0.75, -0.5],
  ]);
  const K = async (name: ProjectorName): Promise<number[][]> => {
    const { left, right } = projections[name](P);
    return product(await matrixOf(left), transposed(await matrixOf(right)));
  };
  const positive = (a: number[][]): number[][] => a.map((row) => row.map((x) => Math.max(0, x)));

  it('follow their formulas', async () => {
    const p = await matrixOf(P);
    expect(await K('none')).toEqual(product(p, transposed(p)));
    expect(await K('relu')).toEqual(product(p, transposed(positive(p))));
    expect(await K('relu_both')).toEqual(product(positive(p), transposed(positive(p))));
  });

  it('of qr and polar are the orthogonal projector on the columns of P', async () => {
    for (const name of ['qr', 'polar'] as const) {
      const k = await K(name);
      expect(largest(plus(product(k, k), k, -1))).toBeLessThan(1e-13);
      expect(largest(plus(k, transposed(k), -1))).toBeLessThan(1e-13);
      expect(largest(plus(product(k, await matrixOf(P)), await matrixOf(P), -1))).toBeLessThan(1e-13);
    }
  });

  it('write in the directions of P where they are not orthonormal', async () => {
    for (const name of ['none', 'relu', 'relu_both'] as const) expect(projections[name](P).basis).toBe(P);
  });
});

describe('options', () => {
  it('come out as documented', () => {
    expect(deft().options).toEqual({
      rank: 4,
      projector: 'none',
      para: false,
      alpha: null,
      start: 'identity',
      initScale: 1,
    });
    expect(lora({ rank: 6 }).options).toEqual({ rank: 6, alpha: 6, start: 'kaiming', rsLora: false });
    expect(deft(deftPresets.paper.options).identityAtInit).toBe(false);
    expect(deft(deftPresets.recommended.options).options.projector).toBe('qr');
  });

  it.each([
    [() => deft({ rank: 0 }), 'deft: rank must be a whole number >= 1; got 0'],
    [() => lora({ rank: 1.5 }), 'lora: rank must be a whole number >= 1; got 1.5'],
    [() => deft({ alpha: 0 }), 'deft: alpha must be a positive number or null; got 0'],
    [() => lora({ alpha: Number.NaN }), 'lora: alpha must be a positive number or null; got NaN'],
    [
      () => deft({ projector: 'relu_both' }),
      'deft: relu_both removes relu(P) relu(P)^T W0, which P R cannot give back; use start "random" or para',
    ],
  ])('are refused by name (%#)', (make, message) => {
    expect(make).toThrow(new RangeError(message));
  });

  it('of LoRA start give A its distribution: uniform in 1/sqrt(n), or normal of deviation 1/r', async () => {
    const W0 = tensor(new Float32Array(64 * 256), [64, 256]);
    const A = async (start: 'kaiming' | 'gaussian'): Promise<Float64Array> =>
      Float64Array.from(await read(lora({ rank: 8, start }).init([{ W0, key: [1, 2] }])[0]!.lora_A!));
    const kaiming = await A('kaiming');
    expect(kaiming.every((a) => Math.abs(a) <= 1 / 16)).toBe(true);
    const deviation = (a: Float64Array): number =>
      Math.sqrt(a.reduce((total, v) => total + v * v, 0) / a.length);
    // 2048 numbers: the deviation is within a few percent of its own with overwhelming probability.
    expect(deviation(kaiming) / (1 / 16 / Math.sqrt(3))).toBeCloseTo(1, 1);
    expect(deviation(await A('gaussian')) / (1 / 8)).toBeCloseTo(1, 1);
  });

  it('of DEFT scale R at the start so that alpha does not matter there', async () => {
    await fc.assert(
      fc.asyncProperty(fc.double({ min: 0.25, max: 64, noNaN: true }), async (alpha) => {
        const W0 = randomNormal([9, 9], [6, 5]);
        const R = async (a: number | null): Promise<number[][]> =>
          matrixOf(deft({ rank: 2, projector: 'qr', alpha: a }).init([{ W0, key: [3, 4] }])[0]!.deft_R!);
        const [scaled, plain] = [await R(alpha), await R(null)];
        const s = alpha / 2;
        expect(
          largest(
            plus(
              scaled.map((row) => row.map((v) => v * s)),
              plain,
              -1,
            ),
          ),
        ).toBeLessThan(1e-5);
      }),
      { numRuns: 10 },
    );
  });
});
