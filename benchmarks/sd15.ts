/**
 * Stable Diffusion 1.5 at 512 x 512 (latents 64 x 64) on the wasm device: one forward pass of the UNet, and one training
 * step of DEFT on its attention layers, timed, with the memory of the device and of the process. Weights are random and
 * stored as f16, because 3.4 GB of f32 leave no room for activations in the 4 GiB of a wasm memory.
 *
 *     node --import tsx --conditions=@deftjs/source benchmarks/sd15.ts [--latents 64] [--device wasm] [--train]
 *
 * A child process does each measurement, so that the peaks are its own. What does not fit says so.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { valueAndGrad } from '@deftjs/autograd';
import { setTrainable, stateOf, trainableState, withState } from '@deftjs/autograd/nn';
import { adamW } from '@deftjs/autograd/optim';
import { attach, deft } from '@deftjs/deft';
import { layouts, loadWeights, UNet2DConditionModel } from '@deftjs/models';
import { openWeights, readConfigFile, writeRandomPart } from '@deftjs/models/node';
import {
  cast,
  compile,
  type Device,
  keyOf,
  meanSquaredError,
  randomNormal,
  read,
  type Tensor,
  treeMap,
} from '@deftjs/tensor';
import { type DeviceName, openDevice } from '@deftjs/tensor/node';

const { values: options } = parseArgs({
  options: {
    latents: { type: 'string', default: '64' },
    device: { type: 'string', default: 'wasm' },
    train: { type: 'boolean', default: false },
    folder: { type: 'string' },
  },
});

const side = Number(options.latents);
const GB = 1e9;

if (options.folder !== undefined) await measure(options.folder);
else {
  const folder = mkdtempSync(join(tmpdir(), 'deft-sd15-'));
  try {
    const part = layouts.get('sd15')!.parts.find(({ folder: name }) => name === 'unet')!;
    await writeRandomPart(folder, part, { dtype: 'f16' });
    const child = [...process.execArgv, ...process.argv.slice(1), '--folder', folder];
    spawnSync(process.execPath, child, { stdio: 'inherit' });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function measure(folder: string): Promise<void> {
  const { device } = await openDevice(options.device as DeviceName);
  const unet = new UNet2DConditionModel(await readConfigFile(join(folder, 'config.json')));
  await using file = await openWeights(folder);
  await loadWeights(unet, file, { device, dtype: 'f16' });
  console.log(`device       ${device.kind}, ${device.description}; latents ${side} x ${side}`);
  console.log(`weights      ${(device.bytesInUse / GB).toFixed(2)} GB as f16`);
  const name = options.train ? 'DEFT step' : 'forward';
  try {
    await (options.train ? trainStep(unet, device) : forward(unet, device));
  } catch (error) {
    console.log(`${name}: does not fit: ${(error as Error).message}`);
  }
  const peak = process.resourceUsage().maxRSS * 1024;
  console.log(`process      ${(peak / GB).toFixed(2)} GB at its peak`);
  await device.close();
}

function inputs() {
  return {
    sample: randomNormal(keyOf(1), [1, 4, side, side]),
    timestep: randomNormal(keyOf(2), [1]),
    context: randomNormal(keyOf(3), [1, 77, 768]),
  };
}

type Inputs = ReturnType<typeof inputs>;
type State = Record<string, Tensor>;

/** The state in the type that is computed in: kernels convert what they read. */
function inFloat32(state: State): State {
  return treeMap((x) => cast(x, 'f32'), state);
}

async function timed(device: Device, run: () => Promise<Tensor>): Promise<void> {
  for (const when of ['first', 'second']) {
    const began = performance.now();
    const out = await run();
    const value = (await read(out, device))[0]!;
    const seconds = (performance.now() - began) / 1000;
    const held = (device.bytesInUse / GB).toFixed(2);
    console.log(
      `${when.padEnd(12)} ${seconds.toFixed(1)} s, ${held} GB on the device, ${value.toPrecision(4)}`,
    );
    out.dispose();
  }
}

async function forward(unet: UNet2DConditionModel, device: Device): Promise<void> {
  const state = stateOf(unet);
  const run = compile(
    (weights: State, { sample, timestep, context }: Inputs) =>
      withState(unet, inFloat32(weights), () => unet.forward(sample, timestep, context)),
    { device },
  );
  const given = inputs();
  await timed(device, () => run(state, given));
}

async function trainStep(unet: UNet2DConditionModel, device: Device): Promise<void> {
  const base = stateOf(unet);
  setTrainable(unet, () => false);
  await attach(unet, {
    method: deft({ rank: 4 }),
    targetModules: ['to_q', 'to_k', 'to_v', 'to_out.0'],
    seed: 0,
    device,
  });
  const optimizer = adamW();
  let theta = trainableState(unet);
  let state = optimizer.init(theta);
  const step = compile(
    (weights: State, parameters: State, before: typeof state, { sample, timestep, context }: Inputs) =>
      withState(unet, inFloat32(weights), () => {
        const loss = valueAndGrad((variables: State) =>
          withState(unet, variables, () => meanSquaredError(unet.forward(sample, timestep, context), sample)),
        );
        const { value, gradient } = loss(parameters);
        return { value, ...optimizer.update(parameters, gradient, before, { learningRate: 1e-4 }) };
      }),
    { device },
  );
  const given = inputs();
  await timed(device, async () => {
    const next = await step(base, theta, state, given);
    ({ parameters: theta, state } = next);
    return next.value;
  });
}
