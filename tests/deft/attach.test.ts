import { valueAndGrad } from '@deftjs/autograd';
import {
  Conv2d,
  initialize,
  Linear,
  Module,
  namedParameters,
  stateOf,
  trainableState,
  withState,
} from '@deftjs/autograd/nn';
import { attach, attachedAdapters, deft, detach, lora, merge, setAdapterStrength } from '@deftjs/deft';
import {
  add,
  cast,
  mul,
  randomNormal,
  read,
  referenceDevice,
  ShapeError,
  scope,
  setDevice,
  silu,
  sub,
  sum,
  type Tensor,
} from '@deftjs/tensor';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { relativeError } from './toy.ts';

class Attention extends Module {
  readonly to_q = new Linear(6, 8, { bias: false });
  readonly to_k = new Linear(6, 8, { bias: false });
  readonly to_out = [new Linear(8, 6)];

  forward(x: Tensor): Tensor {
    return this.to_out[0]!.forward(silu(mul(this.to_q.forward(x), this.to_k.forward(x))));
  }
}

class Model extends Module {
  readonly blocks = [new Attention(), new Attention()];
  readonly conv_out = new Conv2d(1, 4, 3, { padding: 1 });

  forward(x: Tensor): Tensor {
    return this.blocks.reduce((y, block) => add(y, block.forward(y)), x);
  }
}

const x = randomNormal([1, 2], [3, 6]);
const method = deft({ rank: 2, projector: 'qr' });
const device = referenceDevice();
beforeAll(() => setDevice(device));

let model: Model;
beforeEach(() => {
  model = new Model();
  initialize(model, 1);
});

const output = async (): Promise<number[]> => [...(await read(model.forward(x)))];

/** Gives every adapter parameter of the name other values than it started with. */
function train(adapterName: string): void {
  attachedAdapters(model, adapterName).forEach(({ adapter }, i) => {
    Object.values(adapter.parameters).forEach((parameter, j) => {
      parameter.value = randomNormal([i, j], parameter.shape);
    });
  });
}

