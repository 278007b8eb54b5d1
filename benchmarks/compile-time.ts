/**
 * How long a training step takes to compile before its first run: the shipped UNet (models/world-base/unet) with all of its
 * weights trained by AdamW under a global norm, packed, from the call of `prepare` to a program that is ready.
 *
 *     npm run bench:compile -- [--device null|wasm|lavapipe] [--run] [--json]
 *
 * Each run is a process of its own. `cold` is its first compilation; `cached` another one of the same step, which finds
 * the code of the first. The null backend of Dawn validates every kernel and computes nothing: what is left is ours and
 * Dawn's. lavapipe compiles kernels when they are first run: `--run` takes one step, the loss read, with the driver's cache
 * on disk turned off.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { valueAndGrad } from '@deftjs/autograd';
import { initialize, trainableState, withState } from '@deftjs/autograd/nn';
import { adamW, clipByGlobalNorm, packing } from '@deftjs/autograd/optim';
import { UNet2DConditionModel } from '@deftjs/models';
import {
  compile,
  type Device,
  evaluate,
  item,
  keyOf,
  meanSquaredError,
  type Program,
  randomNormal,
  type Tensor,
  treeLeaves,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { openNull } from './null.ts';

const { values: options } = parseArgs({
  options: {
    device: { type: 'string' },
    run: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    child: { type: 'boolean', default: false },
  },
});

const RUNS = 5;
const CACHED = 5;

interface Timing {
  readonly device: string;
  readonly cold: number;
  readonly cached: number;
  readonly kernels: number;
  /** The first step, its loss read, once the program is ready; null where none is taken. */
  readonly run: number | null;
}

if (options.child) console.log(JSON.stringify(await measure(options.device!)));
else {
  const devices = options.device === undefined ? ['null', 'wasm', 'lavapipe'] : [options.device];
  const runs = options.run ? 1 : RUNS;
  const timings = devices.map((device) => medians(Array.from({ length: runs }, () => inChild(device))));
  if (options.json) console.log(JSON.stringify(timings, null, 2));
  else {
    console.log(`device     kernels  cold ms  cached ms${options.run ? '  first step ms' : ''}`);
    for (const { device, kernels, cold, cached, run } of timings) {
      const columns = [
        String(kernels).padStart(7),
        cold.toFixed(0).padStart(8),
        cached.toFixed(1).padStart(10),
        run === null ? '' : run.toFixed(0).padStart(15),
      ];
      console.log(`${device.padEnd(10)} ${columns.join(' ').trimEnd()}`);
    }
  }
}

function inChild(device: string): Timing {
  const own = ['--child', '--device', device, ...(options.run ? ['--run'] : [])];
  const argv = [...process.execArgv, fileURLToPath(import.meta.url), ...own];
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, {
    env: { ...process.env, ...(options.run && { MESA_SHADER_CACHE_DISABLE: 'true' }) },
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`compile-time: ${device} failed; ${stderr}`);
  return JSON.parse(stdout) as Timing;
}

function medians(timings: readonly Timing[]): Timing {
  const median = (values: readonly number[]): number =>
    [...values].sort((a, b) => a - b)[values.length >> 1]!;
  const of = (field: 'cold' | 'cached'): number => median(timings.map((timing) => timing[field]));
  return { ...timings[0]!, cold: of('cold'), cached: of('cached') };
}

async function open(name: string): Promise<Device> {
  if (name === 'null') return openNull();
  return (await openDevice(name === 'wasm' ? 'wasm' : 'webgpu')).device;
}

async function measure(name: string): Promise<Timing> {
  const device = await open(name);
  const config = readFileSync('models/world-base/unet/config.json', 'utf8'); // of the repository, where npm runs this
  const unet = new UNet2DConditionModel(JSON.parse(config));
  initialize(unet, 0);
  const packed = packing(trainableState(unet));
  const weights = packed.pack(trainableState(unet));
  const optimizer = adamW();
  const state = { weights, optimizer: optimizer.init(weights) };
  const batch = {
    noisy: randomNormal(keyOf(1), [8, 12, 16, 16]),
    target: randomNormal(keyOf(2), [8, 12, 16, 16]),
    times: randomNormal(keyOf(3), [8]),
    context: randomNormal(keyOf(4), [8, 24, 96]),
  };
  const step = (before: typeof state, { noisy, target, times, context }: typeof batch) => {
    const loss = (trained: Record<string, Tensor>): Tensor =>
      withState(unet, trained, () => meanSquaredError(unet.forward(noisy, times, context), target));
    const { value, gradient } = valueAndGrad(loss)(packed.unpack(before.weights));
    const { clipped } = clipByGlobalNorm(packed.pack(gradient), 1);
    const { parameters, state: next } = optimizer.update(before.weights, clipped, before.optimizer, {
      learningRate: 1e-3,
    });
    return { state: { weights: parameters, optimizer: next }, loss: value };
  };
  let program: Program | undefined;
  const prepare = device.prepare.bind(device);
  device.prepare = async (graph) => {
    program = await prepare(graph);
    return program;
  };
  const timed = async (): Promise<number> => {
    const compiled = compile(step, { device, donate: { 0: 'state' } });
    const began = performance.now();
    await compiled.prepare(state, batch);
    const took = performance.now() - began;
    compiled.dispose();
    return took;
  };
  const cold = await timed();
  const again: number[] = [];
  for (let i = 0; i < CACHED; i += 1) again.push(await timed());
  again.sort((a, b) => a - b);
  let run: number | null = null;
  if (options.run) {
    await evaluate([...treeLeaves(state), ...treeLeaves(batch)], device);
    const compiled = compile(step, { device, donate: { 0: 'state' } });
    await compiled.prepare(state, batch);
    const began = performance.now();
    const { loss } = await compiled(state, batch);
    await item(loss);
    run = performance.now() - began;
  }
  await device.close();
  return { device: name, cold, cached: again[CACHED >> 1]!, kernels: program!.kernelCount, run };
}
