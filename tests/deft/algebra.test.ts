import { qrOnHost, svdOnHost } from '@deftjs/autograd/linalg';
import { initialize, Linear, Module } from '@deftjs/autograd/nn';
import {
  attach,
  attachedAdapters,
  combineAdapters,
  compressAdapters,
  conceptAngles,
  deft,
  full,
  layerGeometry,
  lora,
  type MergeKind,
  type Method,
  methods,
  principalAngles,
  setAdapterStrength,
  splitAdapters,
  svdiff,
  toDeft,
  toLora,
} from '@deftjs/deft';
import { randomNormal, read, referenceDevice, setDevice, type Tensor, tensor } from '@deftjs/tensor';
import fc from 'fast-check';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { matrices, matrixOf, plus, product, rowsOf, transposed } from './matrices.ts';
import { relativeError } from './toy.ts';

const device = referenceDevice();
beforeAll(() => setDevice(device));

class Two extends Module {
  readonly a = new Linear(7, 9, { bias: false });
  readonly b = new Linear(9, 6);

  forward(x: Tensor): Tensor {
    return this.b.forward(this.a.forward(x));
  }
}

const x = randomNormal([8, 8], [5, 7]);
let model: Two;
beforeEach(() => {
  model = new Two();
  initialize(model, 2);
});

const output = async (): Promise<number[]> => [...(await read(model.forward(x), device))];

/** Attaches the method under the name and moves its parameters from where they start. */
async function trained(method: Method, name = 'default', targets: string[] = ['a', 'b']): Promise<void> {
  await attach(model, { method, targetModules: targets, adapterName: name, seed: name.length });
  attachedAdapters(model, name).forEach(({ adapter }, i) => {
    Object.values(adapter.parameters).forEach((parameter, j) => {
      parameter.value = randomNormal([name.charCodeAt(0) + i, j], parameter.shape);
    });
  });
}

/** The weight's change on a layer, all adapters together. */
async function deltaOf(path: string): Promise<number[][]> {
  const deltas = await Promise.all(
    attachedAdapters(model)
      .filter((attached) => attached.path === path)
      .map(async ({ adapter, layer }) =>
        rowsOf(await read(adapter.deltaWeight(layer), device), layer.weight.shape[1]!),
      ),
  );
  return deltas.reduce((sum, delta) => plus(sum, delta));
}

const norm = (a: number[][]): number => Math.hypot(...a.flat());

describe('conversion', () => {
  it.each<[string, Method]>([
    ['qr', deft({ rank: 2, projector: 'qr', start: 'random', alpha: 3 })],
    ['none', deft({ rank: 2, start: 'random' })],
    ['relu', deft({ rank: 2, projector: 'relu', start: 'random' })],
    ['relu_both', deft({ rank: 2, projector: 'relu_both', start: 'random' })],
    ['tsvd', deft({ rank: 2, projector: 'tsvd', start: 'random' })],
    ['para', methods.para({ rank: 2 })],
    ['lora', lora({ rank: 2, alpha: 5 })],
    ['svdiff, of full rank', svdiff()],
  ])('%s to LoRA, to DEFT and back keeps the outputs', async (name, method) => {
    await trained(method);
    setAdapterStrength(model, 0.5);
    const before = await output();
    const rows = await toLora(model);
    if (name === 'qr' || name === 'para') expect(rows.map(({ rank }) => rank)).toEqual([2, 2]);
    expect(attachedAdapters(model).every(({ adapter }) => adapter.method.name === 'lora')).toBe(true);
    expect(relativeError(await output(), before)).toBeLessThan(1e-5); // float32 factors
    await toDeft(model);
    expect(attachedAdapters(model).every(({ adapter }) => adapter.method.name === 'deft')).toBe(true);
    expect(relativeError(await output(), before)).toBeLessThan(1e-5);
    await toLora(model);
    expect(relativeError(await output(), before)).toBeLessThan(1e-5);
  });

  it('of whole weights is refused, and the model stays as it is', async () => {
    await trained(full());
    const before = await output();
    expect(() => toLora(model)).toThrow('a whole weight is trained');
    expect(await output()).toEqual(before);
  });
});

