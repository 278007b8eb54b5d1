import { GroupNorm, Linear, Module, stateOf } from '@deftjs/autograd/nn';
import {
  type HostTensor,
  loadWeights,
  memorySource,
  openSafetensors,
  WeightsError,
  writeSafetensors,
} from '@deftjs/models';
import { encode, numel, read, type Shape } from '@deftjs/tensor';
import { openDevice } from '@deftjs/tensor/node';
import { describe, expect, it } from 'vitest';

class Model extends Module {
  readonly layers = Array.from({ length: 12 }, () => new Linear(2, 3, { bias: false }));
  readonly norm = new GroupNorm(1, 4);
}

function values(shape: Shape, dtype: 'f32' | 'f16' = 'f32'): HostTensor {
  return {
    dtype,
    shape,
    data: encode(
      dtype,
      Array.from({ length: numel(shape) }, (_, i) => i / 4),
    ),
  };
}

function complete(dtype: 'f32' | 'f16' = 'f32'): Record<string, HostTensor> {
  const tensors: Record<string, HostTensor> = {
    'norm.weight': values([4], dtype),
    'norm.bias': values([4], dtype),
  };
  for (let i = 0; i < 12; i += 1) tensors[`layers.${i}.weight`] = values([3, 2], dtype);
  return tensors;
}

function sourceOf(tensors: Record<string, HostTensor>) {
  return openSafetensors(memorySource('model.safetensors', writeSafetensors(tensors)));
}

describe('weights', () => {
  it.each(['f32', 'f16'] as const)('stored as %s arrive in every parameter as f32', async (dtype) => {
    const model = new Model();
    await loadWeights(model, await sourceOf(complete(dtype)));
    for (const [name, { dtype: held, shape, source }] of Object.entries(stateOf(model))) {
      expect(held).toBe('f32');
      expect(source).toMatchObject({ values: values(shape).data });
      expect(shape).toEqual(complete()[name]!.shape);
    }
  });

  it('that are missing, left over or of another shape are named, and the model stays as it was', async () => {
    const model = new Model();
    const { 'norm.bias': _, ...rest } = complete();
    const source = await sourceOf({ ...rest, 'norm.scale': values([4]), 'layers.3.weight': values([2, 3]) });
    const error = await loadWeights(model, source).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(WeightsError);
    expect((error as WeightsError).message).toBe(
      'weights: model.safetensors: missing: "norm.bias"; unexpected: "norm.scale"; ' +
        'wrong shape: "layers.3.weight: expected [3, 2], got [2, 3]"',
    );
    expect(model.norm.weight.hasValue).toBe(false);
  });

  it('that are missing in great number are counted after the tenth', async () => {
    const error = await loadWeights(new Model(), await sourceOf({})).catch((thrown: unknown) => thrown);
    expect((error as WeightsError).message).toMatch(
      /missing: "layers\.0\.weight", .*"layers\.9\.weight" and 4 more$/,
    );
    expect((error as WeightsError).missing).toHaveLength(14);
  });
});

describe('weights for a device', () => {
  it.each(['f32', 'f16'] as const)('lie there alone, as %s', async (dtype) => {
    const { device } = await openDevice('wasm');
    const [model, onHost] = [new Model(), new Model()];
    const source = await sourceOf(complete());
    const before = device.bytesInUse;
    await loadWeights(model, source, { device, dtype });
    await loadWeights(onHost, source);
    expect(device.bytesInUse).toBeGreaterThan(before);
    for (const [path, value] of Object.entries(stateOf(model))) {
      expect([value.dtype, value.source.kind], path).toEqual([dtype, 'stored']);
      expect(await read(value), path).toEqual(await read(stateOf(onHost)[path]!)); // quarters are exact in f16
      value.dispose();
    }
    expect(device.bytesInUse).toBe(before);
    await device.close();
  });

  it('are given back when a tensor cannot be read', async () => {
    const { device } = await openDevice('wasm');
    const source = await sourceOf(complete());
    const before = device.bytesInUse;
    const failing = {
      ...source,
      read: async (name: string) => {
        if (name === 'norm.bias') throw new Error('gone');
        return source.read(name);
      },
    };
    await expect(loadWeights(new Model(), failing, { device })).rejects.toThrow('gone');
    expect(device.bytesInUse).toBe(before);
    await device.close();
  });
});
