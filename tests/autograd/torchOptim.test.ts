import { readFileSync } from 'node:fs';
import { adam, adamW, type Optimizer, sgd } from '@deftjs/autograd/optim';
import {
  compile,
  type Device,
  memorySource,
  narrow,
  openSafetensors,
  read,
  referenceDevice,
  reshape,
  type Tensor,
  type Tree,
  tensor,
} from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { describe, expect, it } from 'vitest';

/** Trajectories of PyTorch; see torchOptim/README.md. */
async function recorded(): Promise<(name: string, dtype: 'f64' | 'f32') => Tensor> {
  const bytes = readFileSync(new URL('torchOptim/trajectories.safetensors', import.meta.url));
  const file = await openSafetensors(memorySource('trajectories.safetensors', bytes));
  const all = new Map(
    await Promise.all(file.names.map(async (name) => [name, await file.read(name)] as const)),
  );
  return (name, dtype) => {
    const { data, shape } = all.get(name)!;
    return tensor(dtype === 'f64' ? data : Float32Array.from(data), shape, dtype);
  };
}

const optimizers = {
  adamw: adamW({ betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.05 }),
  adam: adam({ betas: [0.8, 0.95], eps: 1e-6, weightDecay: 0.05 }),
  sgd: sgd({ momentum: 0.9, nesterov: true, weightDecay: 0.05 }),
} as const;

type Weights = { readonly b: Tensor; readonly w: Tensor };

/** Largest error of a parameter after any step, relative to the largest parameter. */
async function worstError(name: keyof typeof optimizers, device: Device, dtype: 'f64' | 'f32') {
  const get = await recorded();
  const optimizer = optimizers[name] as Optimizer<Tree>;
  const step = compile(
    (weights: Weights, gradients: Weights, before: Tree) =>
      optimizer.update(weights, gradients, before, { learningRate: 0.02 }),
    { device },
  );
  let weights: Weights = { b: get('start/b', dtype), w: get('start/w', dtype) };
  let state: Tree = optimizer.init(weights);
  const gradients = { b: get('gradients/b', dtype), w: get('gradients/w', dtype) };
  const steps = gradients.b.shape[0]!;
  const at = (x: Tensor, i: number): Tensor => reshape(narrow(x, 0, i, 1), x.shape.slice(1));
  let worst = 0;
  for (let i = 0; i < steps; i += 1) {
    const given = { b: at(gradients.b, i), w: at(gradients.w, i) };
    ({ parameters: weights, state } = await step(weights, given, state));
    for (const field of ['b', 'w'] as const) {
      const got = await read(weights[field], device);
      const want = [...(await read(at(get(`${name}/${field}`, 'f64'), i), referenceDevice()))];
      const scale = want.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      got.forEach((value, j) => {
        worst = Math.max(worst, Math.abs(value - want[j]!) / scale);
      });
    }
  }
  return { worst, steps };
}

describe.each(Object.keys(optimizers) as (keyof typeof optimizers)[])('%s', (name) => {
  it('moves as PyTorch does, step by step', async () => {
    const { worst, steps } = await worstError(name, referenceDevice(), 'f64');
    expect(steps).toBe(30);
    expect(worst).toBeLessThan(1e-12);
  });

  it('does so in single precision on wasm', async () => {
    const { device } = await openDevice('wasm');
    expect((await worstError(name, device, 'f32')).worst).toBeLessThan(1e-6);
    await device.close();
  });
});
