import { grad } from '@deftjs/autograd';
import { gradcheck } from '@deftjs/autograd/gradcheck';
import { Conv2d, initialize, Linear, setTraining } from '@deftjs/autograd/nn';
import {
  type AdaptedLayer,
  attach,
  cacheChanges,
  deft,
  deftPresets,
  full,
  type LowRankChange,
  lora,
  type Method,
  merge,
  type ProjectorName,
  type ProjectorScaling,
  parameterCount,
  projectorOf,
  projectors,
  svdiff,
  withDropout,
} from '@deftjs/deft';
import {
  add,
  conv2d,
  type Key,
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

const names = Object.keys(projectors) as ProjectorName[];

/** Every projector in every scaling that it has. */
const scaled = names.flatMap((projector) =>
  (Object.keys(projectors[projector]) as ProjectorScaling[]).map((scaling) => ({ projector, scaling })),
);

/** Every option of every method that changes what is computed. */
const options: [string, Method][] = [
  ...scaled.flatMap((projection): [string, Method][] => {
    const name = `${projection.projector}, ${projection.scaling}`;
    return [
      [`deft ${name}`, deft({ rank: 2, ...projection, start: 'random', alpha: 3 })],
      [`para ${name}`, deft({ rank: 2, ...projection, para: true })],
    ];
  }),
  ['deft qr, no alpha', deft({ rank: 2, projector: 'qr', start: 'random' })],
  ['deft relu, gate', deft({ rank: 2, projector: 'relu', start: 'random', gate: 0.5 })],
  ['lora', lora({ rank: 2 })],
  ['lora, alpha, rsLoRA', lora({ rank: 2, alpha: 3, rsLora: true, start: 'gaussian' })],
  ['svdiff', svdiff({ scale: 0.5 })],
  ['full', full()],
];

const identityOptions = options.flatMap(([name, method]): [string, Method][] => {
  if (method.name !== 'deft') return [[name, method]];
  const { para, projector, scaling } = method.options;
  if (para || !projectorOf(projector, scaling).restorable) return [];
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
    const expected = { lora: 2 * (m + n), svdiff: Math.min(m, n), full: m * n };
    if (method.name !== 'deft') {
      expect(count).toBe(expected[method.name]);
      return;
    }
    const { projector, scaling, para, gate } = method.options;
    const directions = projector === 'nmf' && scaling === 'faithful' ? 4 * m : 2 * m; // W and H instead of P
    expect(count).toBe(directions + (para ? 0 : 2 * n) + (gate === null ? 0 : 1));
  });

  // The layer enters through linearMapOf alone: one option of each shape of formula tells for convolutions.
  const differentiated = options.filter(
    ([option]) =>
      layerName === 'Linear' ||
      ['deft relu_both, faithful', 'para qr, faithful', 'lora, alpha, rsLoRA', 'svdiff', 'full'].includes(
        option,
      ),
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
      method
        .changes([{ ...adapter.fixed, ...Object.fromEntries(names.map((name, i) => [name, theta[i]!])) }])[0]!
        .apply(x, y0, map);
    await gradcheck(
      f,
      names.map((name) => adapter.parameters[name]!.value),
    );
  });
});

