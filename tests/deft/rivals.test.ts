import { grad } from '@deftjs/autograd';
import { gradcheck } from '@deftjs/autograd/gradcheck';
import { svdOnHost } from '@deftjs/autograd/linalg';
import {
  Conv2d,
  Embedding,
  initialize,
  LayerNorm,
  Linear,
  Module,
  namedParameters,
  trainableState,
  withState,
} from '@deftjs/autograd/nn';
import { adamW } from '@deftjs/autograd/optim';
import {
  addWords,
  attach,
  attachedAdapters,
  crossAttentionKeysAndValues,
  deft,
  full,
  type LayerAdapter,
  lora,
  merge,
  mergeConcepts,
  methods,
  setBlockStrengths,
  styleOnly,
  svdiff,
  vectorShifts,
} from '@deftjs/deft';
import {
  evaluate,
  gather,
  matmul,
  randomNormal,
  read,
  referenceDevice,
  reshape,
  setDevice,
  square,
  sub,
  sum,
  type Tensor,
  tensor,
  transpose,
} from '@deftjs/tensor';
import { beforeAll, describe, expect, it } from 'vitest';
import { matrixShape } from '../../packages/deft/src/linearMap.ts';
import { pathPattern } from '../../packages/deft/src/pathPattern.ts';
import { relativeError } from './toy.ts';

const device = referenceDevice();
beforeAll(() => setDevice(device));

function layerOf<L extends Module>(layer: L): L {
  initialize(layer, 5);
  return layer;
}

const singularValues = async (W: Tensor): Promise<number[]> => [
  ...(await read((await svdOnHost(W, device)).S)),
];

describe('methods that start as the base', () => {
  const x = randomNormal([1, 2], [3, 6]);
  it.each([
    ['lora', lora({ rank: 2 })],
    ['svdiff', svdiff()],
    ['full', full()],
  ])('%s: the output is that of the base, bit by bit', async (_name, method) => {
    const layer = layerOf(new Linear(6, 5));
    const base = [...(await read(layer.forward(x), device))];
    await attach(layer, { method, targetModules: '', seed: 0 });
    expect([...(await read(layer.forward(x), device))]).toEqual(base);
  });
});

describe('PaRa', () => {
  it('removes exactly r from the rank of a weight of full row rank, with half of the parameters of LoRA', async () => {
    const layer = layerOf(new Linear(7, 7, { bias: false }));
    const [row] = await attach(layer, { method: methods.para({ rank: 3 }), targetModules: '', seed: 0 });
    expect(row!.parameters).toBe(3 * 7);
    await merge(layer, device);
    const values = await singularValues(layer.weight.value);
    expect(values.filter((s) => s > 1e-6)).toHaveLength(4);
  });
});

describe('SVDiff', () => {
  it.each([
    ['a linear layer', () => new Linear(6, 4), 4],
    ['a convolution', () => new Conv2d(2, 5, 3), 5],
  ])('moves the singular values of %s by d, never below 0', async (_name, make, count) => {
    const layer = layerOf(make());
    const before = await singularValues(matrixOf(layer.weight.value));
    await attach(layer, { method: svdiff(), targetModules: '', seed: 0 });
    const adapter = layer.adapters.default as LayerAdapter;
    const d = before.map((s, i) => (i === count - 1 ? -2 * s : 0.1 * (count - i)));
    adapter.parameters.svdiff_d!.value = tensor(Float32Array.from(d));
    await merge(layer, device);
    const after = await singularValues(matrixOf(layer.weight.value));
    const expected = before.map((s, i) => Math.max(0, s + d[i]!));
    expect(Math.max(...after.map((s, i) => Math.abs(s - expected[i]!)))).toBeLessThan(2e-6);
  });
});

