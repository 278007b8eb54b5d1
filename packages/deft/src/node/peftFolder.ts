/** PEFT adapters in folders: adapter_model.safetensors and adapter_config.json. */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Module } from '@deftjs/autograd/nn';
import { replaceFile } from '@deftjs/tensor/node';
import type { AdaptedRow } from '../adapt.ts';
import { type LoadPeftOptions, loadPeft, type WritePeftOptions, writePeft } from '../files/peft.ts';

const weightsName = 'adapter_model.safetensors';
const configName = 'adapter_config.json';

/**
 * Writes the adapter into the folder, which is made if need be. Each file is whole or absent, and the config, written
 * last, says that both are there.
 * @throws Error when no layer has an adapter of the name; the system's error when a file cannot be written
 */
export async function savePeftFolder(
  folder: string,
  module: Module,
  options: WritePeftOptions = {},
): Promise<void> {
  const { weights, config } = await writePeft(module, options);
  await mkdir(folder, { recursive: true });
  await replaceFile(join(folder, weightsName), weights);
  await replaceFile(join(folder, configName), config);
}

/**
 * Attaches the adapter in the folder; messages call it by the folder's path.
 * @throws as `loadPeft`; the system's error when a file cannot be read
 */
export async function loadPeftFolder(
  folder: string,
  module: Module,
  options: Omit<LoadPeftOptions, 'name'> = {},
): Promise<AdaptedRow[]> {
  const [weights, config] = await Promise.all([
    readFile(join(folder, weightsName)),
    readFile(join(folder, configName), 'utf8'),
  ]);
  return loadPeft(module, { weights, config }, { ...options, name: folder });
}
