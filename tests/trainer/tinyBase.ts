/** A base too small to draw anything, and jobs on it. */
import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type PainterConfig, readPretrainConfig, readTrainConfig, type TrainConfig } from '@deftjs/trainer';
import { saveBase } from '../../packages/trainer/src/base/folder.ts';
import type { WorldModel } from '../../packages/trainer/src/base/world.ts';
import { newModel } from '../../packages/trainer/src/pretrain/pretrain.ts';

/** The base of tests/e2e/tiny.yaml with its first weights. */
export function tinyModel(): WorldModel {
  const path = fileURLToPath(new URL('../e2e/tiny.yaml', import.meta.url));
  const config = readPretrainConfig(path) as PainterConfig;
  return newModel(config) as WorldModel;
}

/** Writes the base into a folder. */
export async function saveTinyBase(folder: string): Promise<void> {
  const write = (name: string, data: Uint8Array | string): void => {
    fs.mkdirSync(dirname(join(folder, name)), { recursive: true });
    fs.writeFileSync(join(folder, name), data);
  };
  await saveBase(write, tinyModel());
}

/** The configuration of a short job on the base in `root`/base, with other keys. */
export function tinyConfig(root: string, name: string, keys: Readonly<Record<string, unknown>>): TrainConfig {
  const path = join(root, `${name}.json`);
  const config = {
    name,
    base: join(root, 'base'),
    data: { folder: fileURLToPath(new URL('../../examples/data/robot', import.meta.url)) },
    steps: 12,
    batch_size: 2,
    learning_rate: 0.01,
    checkpoint_every: 5,
    device: 'wasm',
    sampling: { steps: 2, seeds: [1], prompts: ['a big sks toy'] },
    ...keys,
  };
  fs.writeFileSync(path, JSON.stringify(config)); // JSON is YAML
  return readTrainConfig(path);
}
