import { readFileSync } from 'node:fs';
import {
  arrays,
  asFloat32,
  ConfigError,
  type Denoising,
  denoise,
  flowMatchEuler,
  type HostTensor,
  type JsonConfig,
  logitNormalLevels,
  noiseSchedule,
  noisyMixture,
  parseConfig,
  sampler,
  signalToNoise,
  targetMixture,
} from '@deftjs/models';
import { readSafetensorsFile } from '@deftjs/models/node';
import { keyOf } from '@deftjs/tensor';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';

const folder = new URL('../golden/schedulers/', import.meta.url);
const cases = parseConfig(
  'case.json',
  readFileSync(new URL('case.json', folder), 'utf8'),
) as unknown as Record<string, { class: string; config: JsonConfig }>;

/** max |a - b| / max |b|; the recorded numbers were computed in float32, whose sums over 1000 betas lose a few 1e-6. */
const tolerance = 1e-5;
function expectClose(a: ArrayLike<number>, b: ArrayLike<number>): void {
  expect(a.length).toBe(b.length);
  const scale = Math.max(...Array.from(b, Math.abs));
  expect(Math.max(...Array.from(b, (y, i) => Math.abs(a[i]! - y))) / scale).toBeLessThan(tolerance);
}

let golden: Map<string, HostTensor>;
beforeAll(async () => {
  golden = await readSafetensorsFile(new URL('case.safetensors', folder).pathname);
});
const values = (name: string) => Float64Array.from(asFloat32(golden.get(name)!));

/** The fixed denoiser of the recorded runs. */
const network = (x: Float64Array, t: number) => x.map((value) => 0.1 * value + 0.01 * Math.sin(t));

function walk({ initialScale, steps }: Denoising, noise: Float64Array, output = network): Float64Array[] {
  let state: { sample: Float64Array; x0?: Float64Array } = {
    sample: noise.map((value) => value * initialScale),
  };
  return steps.map((step) => {
    const seen = output(
      state.sample.map((value) => value * step.inputScale),
      step.timestep,
    );
    state = denoise(arrays, step, state.sample, seen, state.x0);
    return state.sample;
  });
}