describe('SVDiff of weights with one axis', () => {
  class Normed extends Module {
    readonly norm = new LayerNorm(5);
    readonly head = new Linear(5, 3);

    forward(x: Tensor): Tensor {
      return this.head.forward(this.norm.forward(x));
    }
  }

  const prepared = (): Normed => {
    const model = layerOf(new Normed());
    model.norm.weight!.value = randomNormal([6, 1], [5]);
    return model;
  };
  const x = randomNormal([1, 2], [4, 5]);
  const lengthOf = async (w: Tensor): Promise<number> => Math.hypot(...(await read(w, device)));

  it('starts as the base, keeps directions and moves lengths by c d, never below 0', async () => {
    const model = prepared();
    const base = [...(await read(model.forward(x), device))];
    const { initial, weights } = await vectorShifts(model, /./, { scale: 0.5 });
    expect(Object.keys(initial)).toEqual(['norm.weight', 'norm.bias', 'head.bias']);
    const same = withState(model, weights(initial), () => model.forward(x));
    expect(relativeError(await read(same, device), base)).toBeLessThan(1e-6);
    const before = model.norm.weight!.value;
    const length = await lengthOf(before);
    for (const d of [0.8, -0.5, -2 * length - 1]) {
      const moved = weights({ 'norm.weight': tensor(d) })['norm.weight']!;
      expect(await lengthOf(moved)).toBeCloseTo(Math.max(0, length + 0.5 * d), 5);
      const expected = [...(await read(before))].map((w) => (w * Math.max(0, length + 0.5 * d)) / length);
      const got = await read(moved, device);
      expect(Math.max(...expected.map((w, i) => Math.abs(w - got[i]!)))).toBeLessThan(1e-6);
    }
    expect(await lengthOf(weights({ 'norm.bias': tensor(3) })['norm.bias']!)).toBeCloseTo(1.5, 6); // of a zero bias
  });

  it('trains beside the shifts of matrices: one gradient for each weight', async () => {
    const model = prepared();
    await attach(model, { method: svdiff(), targetModules: ['head'], seed: 0 });
    const { initial, weights } = await vectorShifts(model, /norm\.weight$/);
    const loss = ({ d, adapters }: { d: Record<string, Tensor>; adapters: Record<string, Tensor> }): Tensor =>
      withState(model, { ...weights(d), ...adapters }, () => sum(square(model.forward(x))));
    await gradcheck(
      (d: Tensor, shifts: Tensor) =>
        loss({ d: { 'norm.weight': d }, adapters: { 'head.adapters.default.svdiff_d': shifts } }),
      [initial['norm.weight']!, randomNormal([2, 2], [3])],
    );
  });

  it('says what it cannot do', async () => {
    const model = prepared();
    await expect(vectorShifts(model, /head\.weight/)).rejects.toThrow('no parameter with one axis');
    await expect(vectorShifts(model, /./, { scale: 0 })).rejects.toThrow(
      'scale must be a positive number; got 0',
    );
    const { weights } = await vectorShifts(model, /bias/);
    expect(() => weights({ 'norm.weight': tensor(1) })).toThrow('there is no weight "norm.weight" to shift');
  });
});

/** A weight as the matrix [outputs, inputs]. */
function matrixOf(W: Tensor): Tensor {
  return reshape(W, matrixShape(W.shape));
}

class Words extends Module {
  readonly text = new TextModel();
  readonly head = new Linear(4, 2);

  forward(index: Tensor): Tensor {
    return this.head.forward(this.text.token_embedding.forward(index));
  }
}

class TextModel extends Module {
  token_embedding: Embedding = new Embedding(5, 4);
}

describe('textual inversion', () => {
  it('trains the new rows alone; all others are bit-identical after steps with decay', async () => {
    const model = new Words();
    initialize(model, 3);
    const before = new Map(
      await Promise.all(
        [...namedParameters(model)].map(
          async ([path, { value }]) => [path, [...(await read(value, device))]] as const,
        ),
      ),
    );
    const start = gather(model.text.token_embedding.weight.value, tensor(Int32Array.of(1, 3)));
    await evaluate([start], device);
    const extended = addWords(model, 'text.token_embedding', start);
    expect(Object.keys(trainableState(model))).toEqual(['text.token_embedding.new_words']);
    const index = tensor(Int32Array.of(0, 5, 6, 4, 5), [5]);
    const loss = (weights: Record<string, Tensor>): Tensor =>
      withState(model, weights, () => sum(square(model.forward(index))));
    const optimizer = adamW({ weightDecay: 0.1 });
    let weights = trainableState(model);
    let state = optimizer.init(weights);
    for (let step = 0; step < 3; step += 1) {
      ({ parameters: weights, state } = optimizer.update(weights, grad(loss)(weights), state, {
        learningRate: 0.1,
      }));
    }
    extended.new_words.value = Object.values(weights)[0]!;
    for (const [path, parameter] of namedParameters(model)) {
      const now = [...(await read(parameter.value, device))];
      if (path.endsWith('new_words')) expect(now).not.toEqual([...(await read(start, device))]);
      else expect(now).toEqual(before.get(path));
    }
  });

  it('reads old and new words by their indices', async () => {
    const model = new TextModel();
    initialize(model, 3);
    const table = model.token_embedding.weight.value;
    const words = randomNormal([7, 7], [2, 4]);
    addWords(model, 'token_embedding', words);
    const got = await read(model.token_embedding.forward(tensor(Int32Array.of(4, 5, 0, 6), [2, 2])), device);
    const rows = [...(await read(table, device))];
    const added = [...(await read(words))];
    expect([...got]).toEqual([
      ...rows.slice(16),
      ...added.slice(0, 4),
      ...rows.slice(0, 4),
      ...added.slice(4),
    ]);
  });

  it('refuses a path without an embedding and vectors of another width', () => {
    const model = new TextModel();
    initialize(model, 3);
    expect(() => addWords(model, 'nowhere', randomNormal([1, 1], [1, 4]))).toThrow(
      'addWords: no embedding is at "nowhere"',
    );
    expect(() => addWords(model, 'token_embedding', randomNormal([1, 1], [1, 3]))).toThrow(
      'addWords: expected [new words, 4]; got [1, 3]',
    );
  });
});

