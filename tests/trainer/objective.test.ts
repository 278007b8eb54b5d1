import { noiseSchedule } from '@deftjs/models';
import { add, mul, read, referenceDevice, setDevice, tensor } from '@deftjs/tensor';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  denoisingErrors,
  diffusion,
  drawNoise,
  flow,
  type NoiseOptions,
  type Objective,
} from '../../packages/trainer/src/diffusion/objective.ts';

beforeAll(() => setDevice(referenceDevice()));

const plain: NoiseOptions = { sampling: null, minSnrGamma: null, offset: 0 };
const schedule = (prediction_type: string) =>
  diffusion(
    noiseSchedule({ beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear', prediction_type }),
  );
const objectives: readonly (readonly [string, Objective])[] = [
  ['flow', flow],
  ['epsilon', schedule('epsilon')],
  ['v', schedule('v_prediction')],
  ['sample', schedule('sample')],
];

describe('noise', () => {
  it('of a picture is the same whatever the batch', () => {
    fc.assert(
      fc.property(fc.nat(1e6), fc.nat(1e6), fc.integer({ min: 1, max: 4 }), (seed, place, count) => {
        const places = Array.from({ length: count }, (_, i) => place + i);
        const options = { ...plain, offset: 0.1 };
        const together = drawNoise(flow, options, seed, places, [2, 3, 1]);
        const alone = places.map((one) => drawNoise(flow, options, seed, [one], [2, 3, 1]));
        expect([...together.noise]).toEqual(alone.flatMap(({ noise }) => [...noise]));
        expect([...together.levels]).toEqual(alone.flatMap(({ levels }) => [...levels]));
      }),
      { numRuns: 20 },
    );
  });

  it('with an offset moves each channel as a whole', () => {
    const [without, offset] = [0, 0.5].map((one) =>
      drawNoise(flow, { ...plain, offset: one }, 1, [7], [3, 4, 4]),
    );
    const moved = [...offset!.noise].map((z, i) => z - without!.noise[i]!);
    for (let c = 0; c < 3; c += 1) {
      const channel = moved.slice(16 * c, 16 * (c + 1));
      for (const shift of channel) expect(shift).toBeCloseTo(channel[0]!, 5);
    }
    expect(new Set(moved.map((shift) => shift.toFixed(4))).size).toBe(3);
  });

  it('has levels in the middle when logit-normal, everywhere when uniform', () => {
    const places = Array.from({ length: 2000 }, (_, i) => i);
    for (const [sampling, share] of [
      ['uniform', 0.5],
      ['logit_normal', 0.728],
    ] as const) {
      const { levels } = drawNoise(flow, { ...plain, sampling }, 3, places, [1]);
      const middle = places.filter((i) => Math.abs(levels[6 * i]! / 1000 - 0.5) < 0.25).length;
      expect(Math.abs(middle / places.length - share), sampling).toBeLessThan(0.04); // |N(0, 1)| < log 3: 0.728
    }
  });
});

describe.each(objectives)('the %s objective', (name, objective) => {
  it('has no error where the network predicts the target, and that of its distance elsewhere', async () => {
    const { noise, levels } = drawNoise(objective, plain, 5, [0, 1, 2], [1, 2, 2]);
    const pictures = tensor(
      Float32Array.from({ length: 12 }, (_, i) => i / 6 - 1),
      [3, 1, 2, 2],
    );
    const batch = {
      pictures,
      noise: tensor(noise, [3, 1, 2, 2]),
      levels: tensor(levels, [3, 6]),
      context: tensor(0),
    };
    const column = (i: number) =>
      tensor(
        Float32Array.from([0, 1, 2], (b) => levels[6 * b + i]!),
        [3, 1, 1, 1],
      );
    const target = add(mul(pictures, column(3)), mul(batch.noise, column(4)));
    const seen = add(mul(pictures, column(1)), mul(batch.noise, column(2)));
    const errors = denoisingErrors((x) => {
      expect(x.shape).toEqual(seen.shape);
      return add(target, 0.5);
    }, batch);
    for (const error of await read(errors)) expect(error).toBeCloseTo(0.25, 5);
  });

  it('with min-SNR weighs the error of the picture by min(SNR, gamma)', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.01, max: 0.99, noNaN: true }),
        fc.double({ min: 0.5, max: 20, noNaN: true }),
        (u, gamma) => {
          const { seen, target } = objective.at(u);
          // Moves the prediction by one and sees how far the picture that it stands for moves.
          const determinant = seen.sample * target.noise - seen.noise * target.sample;
          const moved = -seen.noise / determinant;
          const snr = (seen.sample / seen.noise) ** 2;
          const always = { ...objective, at: () => objective.at(u) };
          const { levels } = drawNoise(always, { ...plain, minSnrGamma: gamma }, 1, [0], [1]);
          expect(levels[5]! / (Math.min(snr, gamma) * moved ** 2)).toBeCloseTo(1, 4);
        },
      ),
      { numRuns: 30 },
    );
  });

  it('is the weight of the paper', () => {
    const weight = (u: number) =>
      drawNoise({ ...objective, at: () => objective.at(u) }, { ...plain, minSnrGamma: 5 }, 1, [0], [1])
        .levels[5]!;
    for (const u of [0.05, 0.3, 0.7, 0.95]) {
      const { seen } = objective.at(u);
      const snr = (seen.sample / seen.noise) ** 2;
      const expected = {
        flow: Math.min(snr, 5) * seen.noise ** 2,
        epsilon: Math.min(snr, 5) / snr,
        v: Math.min(snr, 5) / (snr + 1),
        sample: Math.min(snr, 5),
      }[name]!;
      expect(weight(u) / expected).toBeCloseTo(1, 4);
    }
  });
});