describe('samplers', () => {
  it.each(Object.keys(cases))('%s follows diffusers for ten steps', (name) => {
    const { class: className, config } = cases[name]!;
    const denoising = sampler(config, className)(10);
    expectClose(
      denoising.steps.map((step) => step.timestep),
      values(`${name}/timesteps`),
    );
    const states = walk(denoising, values('x0'));
    for (const [i, state] of states.entries()) expectClose(state, values(`${name}/x${i}`));
  });

  const classes = ['DDIMScheduler', 'EulerDiscreteScheduler', 'DPMSolverMultistepScheduler'];
  const configs = fc.record({
    beta_schedule: fc.constantFrom('linear', 'scaled_linear', 'squaredcos_cap_v2'),
    prediction_type: fc.constantFrom('epsilon', 'v_prediction'),
    timestep_spacing: fc.constantFrom('linspace', 'leading', 'trailing'),
    clip_sample: fc.constant(false),
    set_alpha_to_one: fc.constant(true),
    steps_offset: fc.nat(1),
  });

  it.each(classes)('%s arrives at x0 exactly when the network always knows it', (className) => {
    fc.assert(
      fc.property(
        configs,
        fc.integer({ min: 2, max: 50 }),
        fc.double({ min: -2, max: 2, noNaN: true }),
        (config, steps, x0) => {
          const schedule = noiseSchedule(config);
          const denoising = sampler(config, className)(steps);
          let state: { sample: Float64Array; x0?: Float64Array } = {
            sample: Float64Array.of(denoising.initialScale),
          };
          for (const step of denoising.steps) {
            // The output that makes x0 the prediction: (x0 - s x) / o.
            const output = Float64Array.of((x0 - step.x0.sample * state.sample[0]!) / step.x0.output);
            state = denoise(arrays, step, state.sample, output, state.x0);
          }
          // DDIM's last jump spans T // steps timesteps: with a leading offset it may stop short of noise level zero.
          const last = denoising.steps.at(-1)!.timestep;
          const reaches =
            className !== 'DDIMScheduler' || last - Math.floor(schedule.alphasCumprod.length / steps) < 0;
          if (reaches) expect(state.sample[0]).toBeCloseTo(x0, 9);
        },
      ),
    );
  });

  it('DDPM draws from the posterior: the marginal at the next timestep keeps its variance', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 999 }), (skip) => {
        const denoising = sampler(
          { clip_sample: false, variance_type: 'fixed_small' },
          'DDPMScheduler',
        )(1000);
        const schedule = noiseSchedule({});
        const { timestep, next } = denoising.steps[999 - skip]!;
        expect(timestep).toBe(skip);
        // With x = sqrt(abar) x0 + sqrt(1 - abar) eps and the true x0, x' is sqrt(abar') x0 + sqrt(1 - abar') eps'.
        const from = noisyMixture(schedule, timestep);
        const to = noisyMixture(schedule, timestep - 1);
        expect(next.sample * from.sample + next.x0).toBeCloseTo(to.sample, 12);
        expect((next.sample * from.noise) ** 2 + next.noise ** 2).toBeCloseTo(to.noise ** 2, 12);
      }),
    );
  });

  const flow = 'FlowMatchEulerDiscreteScheduler';

  it.each([...classes, flow])(
    '%s begins anywhere with the mixture of its step, and arrives at x0',
    (className) => {
      fc.assert(
        fc.property(
          fc.integer({ min: 2, max: 30 }),
          fc.nat(29),
          fc.tuple(...[0, 1].map(() => fc.double({ min: -2, max: 2, noNaN: true }))),
          (steps, skipped, [x0, noise]) => {
            const skip = skipped % steps;
            const denoising = sampler({ clip_sample: false }, className)(steps, skip);
            expect(denoising.steps).toHaveLength(steps - skip);
            const { mixture } = denoising.steps[0]!;
            let sample: Float64Array = Float64Array.of(mixture.sample * x0! + mixture.noise * noise!);
            let previous: Float64Array | undefined;
            for (const step of denoising.steps) {
              const output = Float64Array.of((x0! - step.x0.sample * sample[0]!) / step.x0.output);
              ({ sample, x0: previous } = denoise(arrays, step, sample, output, previous));
              expect(previous[0]).toBeCloseTo(x0!, 9);
            }
            if (className !== 'DDIMScheduler') expect(sample[0]).toBeCloseTo(x0!, 9);
          },
        ),
      );
    },
  );

  it('flow matching shifts towards noise by the number of tokens, as FLUX.1-dev does', () => {
    const config = { use_dynamic_shifting: true, shift: 3 };
    for (const [tokens, mu] of [
      [256, 0.5],
      [4096, 1.15],
    ] as const) {
      const { steps } = flowMatchEuler(config)(4, 0, { imageTokens: tokens, even: true });
      for (const [i, { timestep }] of steps.entries()) {
        const s = 1 - i / 4;
        expect(timestep / 1000).toBeCloseTo(Math.exp(mu) / (Math.exp(mu) + (1 / s - 1)), 12);
      }
    }
    expect(() => sampler(config, flow)(4)).toThrow('use_dynamic_shifting needs the number of image tokens');
  });

  it('flow matching runs the other way with inverted levels, to the same end', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), fc.double({ min: 1, max: 5, noNaN: true }), (n, shift) => {
        const forth = flowMatchEuler({ shift })(n, 0, { even: true });
        const back = flowMatchEuler({ shift, invert_sigmas: true, num_train_timesteps: 1 })(n, 0, {
          even: true,
        });
        for (const [i, step] of forth.steps.entries()) {
          expect(back.steps[i]!.timestep).toBeCloseTo(1 - step.timestep / 1000, 12);
          expect(back.steps[i]!.next.output).toBeCloseTo(-step.next.output, 12);
        }
      }),
    );
  });

  it('logit-normal levels have a normal logit', () => {
    const logits = Array.from(logitNormalLevels(keyOf(3), 20_000, { mean: 0.5, std: 2 }), (s) =>
      Math.log(s / (1 - s)),
    );
    const mean = logits.reduce((sum, z) => sum + z, 0) / logits.length;
    const variance = logits.reduce((sum, z) => sum + (z - mean) ** 2, 0) / logits.length;
    expect(Math.abs(mean - 0.5)).toBeLessThan((5 * 2) / Math.sqrt(20_000)); // five standard errors
    expect(Math.abs(variance - 4)).toBeLessThan(5 * 4 * Math.sqrt(2 / 20_000));
  });

  it('clamp the predicted x0 where the config says so', () => {
    const [step] = sampler({ clip_sample: true }, 'DDIMScheduler')(10).steps;
    const { x0 } = denoise(arrays, step!, Float64Array.of(50, -50, 0), Float64Array.of(0, 0, 0));
    expect([...x0]).toEqual([1, -1, 0]);
  });

  it('that need noise say so when they get none', () => {
    const [step] = sampler({}, 'DDPMScheduler')(10).steps;
    const x = Float64Array.of(1);
    expect(() => denoise(arrays, step!, x, x)).toThrow('denoise: the step at timestep 900 needs noise');
  });

  it.each<[string, JsonConfig, string]>([
    ['PNDMScheduler', {}, 'scheduler: class not supported; expected one of DDPMScheduler, DDIMScheduler, '],
    [
      'DDIMScheduler',
      { beta_schedule: 'sigmoid' },
      'DDIMScheduler: beta_schedule: expected one of linear, scaled_linear, squaredcos_cap_v2; got "sigmoid"',
    ],
    [
      'DDIMScheduler',
      { thresholding: true },
      'DDIMScheduler: thresholding: not supported; expected false; got true',
    ],
    ['DDIMScheduler', { prediction_type: 'flow' }, 'DDIMScheduler: prediction_type: expected one of'],
    [
      'DDIMScheduler',
      { trained_betas: [0.1] },
      'DDIMScheduler: trained_betas: expected a list of 1000 numbers; got [0.1]',
    ],
    ['DPMSolverMultistepScheduler', { solver_order: 3 }, 'solver_order: expected 1 or 2; got 3'],
    ['DPMSolverMultistepScheduler', { algorithm_type: 'sde-dpmsolver++' }, 'algorithm_type: not supported'],
    ['EulerDiscreteScheduler', { use_beta_sigmas: true }, 'use_beta_sigmas: not supported'],
    ['FlowMatchEulerDiscreteScheduler', { use_karras_sigmas: true }, 'use_karras_sigmas: not supported'],
  ])('%s with %o is refused by name', (className, config, message) => {
    expect(() => sampler(config, className)).toThrow(ConfigError);
    expect(() => sampler(config, className)).toThrow(message);
  });

  it.each([0, 1.5, 1001])('cannot walk in %d steps', (numSteps) => {
    expect(() => sampler({}, 'DDIMScheduler')(numSteps)).toThrow(
      `sampler: expected 1 to 1000 steps; got ${numSteps}`,
    );
  });

  it('cannot start beyond the schedule', () => {
    expect(() => sampler({ steps_offset: 1 }, 'DDIMScheduler')(1000)).toThrow(
      /steps_offset 1 leaves the schedule/,
    );
  });

  it('cannot start an epsilon prediction from pure noise that holds nothing of the image', () => {
    const config = { rescale_betas_zero_snr: true, timestep_spacing: 'trailing' };
    expect(() => sampler(config, 'DDIMScheduler')(10)).toThrow(/zero terminal SNR/);
  });
});

