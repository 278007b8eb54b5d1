/** Opening what a command names as a model, and the device it runs on. */
import fs from 'node:fs';
import { join } from 'node:path';
import { setAdapterStrength } from '@deftjs/deft';
import { loadPeftFolder } from '@deftjs/deft/node';
import type { Device } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { deviceNames, readTrainConfig, shippedModel } from '../config/index.ts';
import { UserError } from '../userError.ts';
import { loadBase } from './folder.ts';
import type { TextToImage } from './textToImage.ts';

/** Opens the device that `--device` names and says which it is. @throws {UserError} for an unknown name */
export async function openNamedDevice(name: string): Promise<Device> {
  const known = deviceNames.find((one) => one === name);
  if (known === undefined) {
    throw new UserError(`--device: expected ${deviceNames.join(', ')}; got "${name}"`, 2);
  }
  const { device, why } = await openDevice(known);
  console.error(`deft: ${why}`);
  return device;
}

/**
 * The base in a folder or shipped under a name, or a run's base with its adapter.
 * @param strength how much of the adapter: 0 none, 1 all
 */
export async function openModel(name: string, strength = 1): Promise<TextToImage> {
  const adapter = join(name, 'adapter');
  if (!fs.existsSync(adapter)) return loadBase(shippedModel(name) ?? name);
  const model = await loadBase(readTrainConfig(join(name, 'config.yaml')).base);
  await loadPeftFolder(adapter, model.unet);
  setAdapterStrength(model.unet, strength);
  return model;
}
