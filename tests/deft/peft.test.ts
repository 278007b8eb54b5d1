import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  Conv2d,
  initialize,
  Linear,
  Module,
  namedParameters,
  stateOf,
  trainableState,
} from '@deftjs/autograd/nn';
import {
  attach,
  attachedAdapters,
  deft,
  loadPeft,
  lora,
  type Method,
  type PeftFiles,
  type ProjectorName,
  projectors,
  readPeftConfig,
  writePeft,
} from '@deftjs/deft';
import { loadPeftFolder, savePeftFolder } from '@deftjs/deft/node';
import {
  ConfigError,
  type HostTensor,
  memorySource,
  openSafetensors,
  randomNormal,
  read,
  referenceDevice,
  SafetensorsError,
  setDevice,
  writeSafetensors,
} from '@deftjs/tensor';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { writePeftConfig } from '../../packages/deft/src/files/peftConfig.ts';
import { readJson } from './toy.ts';

class Model extends Module {
  readonly to_q = new Linear(5, 6);
  readonly to_out = [new Linear(6, 3)];
  readonly conv_in = new Conv2d(2, 4, 3, { padding: 1 });
}

beforeAll(() => setDevice(referenceDevice()));

function freshModel(): Model {
  const model = new Model();
  initialize(model, 1);
  return model;
}

async function trained(
  method: Method,
  targetModules: string[] | string = ['to_q', 'to_out.0'],
): Promise<Model> {
  const model = freshModel();
  await attach(model, { method, targetModules, seed: 2 });
  Object.values(trainableState(model)).forEach((value, i) => {
    const path = Object.keys(trainableState(model))[i]!;
    namedParameters(model).get(path)!.value = randomNormal([9, i], value.shape);
  });
  return model;
}

const values = async (model: Module): Promise<Record<string, readonly number[]>> =>
  Object.fromEntries(
    await Promise.all(
      Object.entries(stateOf(model)).map(async ([path, x]) => [path, [...(await read(x))]] as const),
    ),
  );

const methods: [string, Method][] = [
  ...(Object.keys(projectors) as ProjectorName[]).map((projector): [string, Method] => [
    `DEFT ${projector}`,
    deft({ rank: 2, projector, start: 'random', alpha: 3, initScale: 0.5 }),
  ]),
  ['DEFT nmf as a projector', deft({ rank: 2, projector: 'nmf', scaling: 'projector', start: 'random' })],
  ['PaRa', deft({ rank: 2, projector: 'qr', para: true })],
  ['LoRA', lora({ rank: 2, alpha: 6, start: 'gaussian', rsLora: true })],
];