describe('splitAdapters', () => {
  class Fused extends Module {
    readonly qkv_proj = new Linear(7, 12, { bias: false });
    readonly o_proj = new Linear(4, 7);
  }
  class Split extends Module {
    readonly to_q = new Linear(7, 6, { bias: false });
    readonly to_k = new Linear(7, 4, { bias: false });
    readonly to_v = new Linear(7, 2, { bias: false });
    readonly to_out = [new Linear(4, 7)];
  }
  const partsOf = (path: string): string[] =>
    path === 'qkv_proj' ? ['to_q', 'to_k', 'to_v'] : path === 'o_proj' ? ['to_out.0'] : [path];

  const both = async (method: Method): Promise<{ fused: Fused; split: Split }> => {
    const [fused, split] = [new Fused(), new Split()];
    initialize(fused, 1);
    const rows = await matrixOf(fused.qkv_proj.weight.value, device);
    [split.to_q, split.to_k, split.to_v].forEach((layer, i) => {
      layer.weight.value = tensor(rows.slice([0, 6, 10][i]!, [6, 10, 12][i]!));
    });
    split.to_out[0]!.weight.value = fused.o_proj.weight.value;
    split.to_out[0]!.bias!.value = fused.o_proj.bias!.value;
    await attach(fused, { method, targetModules: 'all-linear', seed: 1 });
    attachedAdapters(fused).forEach(({ adapter }, i) => {
      Object.values(adapter.parameters).forEach((parameter, j) => {
        parameter.value = randomNormal([40 + i, j], parameter.shape);
      });
    });
    setAdapterStrength(fused, 0.7);
    return { fused, split };
  };
  const values = async (y: Tensor): Promise<number[][]> => rowsOf(await read(y, device), y.shape[1]!);

  it.each<[string, Method]>([
    ['deft qr', deft({ rank: 2, projector: 'qr', start: 'random', alpha: 3 })],
    ['deft relu', deft({ rank: 2, projector: 'relu', start: 'random' })],
    ['para', methods.para({ rank: 2 })],
    ['lora', lora({ rank: 2, alpha: 5 })],
  ])('%s: three layers of the same rank compute what the fused one does', async (_name, method) => {
    const { fused, split } = await both(method);
    const adapted = await splitAdapters(fused, split, { partsOf });
    expect(adapted.map(({ path, rank }) => [path, rank])).toEqual(
      ['to_q', 'to_k', 'to_v', 'to_out.0'].map((path) => [path, 2]),
    );
    const whole = await values(fused.qkv_proj.forward(x));
    const parts = await Promise.all(
      [split.to_q, split.to_k, split.to_v].map((layer) => values(layer.forward(x))),
    );
    const joined = whole.map((_, i) => parts.flatMap((part) => part[i]!));
    expect(relativeError(joined.flat(), whole.flat())).toBeLessThan(1e-5);
    const h = randomNormal([5, 5], [3, 4]);
    expect(
      relativeError(
        (await values(split.to_out[0]!.forward(h))).flat(),
        (await values(fused.o_proj.forward(h))).flat(),
      ),
    ).toBeLessThan(1e-5);
  });

  it('is refused, with nothing attached, where parts are missing or do not add up', async () => {
    const { fused, split } = await both(lora({ rank: 2 }));
    expect(() => splitAdapters(fused, split, { partsOf: (path) => [path] })).toThrow(
      'splitAdapters: there is no layer "qkv_proj" for a part of qkv_proj',
    );
    expect(() =>
      splitAdapters(fused, split, {
        partsOf: (path) => (path === 'qkv_proj' ? ['to_q', 'to_k'] : partsOf(path)),
      }),
    ).toThrow('splitAdapters: the parts of qkv_proj must add up to [12, 7]; got [6, 7] and [4, 7]');
    expect(attachedAdapters(split)).toEqual([]);
  });
});

