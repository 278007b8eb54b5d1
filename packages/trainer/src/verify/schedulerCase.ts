/** Samplers against diffusers: the timesteps they visit and every sample on the way, and what training adds. */
import {
  type Combining,
  denoise,
  type JsonConfig,
  noiseSchedule,
  noisyMixture,
  sampler,
  targetMixture,
} from '@deftjs/models';
import { add, clamp, type Device, mul, read, reshape, type Tensor, tensor } from '@deftjs/tensor';
import { type Check, compare, compareAll, outputBound } from './check.ts';
import type { GoldenFolder } from './goldenFolder.ts';

// Weights are values of inputs, so that all steps of all samplers share a few programs.
const onDevice: Combining<Tensor> = {
  combine: (terms) =>
    terms.map(([weight, value]) => mul(value, tensor(weight))).reduce((sum, term) => add(sum, term)),
  clamp: (value, limit) => clamp(value, -limit, limit),
};

/** The fixed denoiser of the recorded runs: 0.1 x + 0.01 sin(t). */
function denoiser(x: Tensor, timestep: number): Tensor {
  return add(mul(x, 0.1), tensor(0.01 * Math.sin(timestep)));
}

/** Checks the timesteps and samples of each sampler, and the add_noise and velocity of DDPM. */
export async function checkSchedulers(golden: GoldenFolder, device: Device): Promise<Check[]> {
  const samplers = golden.json('case.json') as unknown as Record<
    string,
    { readonly class: string; readonly config: JsonConfig }
  >;
  const checks: Check[] = [];
  for (const [name, { class: className, config }] of Object.entries(samplers)) {
    checks.push(...(await checkSampler(golden, name, { className, config }, device)));
  }
  return [...checks, ...(await checkTrainingSide(golden, device))];
}

async function checkSampler(
  golden: GoldenFolder,
  name: string,
  { className, config }: { readonly className: string; readonly config: JsonConfig },
  device: Device,
): Promise<Check[]> {
  const timesteps = await read(golden.get(`${name}/timesteps`), device);
  const { initialScale, steps } = sampler(config, className)(timesteps.length);
  const quantity = `${name}/timesteps`;
  const visited = steps.map(({ timestep }) => timestep);
  const checks = [compare(quantity, visited, timesteps, outputBound)];
  let state: { sample: Tensor; x0?: Tensor } = {
    sample: mul(golden.get('x0'), tensor(initialScale)),
  };
  for (const [i, step] of steps.entries()) {
    const output = denoiser(mul(state.sample, tensor(step.inputScale)), step.timestep);
    state = denoise(onDevice, step, state.sample, output, state.x0);
    checks.push(
      ...(await compareAll(
        { [`${name}/x${i}`]: state.sample },
        { [`${name}/x${i}`]: golden.get(`${name}/x${i}`) },
        outputBound,
        device,
      )),
    );
  }
  return checks;
}

async function checkTrainingSide(golden: GoldenFolder, device: Device): Promise<Check[]> {
  const schedule = noiseSchedule({
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: 'scaled_linear',
    prediction_type: 'v_prediction',
  });
  const [x, noise] = [golden.get('ddpm/add_noise/x'), golden.get('ddpm/add_noise/noise')];
  const timesteps = [...(await read(golden.get('ddpm/add_noise/t'), device))];
  const mixed = (mixture: typeof noisyMixture) => {
    const weights = timesteps.map((timestep) => mixture(schedule, timestep));
    const each = (values: number[]) => reshape(tensor(values), [values.length, ...x.shape.slice(1).fill(1)]);
    return add(
      mul(x, each(weights.map(({ sample }) => sample))),
      mul(noise, each(weights.map((weight) => weight.noise))),
    );
  };
  const { alphasCumprod } = schedule;
  const recorded = await read(golden.get('ddpm/alphas_cumprod'), device);
  const names = ['ddpm/add_noise/out', 'ddpm/velocity'];
  return [
    compare('ddpm/alphas_cumprod', alphasCumprod, recorded, outputBound),
    ...(await compareAll(
      { 'ddpm/add_noise/out': mixed(noisyMixture), 'ddpm/velocity': mixed(targetMixture) },
      Object.fromEntries(names.map((name) => [name, golden.get(name)])),
      outputBound,
      device,
    )),
  ];
}
