import { matmul, read, tensor } from '@deftjs/tensor';
import { beforeAll, expect, test } from 'vitest';
import { openWebGPU, type TuningStore, type Tunings } from '../../../packages/tensor/src/webgpu/index.ts';
import { type Tiling, tilings } from '../../../packages/tensor/src/webgpu/tune.ts';
import { describeWebGPU, testAdapter } from '../../support/webgpu.ts';
import { noise } from './plans.ts';

const [m, k, n] = [256, 130, 132]; // more than 2^22 multiply-adds, and ends within a tile

/** A store in memory, which counts what is saved. */
function memoryStore(stored: unknown): TuningStore & { saved: Tunings[] } {
  const saved: Tunings[] = [];
  return { saved, load: async () => stored, save: async (_, tunings) => void saved.push(tunings) };
}

/** The product on a device of its own, and what that device knows of tilings afterwards. */
async function product(tune: 'off' | 'cached' | 'measure', tunings: TuningStore) {
  const device = await openWebGPU((await testAdapter()).adapter, { tune, tunings });
  const a = tensor(Float32Array.from(noise(m * k, 1)), [m, k]);
  const b = tensor(Float32Array.from(noise(k * n, 2)), [k, n]);
  const values = (await read(matmul(a, b), device)) as Float32Array;
  const { dispatches } = device.statistics;
  const known = device.tuner.tunings;
  await device.close();
  return { bits: new Uint32Array(values.buffer), known, dispatches };
}

describeWebGPU('tuning', () => {
  let byRule: Awaited<ReturnType<typeof product>>;
  let shapeClass: string;
  beforeAll(async () => {
    byRule = await product('off', memoryStore(null));
    const store = memoryStore(null);
    const measured = await product('measure', store);
    expect(store.saved).toEqual([measured.known]);
    expect(measured.bits).toEqual(byRule.bits);
    expect(measured.dispatches).toBeGreaterThan(byRule.dispatches);
    shapeClass = Object.keys(measured.known)[0]!;
  });

  test.each(tilings.map((tiling) => [`${tiling.kind} ${tiling.height}`, tiling] as const))(
    'changes no bit of a result: %s',
    async (_, tiling: Tiling) => {
      const chosen = await product('cached', memoryStore({ [shapeClass]: tiling }));
      expect(chosen.known).toEqual({ [shapeClass]: tiling });
      expect(chosen.bits).toEqual(byRule.bits);
      expect(chosen.dispatches).toBe(byRule.dispatches);
    },
  );

  test('measures nothing that is known, and takes nothing from a store when it is off', async () => {
    const store = memoryStore({ [shapeClass]: tilings[0] });
    expect((await product('measure', store)).dispatches).toBe(byRule.dispatches);
    expect(store.saved).toEqual([]);
    expect((await product('off', store)).known).toEqual({});
  });

  test('goes by rule where a store is damaged or holds what is no tiling', async () => {
    const wrong = [
      null,
      'text',
      { [shapeClass]: null },
      { [shapeClass]: { kind: 'broadcast', height: 3 } },
      { [shapeClass]: { kind: '); }', height: 4 } },
    ];
    for (const stored of wrong) {
      const result = await product('cached', memoryStore(stored));
      expect(result.known).toEqual({});
      expect(result.bits).toEqual(byRule.bits);
    }
    const unreadable: TuningStore = {
      load: () => Promise.reject(new Error('no such file')),
      save: async () => {},
    };
    expect((await product('cached', unreadable)).bits).toEqual(byRule.bits);
  });
});
