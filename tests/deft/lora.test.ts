import { readFileSync } from 'node:fs';
import { Conv2d, initialize, Linear, Module, trainableState } from '@deftjs/autograd/nn';
import {
  attach,
  attachedAdapters,
  deft,
  full,
  layerShapes,
  loadLora,
  lora,
  type Method,
  type Parts,
  readLora,
  writeLora,
} from '@deftjs/deft';
import { type JsonConfig, UNet2DConditionModel } from '@deftjs/models';
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
import { kohyaNames, readDiffusersKeys } from '../../packages/deft/src/files/loraKeys.ts';
import { sgmNames } from '../../packages/deft/src/files/sgmNames.ts';
import { originalUNetName } from '../../packages/models/src/singleFile.ts';
import { readUNetConfig } from '../../packages/models/src/unetConfig.ts';
import { goldenPath, relativeError } from './toy.ts';

beforeAll(() => setDevice(referenceDevice()));

class Attention extends Module {
  readonly to_q = new Linear(5, 6);
  readonly to_out = [new Linear(6, 3)];
}

class UNet extends Module {
  readonly conv_in = new Conv2d(2, 4, 3);
  readonly attn1 = new Attention();
}

class SelfAttention extends Module {
  readonly q_proj = new Linear(4, 4);
  readonly out_proj = new Linear(4, 4);
}

class TextEncoder extends Module {
  readonly encoder = { layer: new SelfAttention() };
}

type Pipeline = { readonly unet: UNet; readonly text_encoder: TextEncoder };

function pipeline(seed = 1): Pipeline {
  const models = { unet: new UNet(), text_encoder: new TextEncoder() };
  for (const model of Object.values(models)) initialize(model, seed);
  return models;
}

/** The pipeline with an adapter of random values on every layer. */
async function adapted(method: Method): Promise<Pipeline> {
  const models = pipeline();
  for (const model of Object.values(models)) {
    await attach(model, { method, targetModules: '.*', seed: 2 });
    for (const { adapter } of attachedAdapters(model)) {
      Object.values(adapter.parameters).forEach((parameter, i) => {
        parameter.value = randomNormal([4, i], parameter.shape);
      });
    }
  }
  return models;
}

/** The deltas of all layers by part and path. */
async function deltas(models: Parts<Module>): Promise<Map<string, ArrayLike<number>>> {
  const all = new Map<string, ArrayLike<number>>();
  for (const [part, model] of Object.entries(models)) {
    for (const { path, layer, adapter } of attachedAdapters(model)) {
      all.set(`${part}.${path}`, await read(adapter.deltaWeight(layer)));
    }
  }
  return all;
}

async function expectEqualDeltas(found: Parts<Module>, wanted: Parts<Module>): Promise<void> {
  const [a, b] = [await deltas(found), await deltas(wanted)];
  expect([...a.keys()]).toEqual([...b.keys()]);
  expect(a.size).toBe(5);
  for (const [path, delta] of b) expect(relativeError(a.get(path)!, delta), path).toBeLessThan(1e-5);
}

const namesIn = async (bytes: Uint8Array): Promise<readonly string[]> =>
  (await openSafetensors(memorySource('f', bytes))).names;

const shapesOf = (models: Parts<Module>) =>
  Object.fromEntries(Object.entries(models).map(([part, model]) => [part, layerShapes(model)]));

