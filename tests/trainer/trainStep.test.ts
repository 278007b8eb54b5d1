/** What a training step computes, on a base too small to draw anything. */
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { namedParameters } from '@deftjs/autograd/nn';
import type { Vectors } from '@deftjs/autograd/optim';
import { type Device, read, setDevice, type Tensor, tensor } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { caption, renderScene, sampleScene, toPlanes } from '@deftjs/trainer';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { WorldModel } from '../../packages/trainer/src/base/world.ts';
import { halveFrozen, recomputeBlocks } from '../../packages/trainer/src/train/memory.ts';
import { applyMethod } from '../../packages/trainer/src/train/method.ts';
import {
  faultOf,
  firstState,
  learnt,
  packingOf,
  trainStep,
} from '../../packages/trainer/src/train/personalize.ts';
import { averageDecay, learningRates } from '../../packages/trainer/src/train/rates.ts';
import { tinyConfig, tinyModel } from './tinyBase.ts';

const root = fs.mkdtempSync(join(os.tmpdir(), 'deft-step-'));
afterAll(() => fs.rmSync(root, { recursive: true }));

let device: Device;
beforeAll(async () => {
  ({ device } = await openDevice('wasm'));
  setDevice(device);
});

const pictures = Array.from({ length: 5 }, (_, i) => {
  const scene = sampleScene(1, i);
  return { pixels: toPlanes(renderScene(scene, 32)), caption: caption(scene, 1, i) };
});
const seen = { pictures, prior: [], contexts: null };

type Values = Record<string, readonly number[]>;

async function valuesOf(weights: Record<string, Tensor>): Promise<Values> {
  const entries = Object.entries(weights).map(async ([path, x]) => [path, [...(await read(x))]] as const);
  return Object.fromEntries(await Promise.all(entries));
}

/** What a few steps with those keys leave. */
async function stepped(
  keys: Readonly<Record<string, unknown>>,
  { steps = 2, prepare }: { steps?: number; prepare?: (model: WorldModel) => unknown } = {},
) {
  const config = tinyConfig(root, 'job', { caption_dropout: 0, ...keys });
  const model = tinyModel();
  await applyMethod(model, config, device);
  await prepare?.(model);
  const { take: step } = trainStep(model, config, seen, device);
  let state = firstState(model, config);
  const named = (vectors: Vectors) => valuesOf(packingOf(model, config).unpack(vectors));
  const first = await named(state.weights);
  const losses: number[] = [];
  const norms: number[] = [];
  for (let i = 0; i < steps; i += 1) {
    const taken = await step(state, i);
    state = taken.state;
    losses.push(taken.loss);
    norms.push(taken.measured.gradient_norm!);
  }
  const [weights, average] = [await named(state.weights), await named(learnt(state))];
  return { config, model, state, first, losses, norms, weights, average };
}

/** The largest difference of two sets of weights, as a part of how far the first has moved. */
function apart(a: { first: Values; weights: Values }, b: { weights: Values }): number {
  let [difference, moved] = [0, 0];
  for (const [path, values] of Object.entries(a.weights)) {
    values.forEach((value, i) => {
      difference = Math.max(difference, Math.abs(value - b.weights[path]![i]!));
      moved = Math.max(moved, Math.abs(value - a.first[path]![i]!));
    });
  }
  return difference / moved;
}