describe('writing and reading', () => {
  it.each(methods)('%s comes back as it went, on Linear and Conv2d', async (_name, method) => {
    const model = await trained(method, ['to_q', 'to_out.0', 'conv_in']);
    const files = await writePeft(model);
    const again = freshModel();
    const rows = await loadPeft(again, files);
    expect(rows.map(({ path }) => path)).toEqual(['to_q', 'to_out.0', 'conv_in']);
    expect(await values(again)).toEqual(await values(model));
    const [first] = attachedAdapters(again);
    expect(first!.adapter.method.options).toEqual(method.options);
    expect(await writePeft(again)).toEqual(files);
  });

  it('folds a gate into R: the file has none, and the weights are the same', async () => {
    const model = await trained(deft({ rank: 2, projector: 'qr', gate: 0.7 }));
    const again = freshModel();
    await loadPeft(again, await writePeft(model));
    const weightsOf = async (from: Module): Promise<number[][]> =>
      Promise.all(
        attachedAdapters(from).map(async ({ layer, adapter }) => [
          ...(await read(adapter.deltaWeight(layer))),
        ]),
      );
    const [gated, plain] = [await weightsOf(model), await weightsOf(again)];
    plain.flat().forEach((value, i) => {
      expect(value).toBeCloseTo(gated.flat()[i]!, 5);
    });
  });

  it('gives the same bytes for the same values', async () => {
    const method = deft({ rank: 2 });
    expect(await writePeft(await trained(method))).toEqual(await writePeft(await trained(method)));
  });

  it('keeps the targets that were asked for', async () => {
    const model = freshModel();
    await attach(model, {
      method: lora({ rank: 1 }),
      targetModules: 'to_.*',
      excludeModules: ['to_q'],
      seed: 0,
    });
    const { config } = await writePeft(model, { base: { nameOrPath: 'some/base', autoMapping: null } });
    expect(JSON.parse(config)).toMatchObject({
      target_modules: 'to_.*',
      exclude_modules: ['to_q'],
      base_model_name_or_path: 'some/base',
    });
  });

  it('writes every field that PEFT writes, sorted, for DEFT and LoRA', async () => {
    for (const [method, folder] of [
      [deft({ rank: 2 }), 'peft-deft-qr'],
      [lora({ rank: 2 }), 'peft-lora'],
    ] as const) {
      const { config } = await writePeft(await trained(method));
      const keys = Object.keys(JSON.parse(config) as object);
      expect(keys).toEqual(Object.keys(readJson(folder, 'adapter_config.json')));
      expect(keys).toEqual([...keys].sort());
    }
  });

  it('freezes what is loaded unless it is to be trained', async () => {
    const files = await writePeft(await trained(deft({ rank: 2 })));
    const model = freshModel();
    await loadPeft(model, files);
    expect(Object.keys(trainableState(model))).toEqual([]);
    await loadPeft(model, files, { adapterName: 'second', trainable: true });
    expect(Object.keys(trainableState(model))).toHaveLength(4);
  });

  it('lowers a rank above the outputs of a layer to them, as PEFT does', async () => {
    const { config } = await writePeft(await trained(deft({ rank: 2, alpha: 6 }), ['to_out.0']));
    const wide = JSON.stringify({ ...(JSON.parse(config) as object), r: 8 });
    const tensors = {
      'base_model.model.to_out.0.deft_P': f32([3, 3]),
      'base_model.model.to_out.0.deft_R': f32([3, 6]),
    };
    const model = freshModel();
    const [row] = await loadPeft(model, { config: wide, weights: writeSafetensors(tensors) });
    expect(row!.rank).toBe(3);
    expect(attachedAdapters(model)[0]!.adapter.method.options).toMatchObject({ rank: 3, alpha: 6 });
  });

  it('takes alpha 0 for none, as PEFT does', async () => {
    const config = JSON.stringify({ peft_type: 'DEFT', alpha: 0 });
    expect(readPeftConfig('c', config).method.options).toMatchObject({ alpha: null });
  });

  it("takes PEFT's defaults for what is absent", () => {
    expect(readPeftConfig('c', '{"peft_type":"DEFT"}').method.options).toEqual(
      deft({ rank: 8, projector: 'relu' }).options,
    );
    expect(readPeftConfig('c', '{"peft_type":"LORA"}').method.options).toEqual(
      lora({ rank: 8, alpha: 8 }).options,
    );
  });

  it('gives layers the rank and alpha that the first matching name says, as PEFT does', () => {
    const { methodFor } = readPeftConfig(
      'c',
      JSON.stringify({
        peft_type: 'LORA',
        r: 4,
        lora_alpha: 8,
        rank_pattern: { '^to_q': 1, 'attn[12].to_q': 2, to_q: 3 },
        alpha_pattern: { to_k: 0.5 },
      }),
    );
    const given = ['to_q', 'a.attn1.to_q', 'a.attn3.to_q', 'a.to_k', 'a.to_v'].map((path) => {
      const { rank, options } = methodFor(path, [9, 9]);
      return [rank, (options as { alpha: number }).alpha];
    });
    expect(given).toEqual([
      [1, 8],
      [2, 8],
      [3, 8],
      [4, 0.5],
      [4, 8],
    ]);
  });

  it('keeps ranks and alphas that differ by layer, and says when PEFT cannot', async () => {
    const pattern = { rankPattern: { 'to_out.0': 1 }, alphaPattern: { to_q: 5 } };
    const targetModules = ['to_q', 'to_out.0'];
    const model = freshModel();
    await attach(model, { method: lora({ rank: 2 }), targetModules, seed: 1, ...pattern });
    const files = await writePeft(model);
    expect(JSON.parse(files.config)).toMatchObject({
      rank_pattern: { 'to_out.0': 1 },
      alpha_pattern: { to_q: 5 },
    });
    const again = freshModel();
    await loadPeft(again, files);
    expect(await writePeft(again)).toEqual(files);
    const other = freshModel();
    await attach(other, { method: deft({ rank: 2 }), targetModules, seed: 1, ...pattern });
    await expect(writePeft(other)).rejects.toThrow(
      'writePeft: PEFT has one rank and alpha for all layers of DEFT, here 2 and null; to_q has others',
    );
  });

  it('takes layers of some blocks where the config says so, and keeps that', async () => {
    const text = JSON.stringify({
      peft_type: 'DEFT',
      target_modules: ['to_q', 'blocks.3.to_q'],
      layers_to_transform: [1],
      layers_pattern: ['blocks'],
    });
    const config = readPeftConfig('c', text);
    const meant = ['m.blocks.1.to_q', 'm.blocks.2.to_q', 'm.rows.1.to_q', 'blocks.1.to_q', 'blocks.3.to_q'];
    expect(meant.filter((path) => config.isTarget!(path, [4, 4]))).toEqual([
      'm.blocks.1.to_q',
      'blocks.3.to_q',
    ]);
    const { isTarget } = readPeftConfig('c', JSON.stringify({ ...JSON.parse(text), layers_pattern: null }));
    expect(meant.filter((path) => isTarget!(path, [4, 4]))).toEqual([
      'm.blocks.1.to_q',
      'm.rows.1.to_q',
      'blocks.3.to_q',
    ]);
    const written = writePeftConfig(config, [], { nameOrPath: null, autoMapping: null });
    expect(JSON.parse(written)).toMatchObject({ layers_to_transform: [1], layers_pattern: ['blocks'] });
  });

  it('keeps dropout, for whoever trains on', async () => {
    for (const method of [deft({ rank: 2, dropout: 0.25 }), lora({ rank: 2, dropout: 0.25 })]) {
      const files = await writePeft(await trained(method));
      const model = freshModel();
      await loadPeft(model, files, { trainable: true });
      expect(attachedAdapters(model)[0]!.adapter.method.dropout).toBe(0.25);
      expect(await writePeft(model)).toEqual(files);
    }
  });

  it('ignores fields of other versions', () => {
    expect(readPeftConfig('c', '{"peft_type":"LORA","some_new_field":null}').method.name).toBe('lora');
  });
});