describe.each(['diffusers', 'kohya'] as const)('%s files', (style) => {
  it.each<[string, Method]>([
    ['LoRA', lora({ rank: 2, alpha: 3 })],
    ['rank-stabilised LoRA', lora({ rank: 2, alpha: 3, rsLora: true })],
    ['DEFT qr', deft({ rank: 2, projector: 'qr', alpha: 3 })],
    ['DEFT relu_both, of rank 2 r', deft({ rank: 1, projector: 'relu_both', start: 'random' })],
    ['DEFT with a gate', deft({ rank: 2, projector: 'none', start: 'random', gate: 0.3 })],
    ['PaRa', deft({ rank: 2, projector: 'relu', para: true })],
  ])('carry %s exactly, on Linear and Conv2d, for all parts', async (_name, method) => {
    const models = await adapted(method);
    const bytes = await writeLora(models, { style });
    const again = pipeline();
    const rows = await loadLora(again, bytes);
    expect(rows).toHaveLength(5);
    await expectEqualDeltas(again, models);
    expect(Object.values(again).flatMap((model) => Object.keys(trainableState(model)))).toEqual([]);
    if (style === 'kohya' && method.name === 'lora' && !method.options.rsLora)
      expect(await writeLora(again, { style })).toEqual(bytes);
  });

  it('of what depends on the base are refused on another one, unless asked for', async () => {
    const bytes = await writeLora(await adapted(deft({ rank: 2 })), { style });
    const other = pipeline(7);
    await expect(loadLora(other, bytes, { name: 'dog' })).rejects.toThrow(
      /^dog: it was made for another base, on which alone it is exact: weights of SHA-256 \w{12}\.\.\.; got \w{12}/,
    );
    expect(attachedAdapters(other.unet)).toEqual([]);
    await loadLora(other, bytes, { anyBase: true });
    const additive = await writeLora(await adapted(lora({ rank: 2 })), { style });
    await loadLora(pipeline(7), additive);
  });

  it('cannot hold whole weights', async () => {
    await expect(adapted(full()).then((models) => writeLora(models, { style }))).rejects.toThrow(
      'no low rank',
    );
  });
});

describe('names', () => {
  it('are those of diffusers and kohya', async () => {
    const models = await adapted(lora({ rank: 2 }));
    expect(await namesIn(await writeLora(models, { style: 'diffusers' }))).toContain(
      'unet.attn1.to_out.0.lora_A.weight',
    );
    const names = await namesIn(await writeLora(models, { style: 'kohya' }));
    for (const name of [
      'lora_unet_attn1_to_out_0.lora_down.weight',
      'lora_unet_attn1_to_out_0.lora_up.weight',
      'lora_unet_attn1_to_out_0.alpha',
      'lora_te_text_model_encoder_layer_q_proj.lora_down.weight',
    ]) {
      expect(names).toContain(name);
    }
  });

  it.each(['unet-sd15-tiny', 'unet-sdxl-tiny'])(
    '%s: original block names are those of its checkpoints',
    (folder) => {
      const config = JSON.parse(readFileSync(goldenPath(folder, 'config.json'), 'utf8')) as JsonConfig;
      const layers = layerShapes(new UNet2DConditionModel(config));
      const names = sgmNames(layers.keys());
      const described = readUNetConfig(config);
      for (const path of layers.keys()) {
        expect(`${names.get(path)}.weight`).toBe(originalUNetName(`${path}.weight`, described));
      }
      // Every name means one layer, whichever table it is of.
      const all = [...kohyaNames({ unet: layers }).values()].flatMap((layer) => [...new Set(layer.names)]);
      expect(new Set(all).size).toBe(all.length);
      const written = kohyaNames({ unet: layers }).get('unet.mid_block.attentions.0.proj_in')!.names[0];
      const isXl = folder === 'unet-sdxl-tiny';
      expect(written).toBe(
        isXl ? 'lora_unet_middle_block_1_proj_in' : 'lora_unet_mid_block_attentions_0_proj_in',
      );
    },
  );

  it('of two text encoders are numbered', () => {
    const layers = new Map([['encoder.layers.0.self_attn.q_proj', [4, 4]]]);
    const names = kohyaNames({ text_encoder: layers, text_encoder_2: layers });
    const ending = 'text_model_encoder_layers_0_self_attn_q_proj';
    expect(names.get('text_encoder.encoder.layers.0.self_attn.q_proj')!.names[0]).toBe(`lora_te1_${ending}`);
    expect(names.get('text_encoder_2.encoder.layers.0.self_attn.q_proj')!.names).toEqual([
      `lora_te2_${ending}`,
    ]);
  });

  it.each([
    ['unet.a.attn1.to_q.lora_A.weight', 'unet', 'a.attn1.to_q', 'down'],
    ['unet.a.attn1.to_q.lora.up.weight', 'unet', 'a.attn1.to_q', 'up'],
    ['a.attn1.to_q.lora_B.weight', 'unet', 'a.attn1.to_q', 'up'],
    ['base_model.model.a.to_q.lora_B.weight', 'unet', 'a.to_q', 'up'],
    ['unet.a.attn1.processor.to_out_lora.down.weight', 'unet', 'a.attn1.to_out.0', 'down'],
    ['a.attn1.processor.to_k_lora.up.weight', 'unet', 'a.attn1.to_k', 'up'],
    ['unet.a.attn1.processor.add_k_proj_lora.up.weight', 'unet', 'a.attn1.add_k_proj', 'up'],
    ['text_encoder.t.self_attn.to_out_lora.down.weight', 'text_encoder', 't.self_attn.out_proj', 'down'],
    [
      'text_encoder_2.t.self_attn.q_proj.lora_linear_layer.up.weight',
      'text_encoder_2',
      't.self_attn.q_proj',
      'up',
    ],
    ['transformer.blocks.0.attn.to_q.lora_A.weight', 'transformer', 'blocks.0.attn.to_q', 'down'],
    ['unet.a.to_q.alpha', 'unet', 'a.to_q', 'alpha'],
  ])('%s is understood', (key, part, path, role) => {
    expect(readDiffusersKeys('f', [key], 'unet').get(key)).toEqual({ part, path, role });
  });
});