describe('a step', () => {
  it('over four pictures is the mean of two over two, and the same with inner values computed again', async () => {
    // Adam's first step is g / |g|, which amplifies the rounding of gradients near 0: so weights are compared less strictly.
    const options = { steps: 1 };
    const whole = await stepped({ batch_size: 4, method: 'lora' }, options);
    const parts = await stepped({ batch_size: 2, gradient_accumulation: 2, method: 'lora' }, options);
    expect(parts.losses[0]).toBeCloseTo(whole.losses[0]!, 5);
    expect(parts.norms[0]! / whole.norms[0]!).toBeCloseTo(1, 5);
    expect(apart(whole, parts)).toBeLessThan(1e-3);
    const again = await stepped(
      { batch_size: 4, method: 'lora' },
      { ...options, prepare: (model) => recomputeBlocks(model.unet) },
    );
    expect(again.losses).toEqual(whole.losses);
    expect(again.norms[0]! / whole.norms[0]!).toBeCloseTo(1, 5);
    expect(apart(whole, again)).toBeLessThan(1e-3);
  }, 60_000);

  it('with halves for the frozen weights is nearly the same, and leaves trained ones whole', async () => {
    const prepare = (model: WorldModel) => halveFrozen(model, device);
    const [whole, halves] = [await stepped({}), await stepped({}, { prepare })];
    for (const [path, { trainable, value, shape }] of namedParameters(halves.model)) {
      const isHalf = !trainable && shape.length > 1 && !path.includes('embedding.weight');
      expect(value.dtype, path).toBe(isHalf ? 'f16' : 'f32');
    }
    expect(halves.losses[1]! / whole.losses[1]!).toBeCloseTo(1, 2);
  }, 60_000);

  it('keeps an average, pulls towards the start, and trains groups at their own rates', async () => {
    const groups = { parameter_groups: [{ match: 'deft_P$', learning_rate_ratio: 0 }] };
    const decay = { weight_decay: 1, decay_towards: 'start', ema_decay: 0.9 };
    const decayed = await stepped({ ...groups, ...decay }, { steps: 1 });
    const plain = await stepped(groups, { steps: 1 });
    expect(decayed.weights).toEqual(plain.weights); // at the start there is nothing to pull
    const { average } = decayed;
    for (const [path, values] of Object.entries(decayed.weights)) {
      const from = decayed.first[path]!;
      if (path.endsWith('deft_P')) expect(values).toEqual(from);
      else expect(values).not.toEqual(from);
      values.forEach((value, i) => {
        expect(average[path]![i]).toBeCloseTo(0.1 * from[i]! + 0.9 * value, 6); // decay 1 / 10 at step 0
      });
    }
  }, 60_000);

  it('that gives no finite numbers leaves the state as it was, and the layer is found', async () => {
    const broken = 'unet.mid_block.resnets.0.conv1';
    const { first, weights, losses, config, model, state } = await stepped(
      {},
      {
        prepare: (one) => {
          const weight = namedParameters(one).get(`${broken}.weight`)!;
          const values = new Float32Array(weight.shape.reduce((a, b) => a * b, 1)).fill(Number.NaN);
          weight.value = tensor(values, weight.shape);
        },
      },
    );
    expect(losses).toEqual([Number.NaN, Number.NaN]);
    expect(weights).toEqual(first);
    expect(await faultOf(model, config, seen, state, 0, device)).toMatch(
      `${broken} is the first layer whose output is not finite`,
    );
  }, 60_000);
});

describe('many steps', () => {
  it('leave as many bytes on the device as one', async () => {
    const config = tinyConfig(root, 'memory', {});
    const model = tinyModel();
    await applyMethod(model, config, device);
    const { take } = trainStep(model, config, seen, device);
    let state = firstState(model, config);
    const bytes: number[] = [];
    for (let step = 0; step < 40; step += 1) {
      ({ state } = await take(state, step));
      bytes.push(device.bytesInUse);
    }
    expect(new Set(bytes.slice(1)).size, bytes.join()).toBe(1);
  }, 60_000);
});

describe('the learning rate', () => {
  const at = (schedule: string, step: number): number =>
    learningRates(
      tinyConfig(root, 'rates', {
        steps: 100,
        learning_rate: 1,
        learning_rate_schedule: schedule,
        warmup_steps: 4,
      }),
    )(step);

  it('warms up, and ends as scheduled', () => {
    for (const schedule of ['constant', 'linear', 'cosine', 'polynomial']) expect(at(schedule, 0)).toBe(0.25);
    expect(
      ['constant', 'linear', 'cosine', 'polynomial'].map((schedule) => Number(at(schedule, 50).toFixed(6))),
    ).toEqual([1, 0.5, 0.5, 0.25]);
    for (const schedule of ['linear', 'cosine', 'polynomial']) expect(at(schedule, 100)).toBeCloseTo(0, 12);
  });

  it('of an average begins low and settles', () => {
    expect(averageDecay(0.99, 0)).toBe(0.1);
    expect(averageDecay(0.99, 1e6)).toBe(0.99);
  });
});