describe('attach', () => {
  it('returns a table of the layers hit, and puts the parameters below their paths', async () => {
    const table = await attach(model, { method, targetModules: ['to_q', 'to_out.0'], seed: 0 });
    expect(table).toEqual([
      { path: 'blocks.0.to_q', shape: [8, 6], rank: 2, parameters: 28 },
      { path: 'blocks.0.to_out.0', shape: [6, 8], rank: 2, parameters: 28 },
      { path: 'blocks.1.to_q', shape: [8, 6], rank: 2, parameters: 28 },
      { path: 'blocks.1.to_out.0', shape: [6, 8], rank: 2, parameters: 28 },
    ]);
    expect(Object.keys(trainableState(model)).slice(0, 2)).toEqual([
      'blocks.0.to_q.adapters.default.deft_P',
      'blocks.0.to_q.adapters.default.deft_R',
    ]);
  });

  it('names the parameters of a model that is one layer', async () => {
    const layer = new Linear(4, 3);
    initialize(layer, 1);
    expect(await attach(layer, { method: lora({ rank: 1 }), targetModules: '', seed: 0 })).toHaveLength(1);
    expect(Object.keys(trainableState(layer))).toEqual([
      'adapters.default.lora_A',
      'adapters.default.lora_B',
    ]);
  });

  it.each([
    ['a path', ['blocks.1.to_k'], ['blocks.1.to_k']],
    ['a last part', ['to_k'], ['blocks.0.to_k', 'blocks.1.to_k']],
    [
      'an expression',
      String.raw`blocks\.\d+\.to_(q|k)`,
      ['blocks.0.to_q', 'blocks.0.to_k', 'blocks.1.to_q', 'blocks.1.to_k'],
    ],
    [
      'all-linear',
      'all-linear',
      [
        'blocks.0.to_q',
        'blocks.0.to_k',
        'blocks.0.to_out.0',
        'blocks.1.to_q',
        'blocks.1.to_k',
        'blocks.1.to_out.0',
      ],
    ],
    ['a convolution', ['conv_out'], ['conv_out']],
  ])('finds layers by %s', async (_name, targetModules, paths) => {
    const table = await attach(model, { method, targetModules, seed: 0 });
    expect(table.map(({ path }) => path)).toEqual(paths);
  });

  it('spares what is excluded', async () => {
    const table = await attach(model, {
      method,
      targetModules: 'all-linear',
      excludeModules: ['to_k', 'blocks.0.to_q'],
      seed: 0,
    });
    expect(table.map(({ path }) => path)).toEqual([
      'blocks.0.to_out.0',
      'blocks.1.to_q',
      'blocks.1.to_out.0',
    ]);
  });

  it('matches whole parts of a path only', async () => {
    await expect(attach(model, { method, targetModules: ['o_q'], seed: 0 })).rejects.toThrow(
      'attach: no Linear or Conv2d layer for targetModules "o_q"; nearest names: to_q, to_k, to_out.0, conv_out',
    );
  });

  it('names every entry that matches nothing, and what is near', async () => {
    const attempt = attach(model, { method, targetModules: ['to_q', 'to_value', 'to_kk'], seed: 0 });
    await expect(attempt).rejects.toThrow(/targetModules "to_value", "to_kk"; nearest names: to_k, /);
  });

  it('says when everything is excluded', async () => {
    const attempt = attach(model, { method, targetModules: ['to_q'], excludeModules: ['to_q'], seed: 0 });
    await expect(attempt).rejects.toThrow(/for targetModules "to_q" beside excludeModules; /);
  });

  it('names the layer and the limit when the rank is too large, and leaves the model alone', async () => {
    const before = Object.keys(stateOf(model));
    const attempt = attach(model, { method: deft({ rank: 5 }), targetModules: '.*', seed: 0 });
    await expect(attempt).rejects.toThrow(
      new ShapeError('attach: rank 5 is too large for conv_out with weight [4, 1, 3, 3]; expected at most 4'),
    );
    expect(Object.keys(stateOf(model))).toEqual(before);
    expect([...namedParameters(model).values()].every(({ trainable }) => trainable)).toBe(true);
  });

  it('refuses a convolution in groups by name', async () => {
    const grouped = new Conv2d(4, 4, 3, { groups: 2 });
    initialize(grouped, 1);
    await expect(attach(grouped, { method: lora({ rank: 1 }), targetModules: '', seed: 0 })).rejects.toThrow(
      new ShapeError('attach: the module itself is a convolution in groups; expected 1; got 2'),
    );
  });

  it('refuses a name that is taken or no name', async () => {
    await attach(model, { method, targetModules: ['to_q'], seed: 0 });
    await expect(attach(model, { method, targetModules: ['to_q'], seed: 0 })).rejects.toThrow(
      'attach: blocks.0.to_q has an adapter named "default" already; detach it or choose another name',
    );
    await expect(
      attach(model, { method, targetModules: ['to_q'], adapterName: 'a.b', seed: 0 }),
    ).rejects.toThrow('attach: an adapter\'s name is letters, digits, "_" and "-"; got "a.b"');
  });

  it('freezes the base: gradients reach the adapter and nothing else', async () => {
    await attach(model, { method, targetModules: ['to_q'], seed: 0 });
    expect(
      [...namedParameters(model)].filter(([, { trainable }]) => trainable).map(([path]) => path),
    ).toEqual([
      'blocks.0.to_q.adapters.default.deft_P',
      'blocks.0.to_q.adapters.default.deft_R',
      'blocks.1.to_q.adapters.default.deft_P',
      'blocks.1.to_q.adapters.default.deft_R',
    ]);
    const loss = (theta: Record<string, Tensor>): Tensor =>
      withState(model, theta, () => sum(model.forward(x)));
    const { gradient } = valueAndGrad(loss)(trainableState(model));
    for (const [path, g] of Object.entries(gradient)) {
      expect(Math.max(...(await read(g)).map(Math.abs)), path).toBeGreaterThan(1e-6);
    }
  });

  it('draws the same numbers for the same seed and path, whatever else is targeted', async () => {
    const P = async (targetModules: string[], seed: number): Promise<number[]> => {
      const fresh = new Model();
      initialize(fresh, 1);
      await attach(fresh, { method, targetModules, seed });
      return [...(await read(stateOf(fresh)['blocks.1.to_q.adapters.default.deft_P']!))];
    };
    const drawn = await P(['to_q'], 7);
    expect(await P(['to_k', 'to_q'], 7)).toEqual(drawn);
    expect(await P(['to_q'], 8)).not.toEqual(drawn);
  });

  it('draws different numbers for different layers', async () => {
    await attach(model, { method, targetModules: ['to_q'], seed: 0 });
    const [first, second] = attachedAdapters(model).map(({ adapter }) => adapter.parameters.deft_P!.value);
    expect([...(await read(first!))]).not.toEqual([...(await read(second!))]);
  });

  it('leaves nothing behind that a scope would free', async () => {
    await scope(async () => {
      await attach(model, { method, targetModules: ['to_q'], seed: 0 });
    });
    expect((await output()).every(Number.isFinite)).toBe(true);
  });
});

