import { readdirSync } from 'node:fs';
import * as api from '@deftjs/tensor';
import { cast, isFloat, read, referenceDevice } from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { composites } from '../../support/composites/index.ts';
import { leaf, withFloats } from '../../support/op-samples.ts';

/** Functions of plain numbers. */
const onTheHost = ['foldIn', 'keyOf', 'normalNumbers', 'rotaryTable', 'threefryNumbers'];

const opsFolder = new URL('../../../packages/tensor/src/ops/', import.meta.url);

describe('functions made of ops', () => {
  it('all have cases, and every row of cases has its function', async () => {
    const modules = await Promise.all(
      readdirSync(opsFolder).map((file) => import(new URL(file, opsFolder).href) as Promise<object>),
    );
    const inOps = new Set(modules.flatMap((module) => Object.values(module)));
    const primitives = api.ops.map(({ name }) => name);
    const functions = Object.entries(api).flatMap(([name, value]) =>
      typeof value === 'function' && inOps.has(value) && !onTheHost.includes(name) ? [name] : [],
    );
    expect(functions).toEqual(expect.arrayContaining(Object.keys(composites)));
    expect(Object.keys(composites)).toEqual(
      expect.arrayContaining(functions.filter((name) => !primitives.includes(name))),
    );
  });
});

const device = referenceDevice();

describe.each(Object.entries(composites))('%s', (name, { valid }) => {
  it('computes what it says', () =>
    fc.assert(
      fc.asyncProperty(valid, async ({ inputs, f, expected, options }) => {
        const y = f(...withFloats({ inputs, attrs: null }, 'f64').inputs.map(leaf));
        const got = [...(await read(isFloat(y.dtype) ? cast(y, 'f64') : y, device))];
        if (expected === undefined) return; // a property of composites.test.ts says it
        const scale = Math.max(1, ...expected.map(Math.abs).filter(Number.isFinite));
        const wrong = expected.findIndex(
          (want, i) => !(Object.is(got[i]! + 0, want + 0) || Math.abs(got[i]! - want) <= 1e-12 * scale),
        );
        if (got.length === expected.length && wrong < 0) return;
        const given = JSON.stringify({ inputs, options });
        expect.fail(`${name} of ${given}: element ${wrong}; expected ${expected}; got ${got}`);
      }),
      { numRuns: 60 },
    ));
});
