import { readFileSync } from 'node:fs';
import { Conv2d, initialize, Linear, Module, namedParameters, stateOf } from '@deftjs/autograd/nn';
import {
  attach,
  attachedAdapters,
  loadSpectralShifts,
  readCustomDiffusion,
  readLearnedEmbeds,
  svdiff,
  writeCustomDiffusion,
  writeLearnedEmbeds,
  writeSpectralShifts,
} from '@deftjs/deft';
import {
  type HostTensor,
  memorySource,
  openSafetensors,
  randomNormal,
  read,
  referenceDevice,
  setDevice,
  writeSafetensors,
} from '@deftjs/tensor';
import { beforeAll, describe, expect, it } from 'vitest';

class Model extends Module {
  readonly to_q = new Linear(5, 6);
  readonly conv_in = new Conv2d(2, 4, 3, { padding: 1 });
}

beforeAll(() => setDevice(referenceDevice()));

function freshModel(): Model {
  const model = new Model();
  initialize(model, 1);
  return model;
}

const keysOf = async (bytes: Uint8Array): Promise<string[]> =>
  [...(await openSafetensors(memorySource('file', bytes))).names].sort();

const file = (tensors: Record<string, number[]>, shape?: number[]): Uint8Array =>
  writeSafetensors(
    Object.fromEntries(
      Object.entries(tensors).map(([name, numbers]): [string, HostTensor] => [
        name,
        { dtype: 'f32', shape: shape ?? [numbers.length], data: Float32Array.from(numbers) },
      ]),
    ),
  );

describe('spectral shifts', () => {
  it('come back as the same change of the weights, whatever the scale was', async () => {
    const model = freshModel();
    await attach(model, { method: svdiff({ scale: 0.5 }), targetModules: ['to_q', 'conv_in'], seed: 0 });
    for (const [path, parameter] of namedParameters(model))
      if (path.endsWith('svdiff_d')) parameter.value = randomNormal([3, path.length], parameter.shape);
    const bytes = await writeSpectralShifts(model);
    expect(await keysOf(bytes)).toEqual(['conv_in.delta', 'to_q.delta']);
    const again = freshModel();
    const rows = await loadSpectralShifts(again, bytes);
    expect(rows.map(({ path }) => path)).toEqual(['to_q', 'conv_in']);
    const changes = (of: Model): Promise<number[][]> =>
      Promise.all(
        attachedAdapters(of).map(async ({ layer, adapter }) => [...(await read(adapter.deltaWeight(layer)))]),
      );
    const [before, after] = [(await changes(model)).flat(), (await changes(again)).flat()];
    expect(Math.hypot(...before)).toBeGreaterThan(0.1);
    after.forEach((value, i) => {
      expect(value).toBeCloseTo(before[i]!, 5);
    });
  });

  it.each([
    ['a layer that is not there', file({ 'to_x.delta': [1] }), 'no Linear or Conv2d layer'],
    ['another number of values', file({ 'to_q.delta': [1, 2] }), 'expected [5]; got [2]'],
    ['another key', file({ to_q: [1] }), 'expected a key like <layer>.delta'],
    ['a NaN', file({ 'to_q.delta': [1, 2, Number.NaN, 4, 5] }), 'NaN'],
    ['nothing', file({}), 'no tensors'],
  ])('are refused with %s, the model untouched', async (_what, bytes, message) => {
    const model = freshModel();
    const before = Object.keys(stateOf(model));
    await expect(loadSpectralShifts(model, bytes)).rejects.toThrow(message);
    expect(Object.keys(stateOf(model))).toEqual(before);
  });
});

describe('learned embeddings', () => {
  it('come back, a lone vector as one row', async () => {
    const vectors = randomNormal([1, 0], [3, 4]);
    const words = await readLearnedEmbeds('file', await writeLearnedEmbeds({ sks: vectors }));
    expect([...(await read(words.sks!))]).toEqual([...(await read(vectors))]);
    const older = readFileSync(new URL('../tensor/io/torch/learned_embeds.bin', import.meta.url));
    const [toy] = Object.entries(await readLearnedEmbeds('file', older));
    expect([toy![0], toy![1].shape, [...(await read(toy![1]))]]).toEqual(['<toy>', [1, 5], [0, 1, 2, 3, 4]]);
    expect((await readLearnedEmbeds('file', file({ '<cat>': [1, 2] })))['<cat>']!.shape).toEqual([1, 2]);
  });

  it('are refused where they are no vectors', async () => {
    await expect(readLearnedEmbeds('file', file({ sks: [1, 2] }, [1, 1, 2]))).rejects.toThrow('vectors');
    await expect(readLearnedEmbeds('file', file({ sks: [Number.NaN] }))).rejects.toThrow('NaN');
  });
});

describe('Custom Diffusion weights', () => {
  it('have diffusers names in the file and ours outside', async () => {
    const path = 'mid_block.attentions.0.transformer_blocks.0.attn2';
    const weights = {
      [`${path}.to_k.weight`]: randomNormal([1, 0], [2, 3]),
      [`${path}.to_v.weight`]: randomNormal([2, 0], [2, 3]),
      [`${path}.to_out.0.bias`]: randomNormal([3, 0], [2]),
    };
    const bytes = await writeCustomDiffusion(weights);
    expect(await keysOf(bytes)).toEqual([
      `${path}.processor.to_k_custom_diffusion.weight`,
      `${path}.processor.to_out_custom_diffusion.0.bias`,
      `${path}.processor.to_v_custom_diffusion.weight`,
    ]);
    const again = await readCustomDiffusion('file', bytes);
    expect(Object.keys(again).sort()).toEqual(Object.keys(weights).sort());
    for (const [name, value] of Object.entries(weights))
      expect([...(await read(again[name]!))]).toEqual([...(await read(value))]);
  });

  it('are refused under other names', async () => {
    await expect(readCustomDiffusion('file', file({ 'a.to_k.weight': [1] }))).rejects.toThrow('processor');
    await expect(writeCustomDiffusion({ 'conv_in.weight': randomNormal([1, 0], [1]) })).rejects.toThrow(
      'conv_in.weight',
    );
  });
});
