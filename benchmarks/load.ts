/**
 * Loading at full size: the UNet of Stable Diffusion 1.5, 3.4 GB of float32 in one file, to a device, and the peak of
 * the process's memory above the model itself.
 *
 *     node --import tsx --conditions=@deftjs/source benchmarks/load.ts [--device wasm] [--dtype f32]
 *
 * The file is written to the system's temporary folder first (random weights) and deleted at the end.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { namedParameters } from '@deftjs/autograd/nn';
import { layouts, loadWeights, UNet2DConditionModel } from '@deftjs/models';
import { openWeights, readConfigFile, writeRandomPart } from '@deftjs/models/node';
import { type DeviceName, openDevice } from '@deftjs/tensor/node';

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'wasm' },
    dtype: { type: 'string', default: 'f32' },
    folder: { type: 'string' },
  },
});

const MB = 1e6;

// A child, so that the peak is that of loading alone and not that of writing the file.
if (options.folder !== undefined) await load(options.folder);
else {
  const folder = mkdtempSync(join(tmpdir(), 'deft-load-'));
  try {
    const part = layouts.get('sd15')!.parts.find(({ folder: name }) => name === 'unet')!;
    await writeRandomPart(folder, part, { dtype: 'f32' });
    const child = [...process.execArgv, process.argv[1]!, '--folder', folder];
    spawnSync(process.execPath, [...child, '--device', options.device, '--dtype', options.dtype], {
      stdio: 'inherit',
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function load(folder: string): Promise<void> {
  const { device } = await openDevice(options.device as DeviceName);
  const unet = new UNet2DConditionModel(await readConfigFile(join(folder, 'config.json')));
  const rss = process.memoryUsage.rss();
  const began = performance.now();
  await using file = await openWeights(folder);
  await loadWeights(unet, file, { device, dtype: options.dtype as 'f32' | 'f16' });
  await device.idle();
  const seconds = (performance.now() - began) / 1000;
  const model = [...namedParameters(unet).values()].reduce((sum, { value }) => sum + value.sizeBytes, 0);
  const peak = process.resourceUsage().maxRSS * 1024;
  console.log(`device            ${device.kind}, ${device.description}`);
  console.log(`model             ${(model / MB).toFixed(0)} MB as ${options.dtype}`);
  console.log(`time              ${seconds.toFixed(1)} s`);
  console.log(`before loading    ${(rss / MB).toFixed(0)} MB`);
  console.log(`peak              ${(peak / MB).toFixed(0)} MB`);
  console.log(`above the model   ${((peak - model) / MB).toFixed(0)} MB`);
  await device.close();
}
