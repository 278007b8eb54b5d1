import { add, DeviceError, exp, mul, setDevice, sum, tensor } from '@deftjs/tensor';
import { beforeAll, describe, expect, it } from 'vitest';
import { evaluate, item, read } from '../../../packages/tensor/src/evaluate.ts';
import { referenceDevice } from '../../../packages/tensor/src/reference.ts';
import { scope } from '../../../packages/tensor/src/scope.ts';

beforeAll(() => setDevice(referenceDevice()));

describe('evaluate', () => {
  it('computes several tensors together and keeps their values', async () => {
    const x = tensor([1, 2, 3]);
    const y = mul(x, 2);
    const z = sum(y);
    await evaluate([y, z]);
    expect([y.source.kind, z.source.kind]).toEqual(['stored', 'stored']);
    expect(await read(y)).toEqual(Float32Array.of(2, 4, 6));
    expect(await item(z)).toBe(12);
  });

  it('refuses to mix devices, and names both', async () => {
    const y = exp(tensor([1]));
    await evaluate([y], referenceDevice());
    const message = 'reference (float64 interpreter)';
    await expect(evaluate([add(y, 1)])).rejects.toThrow(DeviceError);
    await expect(evaluate([add(y, 1)])).rejects.toThrow(message);
  });
});

describe('scope', () => {
  it('frees what was computed inside and is not needed by the result', async () => {
    const x = tensor([1, 2]);
    const [inner, lazy] = await scope(async () => {
      const a = exp(x);
      const b = mul(x, 3);
      await evaluate([a, b]);
      return [[a], add(b, 1)] as const;
    });
    void inner;
    expect(await read(lazy)).toEqual(Float32Array.of(4, 7));
  });
});
