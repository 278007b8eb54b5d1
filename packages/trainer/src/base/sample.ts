/** What `deft sample` does. */
import fs from 'node:fs';
import { join } from 'node:path';
import { setAdapterStrength } from '@deftjs/deft';
import { loadPeftFolder } from '@deftjs/deft/node';
import { type DeviceName, openDevice } from '@deftjs/tensor/node';
import { readTrainConfig, shippedModel } from '../config/index.ts';
import { gridPng } from '../report/index.ts';
import { writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { drawPrompts } from './draw.ts';
import { loadBase } from './folder.ts';
import { promptProblem } from './prompt.ts';
import type { TextToImage } from './textToImage.ts';

export interface SampleRequest {
  readonly prompt: readonly string[];
  readonly seed: readonly number[];
  readonly steps: number;
  readonly guidance: number;
  readonly strength: number;
  readonly device: string;
  readonly out: string;
}

const deviceNames: readonly DeviceName[] = ['auto', 'webgpu', 'wasm', 'reference'];

/** Draws one sheet: a row for each prompt, a column for each seed. @throws {UserError} */
export async function sample(name: string, request: SampleRequest): Promise<void> {
  const device = deviceNames.find((known) => known === request.device);
  if (device === undefined) {
    throw new UserError(`--device: expected ${deviceNames.join(', ')}; got "${request.device}"`, 2);
  }
  for (const prompt of request.prompt) {
    const problem = promptProblem(prompt);
    if (problem) throw new UserError(`--prompt "${prompt}": ${problem}`, 2);
  }
  const opened = await openDevice(device);
  console.error(`deft: ${opened.why}`);
  const model = await openModel(name, request.strength);
  const drawn = await drawPrompts(model, {
    prompts: request.prompt,
    seeds: request.seed,
    steps: request.steps,
    guidanceScale: request.guidance,
    device: opened.device,
  });
  const sheet = await gridPng(
    drawn.flatMap(({ pictures }) => pictures),
    {
      columns: request.seed.length,
      rowLabels: request.prompt,
    },
  );
  writeFileAtomically(request.out, sheet);
  console.error(`deft: ${request.out}`);
}

/** The base in a folder or shipped under a name, or a run's base with its adapter. */
async function openModel(name: string, strength: number): Promise<TextToImage> {
  const adapter = join(name, 'adapter');
  if (!fs.existsSync(adapter)) return loadBase(shippedModel(name) ?? name);
  const model = await loadBase(readTrainConfig(join(name, 'config.yaml')).base);
  await loadPeftFolder(adapter, model.unet);
  setAdapterStrength(model.unet, strength);
  return model;
}
