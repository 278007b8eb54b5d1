import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Module } from '@deftjs/autograd/nn';
import { openDiT, openFlux, openOmniGen, openStableDiffusionXL } from '@deftjs/models/node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { pipelines, valuesOf, writePipeline } from '../support/pipelineFolders.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'deft-pipeline-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const openers: Readonly<Record<string, (folder: string) => Promise<Module>>> = {
  StableDiffusionXLPipeline: openStableDiffusionXL,
  FluxPipeline: openFlux,
  OmniGenPipeline: openOmniGen,
  DiTPipeline: openDiT,
};

describe.each(Object.keys(pipelines))('a folder of a %s', (name) => {
  const open = openers[name]!;

  it('gives every part its weights', async () => {
    const written = await writePipeline(folder, name);
    expect(await valuesOf(await open(folder))).toEqual(written);
  });

  it('of another class is refused by name', async () => {
    await writePipeline(folder, name);
    writeFileSync(join(folder, 'model_index.json'), '{"_class_name": "KandinskyPipeline"}');
    await expect(open(folder)).rejects.toThrow(
      `model_index.json: _class_name: expected ${name}; got "KandinskyPipeline"`,
    );
  });
});
