/** Adapters that a command names: files, folders, or runs of `deft train`. */
import fs from 'node:fs';
import { join } from 'node:path';
import {
  dependsOnBase,
  expectBase,
  joinedHash,
  type LayerShapes,
  type Parts,
  type StoredAdapter,
  weightHash,
} from '@deftjs/deft';
import { readAdapter } from '@deftjs/deft/node';
import type { Device } from '@deftjs/tensor';
import { UserError } from '../userError.ts';
import { type BaseFolder, readWeight } from './baseFolder.ts';

/**
 * The adapter at the path, or the one of a run there.
 * @throws {UserError} when nothing is there or it does not fit the models, ConfigError, SafetensorsError, TorchFileError
 */
export async function readNamedAdapter(
  path: string,
  models: Parts<LayerShapes> | undefined,
): Promise<StoredAdapter> {
  if (!fs.existsSync(path)) throw new UserError(`${path}: no such file or folder`, 2);
  const ofRun = join(path, 'adapter');
  const place = fs.existsSync(ofRun) ? ofRun : path;
  const adapter = await readAdapter(place, models);
  const ofText = join(place, 'text_encoder');
  if (!fs.existsSync(join(ofText, 'adapter_config.json'))) return adapter;
  const { layers } = await readAdapter(ofText, models, 'text_encoder');
  return { ...adapter, layers: [...adapter.layers, ...layers] };
}

/**
 * The hash of the weights in the base of the layers that the adapter is exact on alone; null when it is on any base.
 * @throws {UserError} when the adapter says that it was made for another
 */
export async function checkedBaseHash(
  adapter: StoredAdapter,
  base: BaseFolder,
  device: Device,
): Promise<string | null> {
  const bound = adapter.layers.filter(({ method }) => adapter.baseHash !== null || dependsOnBase(method));
  if (bound.length === 0) return null;
  const hashes: [string, string][] = [];
  for (const { part, path } of bound) {
    const W0 = await readWeight(base.parts[part]!, path);
    hashes.push([`${part}.${path}`, await weightHash(`${part}.${path}`, W0, device)]);
  }
  const hash = await joinedHash(hashes);
  try {
    expectBase(adapter, hash);
  } catch (error) {
    throw new UserError((error as Error).message);
  }
  return hash;
}