describe('compressAdapters', () => {
  it.each<[string, Method]>([
    ['deft', deft({ rank: 3, projector: 'relu_both', start: 'random' })],
    ['full', full()],
  ])('of %s leaves the best approximation of the rank', async (_name, method) => {
    await trained(method);
    const before = await deltaOf('a');
    const values = [...(await read((await svdOnHost(tensor(before, undefined, 'f64'))).S))];
    await compressAdapters(model, 2);
    const error = norm(plus(await deltaOf('a'), before, -1));
    expect(error / Math.hypot(...values.slice(2))).toBeCloseTo(1, 4); // Eckart and Young
    expect(attachedAdapters(model).map(({ adapter }) => adapter.method.rank)).toEqual([2, 2]);
  });
});

describe('combineAdapters', () => {
  const qr = deft({ rank: 2, projector: 'qr', start: 'random' });
  const combine = (kind: MergeKind, first = 1, second = 1) =>
    combineAdapters(model, { kind, weights: { one: first, second }, adapterName: 'one' });

  /** W0, and of both concepts Q and the delta, of layer a. */
  async function pieces() {
    const W0 = await matrixOf(model.a.weight.value, device);
    const bases = await Promise.all(
      ['one', 'second'].map(async (name) => {
        const { adapter } = attachedAdapters(model, name)[0]!;
        return matrixOf((await qrOnHost(adapter.parameters.deft_P!.value, device)).Q);
      }),
    );
    const deltas = await Promise.all(
      ['one', 'second'].map(async (name) => {
        const { adapter, layer } = attachedAdapters(model, name)[0]!;
        return rowsOf(await read(adapter.deltaWeight(layer), device), 7);
      }),
    );
    return { W0, bases, deltas };
  }

  beforeEach(async () => {
    await trained(qr, 'one');
    await trained(qr, 'second');
  });

  it.each<MergeKind>(['sum', 'basis'])('%s is what both do when active at once', async (kind) => {
    const before = await output();
    await combine(kind);
    expect(attachedAdapters(model).map(({ path }) => path)).toEqual(['a', 'b']);
    expect(relativeError(await output(), before)).toBeLessThan(1e-5);
  });

  it('weights each', async () => {
    const { deltas } = await pieces();
    await combine('sum', 0.5, -2);
    const expected = plus(
      deltas[0]!.map((row) => row.map((v) => 0.5 * v)),
      deltas[1]!,
      -2,
    );
    expect(norm(plus(await deltaOf('a'), expected, -1)) / norm(expected)).toBeLessThan(1e-5);
  });

  it('sequential is the second on the weight that the first left', async () => {
    const { W0, bases, deltas } = await pieces();
    const W1 = plus(W0, deltas[0]!);
    const written = plus(deltas[1]!, product(product(bases[1]!, transposed(bases[1]!)), W0)); // Q R of the second
    const W2 = plus(plus(W1, product(product(bases[1]!, transposed(bases[1]!)), W1), -1), written);
    await combine('sequential');
    expect(norm(plus(plus(W0, await deltaOf('a')), W2, -1)) / norm(W2)).toBeLessThan(1e-5);
  });

  it('concat removes what either removes once', async () => {
    const { W0, bases, deltas } = await pieces();
    const joint = bases[0]!.map((row, i) => [...row, ...bases[1]![i]!]);
    const Q = await matrixOf((await qrOnHost(tensor(joint, undefined, 'f64'))).Q);
    const written = deltas.map((delta, i) =>
      plus(delta, product(product(bases[i]!, transposed(bases[i]!)), W0)),
    );
    const expected = plus(plus(written[0]!, written[1]!), product(product(Q, transposed(Q)), W0), -1);
    await combine('concat');
    expect(norm(plus(await deltaOf('a'), expected, -1)) / norm(expected)).toBeLessThan(1e-5);
  });

  it('leastSquares meets both in their own directions, where independent directions allow it', async () => {
    const { bases, deltas } = await pieces();
    await combine('leastSquares');
    const merged = await deltaOf('a');
    for (const [i, Q] of bases.entries()) {
      const own = product(transposed(Q), deltas[i]!);
      expect(norm(plus(product(transposed(Q), merged), own, -1)) / norm(own)).toBeLessThan(1e-4);
    }
  });

  it('says what concat needs, and names what is missing', async () => {
    await trained(lora({ rank: 1 }), 'third');
    await expect(
      combineAdapters(model, { kind: 'concat', weights: { one: 1, third: 1 }, adapterName: 'one' }),
    ).rejects.toThrow('concat joins what is removed; the adapter on a removes nothing');
    await expect(
      combineAdapters(model, { kind: 'sum', weights: { one: 1, fourth: 1 }, adapterName: 'one' }),
    ).rejects.toThrow('no adapter is named "fourth"; there are: one, second, third');
    expect(attachedAdapters(model)).toHaveLength(6);
  });
});