function f32(shape: number[], fill = 0.5): HostTensor {
  return { dtype: 'f32', shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(fill) };
}

const q = { 'unet.attn1.to_q.lora_A.weight': f32([2, 5]), 'unet.attn1.to_q.lora_B.weight': f32([6, 2]) };

describe("diffusers' config in the header", () => {
  const load = async (config: object) => {
    const models = pipeline();
    await loadLora(models, writeSafetensors(q, { lora_adapter_metadata: JSON.stringify(config) }), {
      name: 'f',
    });
    return attachedAdapters(models.unet)[0]!.adapter.method.options;
  };

  it('gives alpha, by part or for the only one', async () => {
    expect(await load({ r: 2, lora_alpha: 5, use_rslora: true })).toMatchObject({ alpha: 5, rsLora: true });
    expect(await load({ 'unet.r': 2, 'unet.lora_alpha': 5 })).toMatchObject({ alpha: 5, rsLora: false });
    expect(await load({ 'unet.r': 4, 'unet.lora_alpha': 5, 'unet.rank_pattern': { to_q: 2 } })).toMatchObject(
      {
        rank: 2,
        alpha: 5,
      },
    );
    expect(await load({ 'text_encoder.lora_alpha': 5 })).toMatchObject({ alpha: 2 });
  });

  it('that asks for something else is refused by name', async () => {
    await expect(load({ r: 2, use_dora: true })).rejects.toThrow(
      'use_dora: not supported; expected false; got true',
    );
    await expect(load({ r: 3 })).rejects.toThrow(
      'r: it says rank 3 for attn1.to_q, whose tensors have rank 2',
    );
    await expect(load({ peft_type: 'LOHA', r: 2 })).rejects.toThrow('peft_type: expected LORA; got "LOHA"');
  });
});

