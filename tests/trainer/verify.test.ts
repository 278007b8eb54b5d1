import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readSafetensorsFile, writeSafetensorsFile } from '@deftjs/models/node';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { runProgram } from '../../packages/trainer/src/commands/program.ts';

const golden = new URL('../golden/', import.meta.url).pathname;
/** Cases that take no time. */
const quick = ['clip-text-tiny', 'peft-lora', 'schedulers'];

let folder: string;
let lines: string[];
let errors: string[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'deft-verify-'));
  lines = [];
  errors = [];
  vi.spyOn(console, 'log').mockImplementation((line) => lines.push(line));
  vi.spyOn(console, 'error').mockImplementation((line) => errors.push(line));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const verify = (...args: string[]) => runProgram(['verify', ...args, '--device', 'wasm'], '0');

function copyCase(name: string): void {
  cpSync(join(golden, name), join(folder, name), { recursive: true });
}

function copyCases(): void {
  quick.forEach(copyCase);
  cpSync(join(golden, 'tokenizer-cases.json'), join(folder, 'tokenizer-cases.json'));
  cpSync(join(golden, 'sd-tiny-pipeline/tokenizer'), join(folder, 'vocabulary/tokenizer'), {
    recursive: true,
  });
}

/** Changes one number of a tensor in a file by a thousandth of the largest. */
async function nudge(file: string, name: string): Promise<void> {
  const tensors = await readSafetensorsFile(file);
  const { data } = tensors.get(name)!;
  data[0]! += Math.max(...Array.from(data, Math.abs)) / 500;
  await writeSafetensorsFile(file, Object.fromEntries(tensors));
}

describe('deft verify', () => {
  it('prints one line for each check of each case in a folder, and the same as JSON', async () => {
    copyCases();
    const json = join(folder, 'result.json');
    expect(await verify(folder, '--json', json)).toBe(0);
    for (const line of lines) expect(line).toMatch(/^[\w-]+ +[\w./-]+ +\d\.\d\de[+-]\d+ {2}ok$/);
    const named = (name: string) => lines.filter((line) => line.startsWith(`${name} `));
    for (const name of [...quick, 'tokenizer-cases']) expect(named(name), name).not.toEqual([]);
    const { ok, device, checks } = JSON.parse(readFileSync(json, 'utf8'));
    expect([ok, device]).toEqual([true, 'wasm']);
    expect(checks).toHaveLength(lines.length);
    expect(checks[0]).toMatchObject({ case: 'clip-text-tiny', ok: true, bound: 1e-4 });
  });

  it.each([
    ['a recorded output', 'clip-text-tiny/case.safetensors', 'out/pooled', /^clip-text-tiny +pooled .*FAIL$/],
    [
      'a weight',
      'clip-text-tiny/model.safetensors',
      'final_layer_norm.weight',
      /^clip-text-tiny +pooled .*FAIL$/,
    ],
    ['a loss of the training', 'peft-lora/case.safetensors', 'losses', /^peft-lora +losses .*FAIL$/],
    ['a sample of a sampler', 'schedulers/case.safetensors', 'euler/x3', /^schedulers +euler\/x3 .*FAIL$/],
  ])('fails when %s is off by a five-hundredth', async (_, file, name, failure) => {
    copyCase(file.split('/')[0]!);
    await nudge(join(folder, file), name);
    expect(await verify(folder)).toBe(1);
    expect(lines.filter((line) => failure.test(line))).toHaveLength(1);
  });

  it.each(['case.safetensors', 'model.safetensors', 'config.json'])(
    'fails, and says why, when a case has lost its %s',
    async (file) => {
      copyCase('clip-text-tiny');
      rmSync(join(folder, 'clip-text-tiny', file));
      expect(await verify(folder)).toBe(1);
      const failures = lines.filter((line) => line.includes('FAIL'));
      expect(failures).toHaveLength(1);
      expect(failures[0]).toMatch(/^clip-text-tiny +case +Infinity {2}FAIL {2}\(.+\)$/);
    },
  );

  it('refuses a folder without cases', async () => {
    expect(await verify(folder)).toBe(2);
    expect(errors).toEqual([`deft: ${folder}: no golden cases here`]);
    expect(await verify(join(folder, 'none'))).toBe(2);
    expect(errors.at(-1)).toBe(`deft: ${join(folder, 'none')}: no such folder`);
  });
});