describe('principalAngles', () => {
  it('are zero between a span and itself in another basis, and do not depend on the order', async () => {
    await fc.assert(
      fc.asyncProperty(matrices(6, 2), matrices(6, 3), async (A, B) => {
        const one = tensor(
          plus(A, [
            [3, 0],
            [0, 3],
            [0, 0],
            [0, 0],
            [0, 0],
            [0, 0],
          ]),
          undefined,
          'f64',
        );
        const two = tensor(
          B.map((row, i) => row.map((v, j) => v / 4 + (i === j + 2 ? 3 : 0))),
          undefined,
          'f64',
        );
        const [ab, ba] = [await principalAngles(one, two), await principalAngles(two, one)];
        expect(Math.max(...ab.map((angle, i) => Math.abs(angle - ba[i]!)))).toBeLessThan(1e-12);
        const mixed = product(await matrixOf(one), [
          [1, 2],
          [0, 1],
        ]);
        expect(Math.max(...(await principalAngles(one, tensor(mixed, undefined, 'f64'))))).toBeLessThan(
          1e-12,
        );
      }),
      { numRuns: 20 },
    );
  });

  it('are what was built in', async () => {
    const at = (angle: number): Tensor =>
      tensor([[Math.cos(angle)], [Math.sin(angle)], [0]], undefined, 'f64');
    for (const angle of [1e-9, 0.3, Math.PI / 2]) {
      expect((await principalAngles(at(0), at(angle)))[0]).toBeCloseTo(angle, 13);
    }
  });
});

describe('layerGeometry and conceptAngles', () => {
  it('give SVDiff the whole share, and LoRA the share of its dense delta', async () => {
    await trained(svdiff(), 'shifts');
    expect((await layerGeometry(model, 'shifts'))[0]!.singularValueShare).toBeCloseTo(1, 6);
    await trained(lora({ rank: 2 }), 'thin', ['a']);
    const [{ singularValueShare, anglesToWeight }] = (await layerGeometry(model, 'thin')) as [never] as [
      { singularValueShare: number; anglesToWeight: number[] },
    ];
    const { U, V } = await svdOnHost(model.a.weight.value, device);
    const { adapter, layer } = attachedAdapters(model, 'thin')[0]!;
    const delta = rowsOf(await read(adapter.deltaWeight(layer), device), 7);
    const core = product(product(transposed(await matrixOf(U)), delta), await matrixOf(V));
    expect(singularValueShare).toBeCloseTo(
      core.reduce((sum, row, i) => sum + row[i]! ** 2, 0) / norm(delta) ** 2,
      5,
    );
    expect(anglesToWeight).toHaveLength(2);
    expect(anglesToWeight.every((angle) => angle > 0 && angle < Math.PI / 2)).toBe(true);
  });

  it('find an adapter at angle zero to itself', async () => {
    await trained(deft({ rank: 2, projector: 'qr' }), 'one', ['a']);
    const one = { module: model, adapterName: 'one' };
    const [row] = await conceptAngles(one, one);
    expect(row!.path).toBe('a');
    expect(Math.max(...row!.angles)).toBeLessThan(1e-6);
    await trained(deft({ rank: 2, projector: 'qr' }), 'two', ['b']);
    expect(await conceptAngles(one, { module: model, adapterName: 'two' })).toEqual([]); // no layer has both
    await expect(conceptAngles(one, { module: new Linear(3, 3) })).rejects.toThrow('"default"');
  });
});
