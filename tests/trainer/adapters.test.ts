import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { namedParameters } from '@deftjs/autograd/nn';
import { merge } from '@deftjs/deft';
import { loadPeftFolder } from '@deftjs/deft/node';
import { UNet2DConditionModel } from '@deftjs/models';
import { openWeights, readConfigFile, readSafetensorsFile, writeSafetensorsFile } from '@deftjs/models/node';
import { asFloat32, type HostTensor, read, referenceDevice, setDevice, tensor } from '@deftjs/tensor';
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { runProgram } from '../../packages/trainer/src/commands/program.ts';
import { relativeError } from '../deft/toy.ts';

const golden = (name: string): string => new URL(`../golden/${name}`, import.meta.url).pathname;
const unet = golden('unet-sd15-tiny');

beforeAll(() => setDevice(referenceDevice()));

let folder: string;
let lines: string[];
let errors: string[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'deft-adapters-'));
  lines = [];
  errors = [];
  vi.spyOn(console, 'log').mockImplementation((line) => lines.push(line));
  vi.spyOn(console, 'error').mockImplementation((line) => errors.push(line));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const run = (...args: string[]) => runProgram([...args, '--device', 'reference'], '0');
const at = (name: string): string => join(folder, name);

async function weightsOf(model: string): Promise<Map<string, HostTensor>> {
  await using weights = await openWeights(model);
  return new Map(
    await Promise.all(weights.names.map(async (name) => [name, await weights.read(name)] as const)),
  );
}

/** Every weight of the second folder is that of the first to rounding. */
async function expectEqualWeights(found: string, wanted: string): Promise<void> {
  const [a, b] = [await weightsOf(found), await weightsOf(wanted)];
  expect([...a.keys()].sort()).toEqual([...b.keys()].sort());
  for (const [name, { data }] of b) expect(relativeError(a.get(name)!.data, data), name).toBeLessThan(1e-5);
}