function f32(shape: number[], fill = 0.5): HostTensor {
  return { dtype: 'f32', shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(fill) };
}

describe('a config that asks for something else', () => {
  it.each([
    ['{"peft_type":"OFT"}', 'peft_type: expected one of DEFT, LORA; got "OFT"'],
    ['{}', 'peft_type is missing; expected one of DEFT, LORA'],
    [
      '{"peft_type":"DEFT","decomposition_method":"lu"}',
      'decomposition_method: expected one of none, relu, relu_both, relu_outer, qr, polar, svd, tsvd, lrmf, eigen, nmf; got "lu"',
    ],
    [
      '{"peft_type":"DEFT","decomposition_method":"qr","scaling":"projector"}',
      'scaling: decomposition_method "qr" has no such scaling; got "projector"',
    ],
    ['{"peft_type":"DEFT","bias":"all"}', 'bias: not supported; expected "none"; got "all"'],
    ['{"peft_type":"DEFT","fan_in_fan_out":true}', 'fan_in_fan_out: not supported; expected false; got true'],
    [
      '{"peft_type":"DEFT","modules_to_save":["x"]}',
      'modules_to_save: not supported; expected null; got ["x"]',
    ],
    [
      '{"peft_type":"DEFT","layers_to_transform":["1"],"target_modules":["q"]}',
      'layers_to_transform: expected a number of a block or a list of them; got ["1"]',
    ],
    [
      '{"peft_type":"DEFT","layers_to_transform":1,"target_modules":"q"}',
      'layers_to_transform: expected a list of target_modules beside it; got 1',
    ],
    [
      '{"peft_type":"DEFT","layers_pattern":"h"}',
      'layers_pattern: expected layers_to_transform beside it; got "h"',
    ],
    [
      '{"peft_type":"DEFT","layers_pattern":"(h+)+","layers_to_transform":1,"target_modules":["q"]}',
      'layers_pattern: expected a name of a list of blocks or a list of names; got "(h+)+"',
    ],
    ['{"peft_type":"DEFT","deft_dropout":1}', 'deft_dropout: expected a number in [0, 1); got 1'],
    ['{"peft_type":"DEFT","r":0}', 'r: expected a whole number >= 1; got 0'],
    ['{"peft_type":"DEFT","r":2.5}', 'r: expected a whole number >= 0; got 2.5'],
    ['{"peft_type":"DEFT","alpha":-1}', 'alpha: expected null or a number >= 0; got -1'],
    ['{"peft_type":"DEFT","para":"yes"}', 'para: expected true or false; got "yes"'],
    [
      '{"peft_type":"DEFT","target_modules":[1]}',
      'target_modules: expected a list of names, a regular expression or null; got [1]',
    ],
    ['{"peft_type":"LORA","use_dora":true}', 'use_dora: not supported; expected false; got true'],
    [
      '{"peft_type":"LORA","rank_pattern":{"a":0}}',
      'rank_pattern: expected names with whole numbers >= 1; got {"a":0}',
    ],
    ['{"peft_type":"LORA","alpha_pattern":[1]}', 'alpha_pattern: expected names with numbers > 0; got [1]'],
    [
      '{"peft_type":"LORA","rank_pattern":{"(?=a)":2}}',
      'rank_pattern: pattern "(.*\\\\.)?((?=a))": unsupported group at character 11; got {"(?=a)":2}',
    ],
    [
      '{"peft_type":"LORA","init_lora_weights":"pissa"}',
      'init_lora_weights: not supported; expected true, false or "gaussian"; got "pissa"',
    ],
    ['{"peft_type":"LORA","lora_alpha":0}', 'lora_alpha: expected a number > 0; got 0'],
  ])('%s is refused by name', (text, message) => {
    expect(() => readPeftConfig('file', text)).toThrow(new ConfigError(`file: ${message}`));
  });

  it.each(['', '[]', '{"peft_type":"DEFT"', '{"r":1,"r":2}', 'null'])(
    '%j is refused as malformed',
    (text) => {
      expect(() => readPeftConfig('file', text)).toThrow(ConfigError);
    },
  );
});

