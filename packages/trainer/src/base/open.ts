/** Opening what a command names as a model, and the device it runs on. */
import fs from 'node:fs';
import { join } from 'node:path';
import type { Device } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { deviceNames, readTrainConfig, shippedModel } from '../config/index.ts';
import { UserError } from '../userError.ts';
import { loadBase } from './folder.ts';
import type { TextToImage } from './textToImage.ts';
import { openTrained } from './trained.ts';

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
 * The base in a folder or shipped under a name, or what a run made of its base.
 * @param strength how much of what the run learnt: 0 nothing, 1 all
 */
export async function openModel(name: string, device: Device, strength = 1): Promise<TextToImage> {
  const config = join(name, 'config.yaml');
  if (!fs.existsSync(config)) return loadBase(shippedModel(name) ?? name);
  return openTrained(name, readTrainConfig(config), device, strength);
}