describe('several adapters', () => {
  it('add up, each seeing the output of the base layer', async () => {
    const layer = new Linear(5, 4);
    initialize(layer, 2);
    const input = randomNormal([2, 2], [3, 5]);
    const base = layer.forward(input);
    const alone: Tensor[] = [];
    for (const [adapterName, own] of Object.entries({
      one: deft({ rank: 2, start: 'random' }),
      two: lora({ rank: 1 }),
      three: deft({ rank: 1, projector: 'qr', para: true }),
    })) {
      await attach(layer, { method: own, targetModules: '', adapterName, seed: 4 });
      const others = { ...layer.adapters };
      layer.adapters = { [adapterName]: others[adapterName]! };
      alone.push(sub(layer.forward(input), base));
      layer.adapters = others;
    }
    const together = alone.reduce((total, delta) => add(total, delta), base);
    expect(relativeError(await read(layer.forward(input)), await read(together))).toBeLessThan(1e-6);
    using _merged = await merge(layer);
    expect(relativeError(await read(layer.forward(input)), await read(together))).toBeLessThan(1e-6);
  });

  it('keep their own state of being trained when another comes', async () => {
    await attach(model, { method, targetModules: ['to_q'], seed: 0, adapterName: 'first' });
    await attach(model, { method, targetModules: ['to_k'], seed: 0, adapterName: 'second' });
    expect(Object.keys(trainableState(model))).toHaveLength(8);
  });
});

describe('detach', () => {
  it('leaves the base model', async () => {
    const before = await output();
    await attach(model, { method, targetModules: ['to_q'], seed: 0 });
    train('default');
    expect(await output()).not.toEqual(before);
    detach(model);
    expect(await output()).toEqual(before);
    expect(attachedAdapters(model)).toEqual([]);
  });

  it('names the adapters that there are', async () => {
    expect(() => detach(model)).toThrow('detach: no adapter is named "default"; there are: none');
    await attach(model, { method, targetModules: ['to_q'], seed: 0, adapterName: 'dog' });
    expect(() => detach(model, 'cat')).toThrow('detach: no adapter is named "cat"; there are: dog');
  });
});

describe('setAdapterStrength', () => {
  it('scales the change of the weight, in activations and merged', async () => {
    const layer = new Linear(5, 4);
    initialize(layer, 2);
    const input = randomNormal([2, 2], [3, 5]);
    const base = layer.forward(input);
    await attach(layer, { method: deft({ rank: 2, start: 'random' }), targetModules: '', seed: 4 });
    const full = sub(layer.forward(input), base);
    for (const t of [0, 0.5, 2]) {
      setAdapterStrength(layer, t);
      const expected = await read(add(base, mul(full, t)));
      expect(relativeError(await read(layer.forward(input)), expected)).toBeLessThan(1e-6);
      using _merged = await merge(layer);
      expect(relativeError(await read(layer.forward(input)), expected)).toBeLessThan(1e-6);
    }
  });
});

describe('merge', () => {
  it('makes a plain model, and unmerges to the very bytes', async () => {
    await attach(model, { method, targetModules: ['to_q', 'to_out.0'], seed: 0 });
    train('default');
    const adapted = await output();
    const weights = stateOf(model);
    const merged = await merge(model);
    expect(merged.layers).toEqual([
      'blocks.0.to_q',
      'blocks.0.to_out.0',
      'blocks.1.to_q',
      'blocks.1.to_out.0',
    ]);
    expect(Object.keys(stateOf(model)).filter((path) => path.includes('adapters'))).toEqual([]);
    expect(relativeError(await output(), adapted)).toBeLessThan(1e-6);
    merged.unmerge();
    merged.unmerge();
    expect(Object.keys(stateOf(model))).toEqual(Object.keys(weights));
    for (const [path, value] of Object.entries(stateOf(model))) expect(value, path).toBe(weights[path]);
    expect(await output()).toEqual(adapted);
  });

  it('computes in float32 and stores in the type of the weight', async () => {
    const layer = new Linear(5, 4, { bias: false });
    initialize(layer, 2);
    layer.weight.value = cast(layer.weight.value, 'f16');
    await attach(layer, { method, targetModules: '', seed: 4 });
    using _merged = await merge(layer);
    expect(layer.weight.value.dtype).toBe('f16');
  });

  it('says when there is nothing to merge', async () => {
    await expect(merge(model)).rejects.toThrow('merge: no layer has an adapter');
  });

  it('can be merged again after unmerging', async () => {
    await attach(model, { method, targetModules: ['to_q'], seed: 0 });
    train('default');
    const adapted = await output();
    (await merge(model)).unmerge();
    using _merged = await merge(model);
    expect(relativeError(await output(), adapted)).toBeLessThan(1e-6);
  });
});

describe('activations of half precision', () => {
  it('are adapted in their own type', async () => {
    const layer = new Linear(5, 4, { bias: false });
    initialize(layer, 2);
    layer.weight.value = cast(layer.weight.value, 'f16');
    await attach(layer, { method, targetModules: '', seed: 4 });
    expect(layer.forward(cast(randomNormal([2, 2], [3, 5]), 'f16')).dtype).toBe('f16');
    expect(layer.adapters.default).toBeDefined();
  });
});