describe('files that do not fit', () => {
  let files: PeftFiles;
  let tensors: Record<string, HostTensor>;
  beforeEach(async () => {
    files = await writePeft(await trained(deft({ rank: 2, projector: 'qr' })));
    const file = await openSafetensors(memorySource('m', files.weights));
    tensors = {};
    for (const name of file.names) tensors[name] = await file.read(name);
  });

  /** Loading fails so, and the model is as it was. */
  async function expectRefusal(changed: Partial<PeftFiles>, message: string | RegExp): Promise<void> {
    const model = freshModel();
    const before = await values(model);
    await expect(loadPeft(model, { ...files, ...changed }, { name: 'dog' })).rejects.toThrow(message);
    expect(await values(model)).toEqual(before);
    expect([...namedParameters(model).values()].every(({ trainable }) => trainable)).toBe(true);
  }

  const P = 'base_model.model.to_q.deft_P';

  it.each<[string, (tensors: Record<string, HostTensor>) => Record<string, HostTensor>, string]>([
    [
      'a missing tensor',
      ({ [P]: _, ...rest }) => rest,
      'tensor "base_model.model.to_q.deft_P": it is missing',
    ],
    [
      'a wrong shape',
      (all) => ({ ...all, [P]: f32([6, 3]) }),
      `tensor "${P}": its shape does not fit the layer and config; expected [6, 2]; got [6, 3]`,
    ],
    ['NaN', (all) => ({ ...all, [P]: f32([6, 2], Number.NaN) }), `tensor "${P}": it holds NaN or infinity`],
    [
      'a tensor of another method',
      (all) => ({ ...all, 'base_model.model.to_q.lora_A.weight': f32([2, 5]) }),
      'tensor "base_model.model.to_q.lora_A.weight": the config has no use for it',
    ],
    [
      'a layer that is not there',
      (all) => ({ ...all, 'base_model.model.to_k.deft_P': f32([6, 2]) }),
      'tensor "base_model.model.to_k.deft_P": the model has no Linear or Conv2d layer of that path',
    ],
    [
      'a strange key',
      (all) => ({ ...all, 'to_q.weight': f32([6, 5]) }),
      'tensor "to_q.weight": expected a key like base_model.model.<layer>.deft_P',
    ],
    [
      'a layer that is not targeted',
      (all) => ({
        ...all,
        'base_model.model.conv_in.deft_P': f32([4, 2]),
        'base_model.model.conv_in.deft_R': f32([2, 18]),
      }),
      "there are tensors for conv_in, which the config's target_modules do not include",
    ],
    [
      'a targeted layer without tensors',
      (all) => Object.fromEntries(Object.entries(all).filter(([key]) => !key.includes('to_q'))),
      "the config's target_modules include to_q, for which there are no tensors",
    ],
    ['no tensors', () => ({}), 'it holds no tensors'],
  ])('%s is refused by name', async (_name, change, problem) => {
    await expectRefusal(
      { weights: writeSafetensors(change(tensors)) },
      `safetensors: dog: adapter_model.safetensors: ${problem}`,
    );
  });

  it('a truncated file is refused', async () => {
    await expectRefusal({ weights: files.weights.slice(0, -4) }, /truncated/);
  });

  it('a hostile pattern of targets is refused or harmless', async () => {
    const config = JSON.stringify({
      ...(JSON.parse(files.config) as object),
      target_modules: '(?=(a+)+$).*',
    });
    await expectRefusal(
      { config },
      /^dog: adapter_config.json: target_modules: pattern .*: unsupported group at /,
    );
  });

  it('a name that is taken is refused', async () => {
    const model = freshModel();
    await loadPeft(model, files);
    await expect(loadPeft(model, files)).rejects.toThrow(
      'attach: to_q has an adapter named "default" already',
    );
  });

  it('writing without an adapter is refused', async () => {
    await expect(writePeft(freshModel())).rejects.toThrow(
      'writePeft: no adapter is named "default"; there are: none',
    );
  });
});

describe('folders', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'deft-peft-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('hold two files, come back, and are replaced whole', async () => {
    const model = await trained(deft({ rank: 2 }));
    const place = join(folder, 'a', 'b');
    await savePeftFolder(place, model);
    await savePeftFolder(place, model);
    expect(readdirSync(place).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors']);
    const again = freshModel();
    await loadPeftFolder(place, again);
    expect(await values(again)).toEqual(await values(model));
  });

  it('are named in messages', async () => {
    await savePeftFolder(folder, await trained(deft({ rank: 2 })));
    const path = join(folder, 'adapter_model.safetensors');
    writeFileSync(path, readFileSync(path).subarray(0, 100));
    await expect(loadPeftFolder(folder, freshModel())).rejects.toThrow(SafetensorsError);
    await expect(loadPeftFolder(folder, freshModel())).rejects.toThrow(folder);
  });
});