describe('Custom Diffusion', () => {
  it('means the keys and values of cross-attention', () => {
    const meant = pathPattern(crossAttentionKeysAndValues);
    expect(meant('down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k')).toBe(true);
    expect(meant('down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k')).toBe(false);
    expect(meant('up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q')).toBe(false);
  });

  it('merges concepts so that each keeps its words, and stays nearest to the base on the others', async () => {
    const W0 = randomNormal([1, 1], [5, 6], 'f64');
    const regularisation = randomNormal([1, 2], [20, 6], 'f64');
    const concepts = [2, 1].map((words, i) => ({
      words: randomNormal([2, i], [words, 6], 'f64'),
      weight: randomNormal([3, i], [5, 6], 'f64'),
    }));
    const W = mergeConcepts(W0, regularisation, concepts);
    for (const { words, weight } of concepts) {
      const [got, wanted] = [matmul(words, transpose(W)), matmul(words, transpose(weight))];
      expect(relativeError(await read(got, device), await read(wanted, device))).toBeLessThan(1e-10);
    }
    // At the minimum no direction that keeps the constraints changes the objective to first order.
    const objective = (M: Tensor): Tensor => sum(square(matmul(sub(M, W0), transpose(regularisation))));
    const slope = await read(grad(objective)(W), device);
    const allWords = concepts.map(({ words }) => words);
    const rows = Array.from({ length: 5 }, (_, i) => [...slope].slice(6 * i, 6 * i + 6));
    const C = (await Promise.all(allWords.map(async (words) => [...(await read(words, device))]))).flat();
    // Rows of the slope lie in the span of the words: adding them leaves the rank of C at 3.
    const stacked = tensor(Float64Array.from([...C, ...rows.flat()]), [8, 6], 'f64');
    const values = await singularValues(stacked);
    expect(values[3]! / values[0]!).toBeLessThan(1e-10);
  });
});

class Block extends Module {
  readonly attentions: readonly Attention[];

  constructor(count: number) {
    super();
    this.attentions = Array.from({ length: count }, () => new Attention());
  }
}

class Attention extends Module {
  readonly to_k = new Linear(4, 4);
}

class Unet extends Module {
  readonly down_blocks = [new Block(2)];
  readonly up_blocks = [new Block(3)];
}

describe('setBlockStrengths', () => {
  it('leaves blocks outside of the mask bitwise as the base has them', async () => {
    const unet = new Unet();
    initialize(unet, 1);
    const x = randomNormal([1, 2], [3, 4]);
    const layers = (): Linear[] =>
      [...unet.down_blocks, ...unet.up_blocks].flatMap((b) => b.attentions.map((a) => a.to_k));
    const outputs = (): Promise<number[][]> =>
      Promise.all(layers().map(async (layer) => [...(await read(layer.forward(x), device))]));
    const base = await outputs();
    await attach(unet, { method: deft({ rank: 1, start: 'random' }), targetModules: 'all-linear', seed: 0 });
    setBlockStrengths(unet, styleOnly);
    const styled = await outputs();
    expect(styled.map((y, i) => y.every((v, j) => v === base[i]![j]))).toEqual([
      true,
      true,
      true,
      false,
      true,
    ]);
    expect(attachedAdapters(unet).map(({ adapter }) => adapter.strength)).toEqual([0, 0, 0, 1, 0]);
    expect(() => setBlockStrengths(unet, { mid: 1 })).toThrow('no layer of the adapter lies in a block');
  });
});

describe('rank and alpha patterns', () => {
  it('give layers ranks and scales of their own', async () => {
    const unet = new Unet();
    initialize(unet, 1);
    const rows = await attach(unet, {
      method: lora({ rank: 1, alpha: 2 }),
      targetModules: 'all-linear',
      rankPattern: { 'up_blocks.0.attentions.1.to_k': 3 },
      alphaPattern: { 'attentions.0.to_k': 5 },
      seed: 0,
    });
    expect(rows.map(({ rank }) => rank)).toEqual([1, 1, 1, 3, 1]);
    const alphas = attachedAdapters(unet).map(
      ({ adapter }) => (adapter.method as ReturnType<typeof lora>).options.alpha,
    );
    expect(alphas).toEqual([5, 2, 5, 2, 2]);
    await expect(
      attach(new Unet(), {
        method: svdiff(),
        targetModules: 'all-linear',
        rankPattern: { to_k: 2 },
        seed: 0,
      }),
    ).rejects.toThrow('attach: the method svdiff has no rank or alpha to vary by layer');
  });
});