/** The weight's change by plain loops, from the projection's factors or the method's own. */
async function dense(layer: AdaptedLayer, { method, parameters, fixed }: LayerAdapter): Promise<Tensor> {
  const [m, n] = matrixShape(layer.weight.shape);
  const asMatrix = async (value: Tensor): Promise<number[][]> =>
    rowsOf(await read(value), value.size / value.shape[0]!);
  const W0 = rowsOf(await read(layer.weight.value), n);
  const times = (a: number[][], s: number): number[][] => a.map((row) => row.map((value) => s * value));
  const values = Object.fromEntries(Object.entries(parameters).map(([name, { value }]) => [name, value]));
  let delta: number[][];
  switch (method.name) {
    case 'lora': {
      const { rank, alpha, rsLora } = method.options;
      const [A, B] = [await asMatrix(values.lora_A!), await asMatrix(values.lora_B!)];
      delta = times(product(B, A), alpha / (rsLora ? Math.sqrt(rank) : rank));
      break;
    }
    case 'svdiff': {
      const [U, V] = [await asMatrix(fixed.U!), await asMatrix(fixed.V!)];
      const [s, d] = [[...(await read(fixed.S!))], [...(await read(values.svdiff_d!))]];
      const moved = s.map((x, i) => Math.max(0, x + method.options.scale * d[i]!) - x);
      delta = product(
        U.map((row) => row.map((x, i) => x * moved[i]!)),
        transposed(V),
      );
      break;
    }
    case 'full':
      delta = await asMatrix(values.full_D!);
      break;
    default: {
      const { rank, alpha, para, projector, scaling } = method.options;
      const projection = projectorOf(projector, scaling).project(values);
      const [Q, L] = [await asMatrix(projection.basis), await asMatrix(projection.left)];
      const K = projection.right ? product(L, transposed(await asMatrix(projection.right))) : L;
      delta = times(product(K, W0), -1); // K is built here, and only here
      if (!para) {
        const gate = values.deft_gate ? 1 / (1 + Math.exp(-(await read(values.deft_gate))[0]!)) : 1;
        const R = await asMatrix(values.deft_R!);
        delta = plus(delta, times(product(Q, R), (alpha === null ? 1 : alpha / rank) * gate));
      }
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

  // relu_outer is a function of P P^T by its definition.
  const thin = options.filter(([option]) => !option.includes('relu_outer'));
  it.each(thin)('%s: nothing in a training step is larger than the weight', async (_option, method) => {
    const layer = prepared(() => new Linear(n, m));
    const adapter = await adapt(layer, method);
    const x = randomNormal([4, 4], [b, n]);
    const theta = Object.fromEntries(
      Object.entries(adapter.parameters).map(([name, { value }]) => [name, value]),
    );
    const map = linearMapOf(layer);
    const step = grad((parameters: Record<string, Tensor>) => {
      const y0 = linear(x, layer.weight.value);
      return sum(
        mul(add(y0, method.changes([{ ...adapter.fixed, ...parameters }])[0]!.apply(x, y0, map)), 2),
      );
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
  const K = async (name: ProjectorName, scaling: ProjectorScaling = 'faithful'): Promise<number[][]> => {
    const { left, right } = projectorOf(name, scaling).project({ deft_P: P });
    return right ? product(await matrixOf(left), transposed(await matrixOf(right))) : matrixOf(left);
  };
  const positive = (a: number[][]): number[][] => a.map((row) => row.map((x) => Math.max(0, x)));

  it('follow their formulas', async () => {
    const p = await matrixOf(P);
    expect(await K('none')).toEqual(product(p, transposed(p)));
    expect(await K('relu')).toEqual(product(p, transposed(positive(p))));
    expect(await K('relu_both')).toEqual(product(positive(p), transposed(positive(p))));
    expect(await K('relu_outer')).toEqual(positive(product(p, transposed(p))));
  });

  it('are functions of one matrix: tsvd is lrmf, eigen is P P^T, and tsvd squared is P P^T', async () => {
    const raw = await K('none');
    const root = await K('tsvd');
    expect(largest(plus(await K('lrmf'), root, -1))).toBeLessThan(1e-14);
    expect(largest(plus(await K('eigen'), raw, -1))).toBeLessThan(1.1e-6); // the 1e-6 I of the official code
    expect(largest(plus(product(root, root), raw, -1))).toBeLessThan(1e-13);
  });

  it('of nmf is the product of its own factors without their negative entries', async () => {
    const H = transposed(await matrixOf(P));
    const { left, right } = projectorOf('nmf', 'faithful').project({ deft_W: P, deft_H: tensorOf(H) });
    const k = product(await matrixOf(left), transposed(await matrixOf(right!)));
    expect(k).toEqual(product(positive(await matrixOf(P)), positive(H)));
  });

  it.each([
    ...(['qr', 'polar', 'svd'] as const).map((name) => [name, 'faithful'] as const),
    ...(['tsvd', 'lrmf', 'eigen', 'nmf'] as const).map((name) => [name, 'projector'] as const),
  ])('of %s, %s, is the orthogonal projector on the columns of P', async (name, scaling) => {
    const k = await K(name, scaling);
    const p = await matrixOf(P);
    const spanned = name === 'nmf' ? positive(p) : p;
    expect(largest(plus(product(k, k), k, -1))).toBeLessThan(1e-13);
    expect(largest(plus(k, transposed(k), -1))).toBeLessThan(1e-13);
    expect(largest(plus(product(k, spanned), spanned, -1))).toBeLessThan(1e-13);
  });

  it.each(scaled)(
    'of $projector, $scaling, are those of each layer alone when layers come together',
    async (projection) => {
      const method = deft({ rank: 2, ...projection, start: 'random' });
      const thetas = [7, 5, 7].map((m, layer) =>
        Object.fromEntries(
          Object.entries(method.shapes([m, 4])).map(([name, shape], i) => [
            name,
            randomNormal([layer, i], shape),
          ]),
        ),
      );
      const together = method.changes(thetas) as LowRankChange[];
      for (const [i, theta] of thetas.entries()) {
        const [alone] = method.changes([theta]) as LowRankChange[];
        const W0 = randomNormal([9, i], [together[i]!.removed!.left.shape[0]!, 4]);
        const [a, b] = [await read(together[i]!.delta(W0), device), await read(alone!.delta(W0), device)];
        expect(relativeError(a, b)).toBeLessThan(1e-6);
        const sameTensor = ({ written, removed }: LowRankChange): boolean => written!.basis === removed!.left;
        expect(sameTensor(together[i]!)).toBe(sameTensor(alone!)); // one product instead of two
      }
    },
  );

  it('write in the directions of P where they are not orthonormal', async () => {
    for (const name of ['none', 'relu', 'relu_both'] as const)
      expect(projectorOf(name, 'faithful').project({ deft_P: P }).basis).toBe(P);
  });
});

describe('dropout', () => {
  const x = tensor(new Float32Array(40).fill(1), [4, 10]);
  const outputs = async (layer: AdaptedLayer, key: Key): Promise<number[]> => [
    ...(await read(
      withDropout(layer, key, () => layer.forward(x)),
      device,
    )),
  ];

  it('drops from what is written, by the key and in training alone', async () => {
    const layer = prepared(() => new Linear(10, 6, { bias: false }));
    const method = deft({ rank: 2, projector: 'qr', start: 'random', dropout: 0.5 });
    const adapter = await adapt(layer, method);
    perturb(adapter);
    expect(() => layer.forward(x)).toThrow('adapter: dropout 0.5 needs a key in training');
    const first = await outputs(layer, [1, 2]);
    expect(await outputs(layer, [1, 2])).toEqual(first);
    expect(await outputs(layer, [1, 3])).not.toEqual(first);
    // Equal rows of x with other entries dropped: rows differ, but only within the span that R writes in.
    const rows = rowsOf(first, 6);
    const difference = plus([rows[0]!], [rows[1]!], -1);
    const Q = await matrixOf((adapter.change as LowRankChange).written!.basis, device);
    expect(largest(difference)).toBeGreaterThan(1e-3);
    expect(largest(plus(product(product(difference, Q), transposed(Q)), difference, -1))).toBeLessThan(1e-5);
    setTraining(layer, false);
    const calm = rowsOf(await read(layer.forward(x), device), 6);
    expect(calm[0]).toEqual(calm[1]);
  });

  it('does not touch what PaRa removes', async () => {
    const layer = prepared(() => new Linear(10, 6));
    await adapt(layer, deft({ rank: 2, projector: 'qr', para: true, dropout: 0.5 }));
    expect(await outputs(layer, [1, 2])).toEqual(await outputs(layer, [3, 4]));
  });
});

describe('cacheChanges', () => {
  it('leaves no decomposition to evaluation, until a parameter changes', async () => {
    const layer = prepared(() => new Linear(5, 7));
    const adapter = await adapt(layer, deft({ rank: 2, projector: 'svd' }));
    perturb(adapter);
    const x = randomNormal([1, 2], [3, 5]);
    const size = (y: Tensor): number => {
      const nodes = new Set([y]);
      for (const { source } of nodes)
        if (source.kind === 'applied') for (const input of source.inputs) nodes.add(input);
      return nodes.size;
    };
    const before = layer.forward(x);
    const expected = [...(await read(layer.forward(x), device))];
    expect(size(before)).toBeGreaterThan(100);
    await cacheChanges(layer, device);
    expect(size(layer.forward(x))).toBeLessThan(25);
    expect([...(await read(layer.forward(x), device))]).toEqual(expected);
    adapter.parameters.deft_P!.value = randomNormal([9, 9], [7, 2]);
    expect(size(layer.forward(x))).toBeGreaterThan(100);
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
      scaling: 'faithful',
      gate: null,
      dropout: 0,
    });
    expect(lora({ rank: 6 }).options).toEqual({
      rank: 6,
      alpha: 6,
      start: 'kaiming',
      rsLora: false,
      dropout: 0,
    });
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
      'deft: relu_both removes what P R cannot give back; use start "random" or para',
    ],
    [
      () => deft({ scaling: 'projector' }),
      'deft: the projector none has no scaling "projector"; tsvd, lrmf, eigen and nmf have',
    ],
    [() => deft({ para: true, gate: 0 }), 'deft: PaRa writes nothing that a gate could scale'],
    [() => lora({ dropout: 1 }), 'lora: dropout must be in [0, 1); got 1'],
    [() => svdiff({ scale: 0 }), 'svdiff: scale must be a positive number; got 0'],
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