describe('files that do not fit', () => {
  const kohya = {
    'lora_unet_attn1_to_q.lora_down.weight': f32([2, 5]),
    'lora_unet_attn1_to_q.lora_up.weight': f32([6, 2]),
  };

  it.each<[string, Record<string, HostTensor>, string]>([
    [
      'LoHa',
      { ...kohya, 'lora_unet_a.hada_w1_a': f32([1]) },
      'tensor "lora_unet_a.hada_w1_a": this is LoHa (LyCORIS), which is not supported',
    ],
    ['LoKr', { 'lora_unet_a.lokr_w1': f32([1]) }, 'this is LoKr (LyCORIS)'],
    ['DoRA', { ...kohya, 'lora_unet_attn1_to_q.dora_scale': f32([1]) }, 'this is DoRA'],
    [
      'Tucker form',
      { ...kohya, 'lora_unet_attn1_to_q.lora_mid.weight': f32([1]) },
      'this is LoCon in Tucker form',
    ],
    ['whole changes', { 'lora_unet_a.diff': f32([1]) }, 'this is whole changes of weights'],
    ['GLoRA', { 'lora_unet_a.a1.weight': f32([1]) }, 'this is GLoRA'],
    ['norms', { 'lora_unet_a.w_norm': f32([1]) }, 'this is whole changes of weights'],
    ['biases', { ...q, 'unet.attn1.to_q.lora_B.bias': f32([1]) }, 'this is LoRA with biases'],
    [
      'another kind of key',
      { ...kohya, 'lora_unet_attn1_to_q.beta': f32([1]) },
      'expected a key like lora_unet_<layer>.lora_down.weight',
    ],
    [
      'no LoRA at all',
      { 'unet.weight': f32([1]) },
      'tensor "unet.weight": expected a key like unet.<layer>.lora_A.weight',
    ],
    [
      'a layer that is not there',
      { 'lora_unet_attn2_to_q.lora_up.weight': f32([6, 2]) },
      'no layer of the model has this name; nearest: lora_unet_attn1_to_q',
    ],
    [
      'a path that is not there',
      { 'unet.attn2.to_q.lora_A.weight': f32([6, 2]) },
      'no layer of the model has this path; nearest: attn1.to_q',
    ],
    [
      'a part that is not there',
      { 'transformer.a.lora_A.weight': f32([6, 2]) },
      'it is for the part transformer; the model has: unet, text_encoder',
    ],
    ['half a layer', { 'unet.attn1.to_q.lora_A.weight': f32([2, 5]) }, 'unet.attn1.to_q has no up matrix'],
    [
      'two spellings of one tensor',
      { ...q, 'unet.attn1.to_q.lora.up.weight': f32([6, 2]) },
      'a second up of unet.attn1.to_q',
    ],
    [
      'other inputs',
      { ...q, 'unet.attn1.to_q.lora_A.weight': f32([2, 6]) },
      'its shape does not fit the layer; expected [2, 5] as a matrix; got [2, 6]',
    ],
    [
      'two ranks',
      { ...q, 'unet.attn1.to_q.lora_A.weight': f32([3, 5]) },
      'expected [6, 3] as a matrix; got [6, 2]',
    ],
    [
      'rank 0',
      { 'unet.attn1.to_q.lora_A.weight': f32([0, 5]), 'unet.attn1.to_q.lora_B.weight': f32([6, 0]) },
      'expected [0, 5] as a matrix',
    ],
    ['a scalar', { ...q, 'unet.attn1.to_q.lora_A.weight': f32([]) }, 'its shape does not fit the layer'],
    ['NaN', { ...q, 'unet.attn1.to_q.lora_A.weight': f32([2, 5], Number.NaN) }, 'it holds NaN or infinity'],
    ['alpha 0', { ...kohya, 'lora_unet_attn1_to_q.alpha': f32([], 0) }, 'expected one number > 0; got 0'],
    ['nothing', {}, 'it holds no tensors'],
  ])('%s: refused by name, the models untouched', async (_name, tensors, problem) => {
    const models = pipeline();
    await expect(loadLora(models, writeSafetensors(tensors), { name: 'f' })).rejects.toThrow(problem);
    expect(attachedAdapters(models.unet)).toEqual([]);
    expect(Object.keys(trainableState(models.unet))).toHaveLength(6);
  });

  it("of kohya's names need the model", async () => {
    const file = await openSafetensors(memorySource('f', writeSafetensors(kohya)));
    await expect(readLora(file)).rejects.toThrow(
      "kohya's names can be read only with the base model's at hand",
    );
  });

  it("of diffusers' names do not", async () => {
    const bytes = await writeLora(await adapted(lora({ rank: 2 })), { style: 'diffusers' });
    const { layers } = await readLora(await openSafetensors(memorySource('f', bytes)));
    expect(new Map(layers.map(({ part, path, shape }) => [`${part}.${path}`, shape]))).toEqual(
      new Map(
        Object.entries(shapesOf(pipeline())).flatMap(([part, shapes]) =>
          [...shapes].map(([path, shape]) => [`${part}.${path}`, shape] as const),
        ),
      ),
    );
  });
});
