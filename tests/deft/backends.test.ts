/** What methods.test.ts proves in float64, on the devices that compile: adapted, merged and converted are one model. */
import { initialize, Linear } from '@deftjs/autograd/nn';
import {
  attach,
  attachedAdapters,
  deft,
  full,
  lora,
  type Method,
  merge,
  type ProjectorName,
  projectors,
  svdiff,
  toLora,
} from '@deftjs/deft';
import { type Device, randomNormal, read } from '@deftjs/tensor';
import { type DeviceName, openDevice } from '@deftjs/tensor/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { hasWebGPU } from '../support/webgpu.ts';
import { relativeError } from './toy.ts';

const names = Object.keys(projectors) as ProjectorName[];

describe.each<DeviceName>(['wasm', ...(hasWebGPU ? ['webgpu' as const] : [])])('on %s', (name) => {
  let device: Device;
  beforeAll(async () => {
    ({ device } = await openDevice(name));
    return () => device.close();
  });

  it.each<[string, Method]>([
    ...names.map((projector): [string, Method] => [projector, deft({ rank: 2, projector, start: 'random' })]),
    ['nmf, projector', deft({ rank: 2, projector: 'nmf', scaling: 'projector', start: 'random' })],
    ['lora', lora({ rank: 2 })],
    ['svdiff', svdiff()],
    ['full', full()],
  ])('%s: the layer, merged and as LoRA, has the same outputs', async (_name, method) => {
    const layer = new Linear(6, 9);
    initialize(layer, 3);
    const x = randomNormal([1, 2], [4, 6]);
    const output = async (): Promise<number[]> => [...(await read(layer.forward(x), device))];
    await attach(layer, { method, targetModules: '', seed: 1, device });
    const base = attachedAdapters(layer)[0]!.adapter;
    Object.values(base.parameters).forEach((parameter, i) => {
      parameter.value = randomNormal([5, i], parameter.shape);
    });
    const adapted = await output();
    const merged = await merge(layer, device);
    expect(relativeError(await output(), adapted)).toBeLessThan(1e-5);
    merged.unmerge();
    expect(await output()).toEqual(adapted);
    if (method.name === 'full') return; // has no low rank
    await toLora(layer, 'default', device);
    expect(relativeError(await output(), adapted)).toBeLessThan(1e-5);
  });
});