describe('deft merge', () => {
  it('folds a PEFT adapter into the weights that it is on, and changes nothing else', async () => {
    const adapter = golden('peft-unet-deft-relu');
    expect(await run('merge', adapter, '--base', unet, '--out', at('merged')), errors.join()).toBe(0);
    const model = new UNet2DConditionModel(await readConfigFile(join(unet, 'config.json')));
    const before = await weightsOf(unet);
    for (const [path, parameter] of namedParameters(model)) {
      parameter.value = tensor(asFloat32(before.get(path)!), parameter.shape);
    }
    await loadPeftFolder(adapter, model);
    using merged = await merge(model);
    const after = await weightsOf(at('merged'));
    for (const [path, { value }] of namedParameters(model)) {
      const found = after.get(path)!.data;
      if (merged.layers.includes(path.replace(/\.weight$/, '')) && path.endsWith('.weight')) {
        expect(relativeError(found, await read(value)), path).toBeLessThan(1e-6);
      } else expect(found, path).toEqual(before.get(path)!.data);
    }
    const report = JSON.parse(readFileSync(at('merged/merge_report.json'), 'utf8'));
    expect(report.layers.map(({ path }: { path: string }) => path).sort()).toEqual([...merged.layers].sort());
    expect(report.difference).toBeLessThan(1e-5);
    expect(report.difference).toBeGreaterThan(0);
    for (const { changeNorm, weightNorm } of report.layers)
      expect(changeNorm / weightNorm).toBeGreaterThan(1e-3);
    expect(lines.at(-1)).toMatch(
      /merged: \d+ layers merged, outputs of every layer within \S+ of the adapter's$/,
    );
    expect(readFileSync(at('merged/config.json'), 'utf8')).toBe(
      readFileSync(join(unet, 'config.json'), 'utf8'),
    );
  });

  it('takes a pipeline, and copies the parts without an adapter', async () => {
    const pipeline = golden('sd-tiny-pipeline');
    const key = 'unet.mid_block.attentions.0.proj_in';
    const { shape } = (await weightsOf(join(pipeline, 'unet'))).get(`${key.slice(5)}.weight`)!;
    await writeSafetensorsFile(at('a.safetensors'), {
      [`${key}.lora_A.weight`]: {
        dtype: 'f32',
        shape: [1, shape[1]!],
        data: new Float32Array(shape[1]!).fill(0.5),
      },
      [`${key}.lora_B.weight`]: { dtype: 'f32', shape: [shape[0]!, 1], data: new Float32Array(shape[0]!) },
    });
    expect(
      await run('merge', at('a.safetensors'), '--base', `./${relative('.', pipeline)}`, '--out', at('out')),
      errors.join(),
    ).toBe(0);
    expect(lines.at(-1)).toBe('warning: the adapter changes next to nothing: mean |dW|/|W| is about 0');
    await expectEqualWeights(at('out/unet'), join(pipeline, 'unet'));
    expect(readdirSync(at('out')).sort()).toEqual([...readdirSync(pipeline), 'merge_report.json'].sort());
  });

  it("merges SVDiff's shifts, of norms too", async () => {
    const before = await weightsOf(unet);
    const [path, norm] = ['mid_block.attentions.0.proj_in', 'conv_norm_out'];
    const k = before.get(`${path}.weight`)!.shape[0]!;
    await writeSafetensorsFile(at('spectral_shifts.safetensors'), {
      [`${path}.delta`]: { dtype: 'f32', shape: [k], data: new Float32Array(k).fill(0.25) },
      [`${norm}.delta`]: { dtype: 'f32', shape: [1], data: Float32Array.of(1) },
    });
    expect(await run('merge', folder, '--base', unet, '--out', at('out')), errors.join()).toBe(0);
    const { layers } = JSON.parse(readFileSync(at('out/merge_report.json'), 'utf8'));
    // A shift of every singular value by d is a change of Frobenius norm d sqrt(k).
    expect(layers.find((one: { path: string }) => one.path === path).changeNorm).toBeCloseTo(
      0.25 * Math.sqrt(k),
      4,
    );
    const [w, moved] = [
      before.get(`${norm}.weight`)!.data,
      (await weightsOf(at('out'))).get(`${norm}.weight`)!.data,
    ];
    const size = Math.hypot(...(w as Float32Array));
    moved.forEach((value, i) => {
      expect(value).toBeCloseTo(w[i]! * (1 + 1 / size), 5);
    });
  });

  it("merges Custom Diffusion's weights", async () => {
    const path = 'mid_block.attentions.0.transformer_blocks.0.attn2.to_k';
    const { shape, data } = (await weightsOf(unet)).get(`${path}.weight`)!;
    const values = Float32Array.from(data, (value) => value + 1);
    const key = path.replace(/to_k$/, 'processor.to_k_custom_diffusion.weight');
    const file = at('pytorch_custom_diffusion_weights.safetensors');
    await writeSafetensorsFile(file, { [key]: { dtype: 'f32', shape, data: values } });
    expect(await run('merge', file, '--base', unet, '--out', at('out')), errors.join()).toBe(0);
    expect(relativeError((await weightsOf(at('out'))).get(`${path}.weight`)!.data, values)).toBeLessThan(
      1e-6,
    );
  });

  it.each<[string, string[], RegExp]>([
    ['no adapter', ['nowhere', '--base', unet], /^deft: nowhere: no such file or folder$/],
    [
      'no base',
      [golden('peft-unet-lora'), '--base', golden('linalg')],
      /expected a folder with model_index.json or config.json$/,
    ],
    ['another base', [golden('peft-unet-lora'), '--base', golden('unet-sdxl-tiny')], /^deft: safetensors: /],
    [
      'a folder without an adapter',
      [unet, '--base', unet],
      /no adapter is here; expected adapter_config.json/,
    ],
  ])('with %s: one line, and no folder', async (_name, args, problem) => {
    expect(await run('merge', ...args, '--out', at('out'))).not.toBe(0);
    expect(errors.filter((line) => !/^deft: (reference|wasm)/.test(line)).join('\n')).toMatch(problem);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('never writes over what is there', async () => {
    expect(await run('merge', golden('peft-unet-lora'), '--base', unet, '--out', folder)).toBe(2);
    expect(errors).toEqual([`deft: ${folder}: is there already; give another name`]);
  });
});

describe('deft inspect --base', () => {
  it('prints the format, and the rank and change of every layer', async () => {
    const inspect = (path: string) =>
      runProgram(['inspect', path, '--base', unet, '--json', at('i.json')], '0');
    expect(await inspect(golden('peft-unet-lora')), errors.join()).toBe(0);
    expect(lines.at(-1)).toMatch(/peft-unet-lora: PEFT, method lora, \d+ layers$/);
    expect(lines[0]).toMatch(/^unet\.\S+ {2}rank 4 {2}\|dW\| [\d.]+ {2}\|dW\|\/\|W\| \d\.\d\de[+-]\d+$/);
    const { layers } = JSON.parse(readFileSync(at('i.json'), 'utf8'));
    expect(layers).toHaveLength(lines.length - 1);
  });
});

describe('deft convert', () => {
  it('takes DEFT to kohya, to diffusers, to PEFT as DEFT and as LoRA: merged, all are the same', async () => {
    const adapter = golden('peft-unet-deft-relu');
    const steps = [
      ['convert', adapter, at('k.safetensors'), '--to', 'kohya', '--base', unet],
      ['convert', at('k.safetensors'), at('d.safetensors'), '--to', 'diffusers', '--base', unet],
      ['convert', at('d.safetensors'), at('deft'), '--to', 'peft', '--as', 'deft', '--base', unet],
      ['convert', at('deft'), at('lora'), '--to', 'peft', '--as', 'lora', '--base', unet],
      ['merge', adapter, '--base', unet, '--out', at('one')],
      ['merge', at('lora'), '--base', unet, '--out', at('other')],
    ];
    for (const step of steps) expect(await run(...step), errors.join()).toBe(0);
    await expectEqualWeights(at('other'), at('one'));
    const config = JSON.parse(readFileSync(at('deft/adapter_config.json'), 'utf8'));
    expect(config).toMatchObject({ peft_type: 'DEFT', decomposition_method: 'qr', alpha: null });
  }, 60_000);

  it('keeps LoRA bit by bit, without a base where names say all', async () => {
    const adapter = golden('peft-unet-lora');
    expect(await run('convert', adapter, at('d.safetensors'), '--to', 'diffusers'), errors.join()).toBe(0);
    const wanted = await readSafetensorsFile(join(adapter, 'adapter_model.safetensors'));
    const found = await readSafetensorsFile(at('d.safetensors'));
    for (const [key, { data }] of wanted) {
      expect(found.get(key.replace('base_model.model.', 'unet.'))!.data, key).toEqual(data);
    }
    expect(found.size).toBe(wanted.size);
  });

  it.each<[string, string[], RegExp]>([
    [
      'kohya without a base',
      ['peft-unet-lora', 'x.safetensors', '--to', 'kohya'],
      /come from the whole model; give --base$/,
    ],
    [
      'DEFT to LoRA without a base',
      ['peft-unet-deft-qr', 'x.safetensors', '--to', 'diffusers'],
      /depends on the base model's weights; give --base$/,
    ],
    [
      'an unknown format',
      ['peft-unet-lora', 'x', '--to', 'lycoris'],
      /--to: expected peft, diffusers, kohya; got "lycoris"$/,
    ],
    [
      'a file without its ending',
      ['peft-unet-lora', 'x', '--to', 'kohya'],
      /expected a name that ends with .safetensors$/,
    ],
    [
      '--as for a file',
      ['peft-unet-lora', 'x.safetensors', '--to', 'kohya', '--as', 'lora'],
      /--as: expected lora or deft, with --to peft/,
    ],
  ])('%s: one line, and nothing written', async (_name, [input, output, ...rest], problem) => {
    expect(await run('convert', golden(input!), at(output!), ...rest)).toBe(2);
    expect(errors.at(-1)).toMatch(problem);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('refuses what was exported from another base', async () => {
    const adapter = golden('peft-unet-deft-qr');
    expect(await run('convert', adapter, at('k.safetensors'), '--to', 'kohya', '--base', unet)).toBe(0);
    const weights = join(unet, 'diffusion_pytorch_model.safetensors');
    const moved = await readSafetensorsFile(weights);
    const { data } = moved.get('mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight')!;
    data[0]! += 1;
    const other = mkdtempSync(join(tmpdir(), 'deft-base-'));
    try {
      writeFileSync(join(other, 'config.json'), readFileSync(join(unet, 'config.json')));
      await writeSafetensorsFile(
        join(other, 'diffusion_pytorch_model.safetensors'),
        Object.fromEntries(moved),
      );
      expect(await run('merge', at('k.safetensors'), '--base', other, '--out', at('out'))).toBe(1);
      expect(errors.at(-1)).toMatch(/it was made for another base, on which alone it is exact/);
      expect(existsSync(at('out'))).toBe(false);
    } finally {
      rmSync(other, { recursive: true });
    }
  });
});
