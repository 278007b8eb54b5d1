import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { changeOf, type OfficialFiles, readOfficial, type StoredAdapter } from '@deftjs/deft';
import {
  add,
  type HostTensor,
  memorySource,
  openTorchFile,
  read,
  referenceDevice,
  setDevice,
  tensor,
  torchTensors,
} from '@deftjs/tensor';
import { beforeAll, describe, expect, it } from 'vitest';
import { relativeError } from './toy.ts';

beforeAll(() => setDevice(referenceDevice()));

const root = new URL('official/', import.meta.url).pathname;
const open = (path: string) => openTorchFile(memorySource(path, readFileSync(path)));

async function filesOf(name: string): Promise<OfficialFiles> {
  const folder = join(root, name);
  const kind = existsSync(join(folder, 'para_rank_state.bin')) ? 'para' : 'injection';
  const beginning = kind === 'para' ? 'para_rank' : 'knowledge_injection';
  const state = torchTensors(await open(join(folder, `${beginning}_state.bin`)));
  return { kind, state, config: (await open(join(folder, `${beginning}_config.bin`))).root };
}

/** The files with some tensors and layer configs changed. */
async function changed(
  name: string,
  tensors: (all: Record<string, HostTensor>) => Record<string, HostTensor>,
  config: (layer: Record<string, unknown>) => Record<string, unknown> = (layer) => layer,
): Promise<OfficialFiles> {
  const files = await filesOf(name);
  const all: Record<string, HostTensor> = {};
  for (const key of files.state.names) all[key] = await files.state.read(key);
  const values = tensors(all);
  const layers = (files.config as ReadonlyMap<string, ReadonlyMap<string, ReadonlyMap<string, unknown>>>).get(
    'layer_configs',
  )!;
  return {
    ...files,
    state: { ...files.state, names: Object.keys(values), read: async (key) => values[key]! },
    config: {
      layer_configs: Object.fromEntries(
        Array.from(layers, ([path, layer]) => [path, config(Object.fromEntries(layer))]),
      ),
    } as OfficialFiles['config'],
  };
}

const read1 = (files: OfficialFiles): Promise<StoredAdapter> => readOfficial(files, { part: 'transformer' });

describe("the authors' checkpoints", () => {
  it.each([
    'qr',
    'qr-cached',
    'svd-cached',
    'relu-gate',
    'additive',
    'para-qr',
    'para-sparse-tsvd',
    'para-nmf',
    'para-eigen',
  ])('%s: give the weights that their code computes', async (name) => {
    const expected = torchTensors(await open(join(root, name, 'expected.bin')));
    const { layers } = await read1(await filesOf(name));
    expect(layers.length).toBe(expected.names.length / 2);
    for (const layer of layers) {
      const base = await expected.read(`base/${layer.path}.weight`);
      const W0 = tensor(base.data as Float32Array, base.shape);
      const { change } = await changeOf(layer, W0);
      const merged = await read(add(W0, change.delta(W0)));
      const wanted = (await expected.read(`merged/${layer.path}.weight`)).data;
      expect(relativeError(merged, wanted), layer.path).toBeLessThan(2e-6);
    }
  });

  it('find their layers by their paths, or below "llm"', async () => {
    const files = await filesOf('para-qr');
    const { layers } = await readOfficial(files, {
      part: 'transformer',
      layers: new Map([['layers.0.self_attn.o_proj', [7, 5]]]),
    });
    expect(layers[0]).toMatchObject({ part: 'transformer', path: 'layers.0.self_attn.o_proj' });
    await expect(
      readOfficial(await filesOf('para-qr'), {
        part: 't',
        layers: new Map([['layers.0.attn.o_proj', [7, 5]]]),
      }),
    ).rejects.toThrow(
      'no Linear or Conv2d layer "llm.layers.0.self_attn.o_proj"; nearest: layers.0.attn.o_proj',
    );
    await expect(
      readOfficial(await filesOf('para-qr'), {
        part: 't',
        layers: new Map([['layers.0.self_attn.o_proj', [7, 6]]]),
      }),
    ).rejects.toThrow('out_features and in_features do not fit the layer; expected [7, 6]; got [7, 5]');
  });

  it('of singular vectors without their signs are refused', async () => {
    await expect(filesOf('svd').then(read1)).rejects.toThrow(
      'qkv_proj: decomposition_method: the file has no Q_P_cached, without which nobody knows the signs',
    );
  });

  const path = 'llm.layers.0.self_attn.o_proj';

  it.each<[string, Parameters<typeof changed>, string]>([
    [
      'a missing tensor',
      ['qr', ({ [`${path}.P`]: _, ...rest }) => rest],
      `tensor "${path}.P": it is missing`,
    ],
    [
      'a tensor of no use',
      ['qr', (all) => ({ ...all, 'x.P': all[`${path}.P`]! })],
      'tensor "x.P": no layer of the config has it',
    ],
    [
      'another rank',
      ['qr', (all) => all, (layer) => ({ ...layer, r: 3 })],
      '.P": its shape does not fit the layer and config; expected [9, 3]; got [9, 2]',
    ],
    [
      'NaN',
      [
        'qr',
        (all) => ({
          ...all,
          [`${path}.P`]: { ...all[`${path}.P`]!, data: new Float32Array(10).fill(Number.NaN) },
        }),
      ],
      `tensor "${path}.P": it holds NaN or infinity`,
    ],
    [
      'None for "None", which their code cannot run either',
      ['qr', (all) => all, (layer) => ({ ...layer, decomposition_method: null })],
      'decomposition_method is missing; expected one of qr, svd, None',
    ],
    [
      'another method',
      ['qr', (all) => all, (layer) => ({ ...layer, injection_method: 'lorapara' })],
      'injection_method: expected one of project_replace, residual_projection, additive_update; got "lorapara"',
    ],
    [
      'an adaptive rank',
      ['para-qr', (all) => all, (layer) => ({ ...layer, adaptive_rank: true })],
      'adaptive_rank: not supported; expected false; got true',
    ],
  ])('%s is refused by name', async (_name, args, problem) => {
    await expect(changed(...args).then(read1)).rejects.toThrow(problem);
  });
});
