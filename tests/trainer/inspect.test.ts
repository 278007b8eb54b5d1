import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeSafetensorsFile } from '@deftjs/models/node';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { runProgram } from '../../packages/trainer/src/commands/program.ts';

const golden = new URL('../golden/', import.meta.url).pathname;

let folder: string;
let lines: string[];
let errors: string[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'deft-inspect-'));
  lines = [];
  errors = [];
  vi.spyOn(console, 'log').mockImplementation((line) => lines.push(line));
  vi.spyOn(console, 'error').mockImplementation((line) => errors.push(line));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const inspect = (...args: string[]) => runProgram(['inspect', ...args], '0');

describe('deft inspect', () => {
  it('prints type, shape, norm and name of each tensor of a file, and the same as JSON', async () => {
    const file = join(folder, 'w.safetensors');
    await writeSafetensorsFile(file, {
      wide: { dtype: 'f32', shape: [2, 2], data: Float32Array.of(1, 2, 2, Number.NaN) },
      half: { dtype: 'f16', shape: [1], data: Uint16Array.of(0x4000) },
      '\u001b[2J': { dtype: 'i32', shape: [], data: Int32Array.of(-3) },
    });
    expect(await inspect(file, '--json', join(folder, 'w.json'))).toBe(0);
    expect(lines).toEqual([
      'F32   [2, 2]                 norm 3.00000      wide  1 not finite',
      'I32   []                     norm 3.00000      "\\u001b[2J"',
      'F16   [1]                    norm 2.00000      half',
      'w.safetensors: 3 tensors, 6 parameters, F16, F32, I32, 22 bytes',
    ]);
    const { contents } = JSON.parse(readFileSync(join(folder, 'w.json'), 'utf8'));
    expect(contents[0].tensors[0]).toEqual({
      name: 'wide',
      dtype: 'F32',
      shape: [2, 2],
      bytes: 16,
      norm: 3,
      notFinite: 1,
    });
  });

  it('says what a model, the parts of a pipeline and an adapter are', async () => {
    expect(await inspect(join(golden, 'vae-tiny'))).toBe(0);
    expect(lines.at(-1)).toBe('vae-tiny: AutoencoderKL, 124 tensors, 167,959 parameters, F32, 671.8 kB');
    lines = [];
    expect(await inspect(join(golden, 'sd-tiny-pipeline'))).toBe(0);
    expect(lines.map((line) => line.split(',')[0])).toEqual([
      'text_encoder: CLIPTextModel',
      'unet: UNet2DConditionModel',
      'vae: AutoencoderKL',
    ]);
    lines = [];
    expect(await inspect(join(golden, 'peft-deft-qr'))).toBe(0);
    expect(lines).toHaveLength(5);
    expect(lines.at(-1)).toMatch(/^peft-deft-qr: DEFT r 4 on fc1, fc2, 4 tensors, 464 parameters, F32/);
  });

  // The rows of shared/reference/reliability.md section 4.1 that are files to look at all the same.
  const accepted = new Set([17, 43, 50, 51, 52, 53, 54, 57, 59, 62, 64]);
  const corpus = join(golden, 'corpus/safetensors');
  it.each(readdirSync(corpus).sort())(
    'of the malformed file %s is an answer or one clear line',
    async (name) => {
      const status = await inspect(join(corpus, name));
      if (accepted.has(Number.parseInt(name, 10))) expect([status, errors]).toEqual([0, []]);
      else {
        expect(status).toBe(1);
        expect(errors).toHaveLength(1);
        expect(errors[0]).toMatch(/^deft: safetensors: /);
        expect(errors[0]).toContain(name);
        expect(errors[0]).not.toContain('\n');
      }
    },
  );

  it('refuses what holds no tensors', async () => {
    expect(await inspect(join(folder, 'none'))).toBe(2);
    expect(await inspect(folder)).toBe(2);
    expect(errors).toEqual([
      `deft: ${join(folder, 'none')}: no such file or folder`,
      `deft: ${folder}: neither a model nor an adapter; expected config.json or adapter_model.safetensors`,
    ]);
  });

  it('writes random models into new folders only, in layouts and types that there are', async () => {
    writeFileSync(join(folder, 'mine'), '');
    expect(await inspect(folder, '--make-random', 'sd15')).toBe(2);
    expect(await inspect(join(folder, 'x'), '--make-random', 'sd9')).toBe(2);
    expect(await inspect(join(folder, 'x'), '--make-random', 'sd15', '--dtype', 'f8')).toBe(2);
    expect(await inspect(join(folder, 'x'), '--dtype', 'f16')).toBe(2);
    expect(errors).toEqual([
      `deft: ${folder}: is there already; give a new folder`,
      expect.stringMatching(/^deft: --make-random: expected sd15, sdxl.*; got "sd9"$/),
      'deft: --dtype: expected f16 or f32; got "f8"',
      'deft: --dtype: only with --make-random',
    ]);
    expect(readdirSync(folder)).toEqual(['mine']);
  });
});