describe('the noise schedule', () => {
  const config = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear' };

  it('is the one of diffusers', () => {
    expectClose(noiseSchedule(config).alphasCumprod, values('ddpm/alphas_cumprod'));
  });

  it('mixes data and noise, and the velocity of the two, as diffusers does', () => {
    const schedule = noiseSchedule({ ...config, prediction_type: 'v_prediction' });
    const [x, noise] = [values('ddpm/add_noise/x'), values('ddpm/add_noise/noise')];
    const timesteps = golden.get('ddpm/add_noise/t')!.data;
    const perImage = x.length / timesteps.length;
    const mixed = (mixture: typeof noisyMixture) =>
      x.map((value, i) => {
        const weights = mixture(schedule, timesteps[Math.floor(i / perImage)]!);
        return weights.sample * value + weights.noise * noise[i]!;
      });
    expectClose(mixed(noisyMixture), values('ddpm/add_noise/out'));
    expectClose(mixed(targetMixture), values('ddpm/velocity'));
  });

  it('ends without signal after rescaling to zero terminal SNR, and starts as before', () => {
    const plain = noiseSchedule(config);
    const rescaled = noiseSchedule({ ...config, rescale_betas_zero_snr: true });
    expect(signalToNoise(rescaled, 999)).toBe(0);
    expect(rescaled.alphasCumprod[0]).toBeCloseTo(plain.alphasCumprod[0]!, 14);
  });

  it('has timesteps 0 to T - 1', () => {
    expect(() => noisyMixture(noiseSchedule(config), 1000)).toThrow(
      'expected a timestep in [0, 999]; got 1000',
    );
  });
});
