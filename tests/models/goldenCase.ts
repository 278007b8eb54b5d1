/** Golden cases as tensors, and graphs computed on any device. */

import type { JsonConfig } from '@deftjs/models';
import { readConfigFile, readSafetensorsFile } from '@deftjs/models/node';
import { type Device, evaluate, read, type Tensor, tensor } from '@deftjs/tensor';
import { expect } from 'vitest';

/** The folder of a case, with the slash that paths within need. */
export function caseFolder(name: string): string {
  return new URL(`../golden/${name}/`, import.meta.url).pathname;
}

export interface GoldenCase {
  readonly folder: string;
  readonly config: JsonConfig;
  /** The recorded tensor. */
  get(name: string): Tensor;
  /** Names that begin so, without the beginning. */
  under(prefix: string): string[];
}

export async function openCase(name: string): Promise<GoldenCase> {
  const folder = caseFolder(name);
  const recorded = await readSafetensorsFile(`${folder}case.safetensors`);
  return {
    folder,
    config: await readConfigFile(`${folder}config.json`),
    get(key) {
      const { data, shape, dtype } = recorded.get(key)!;
      return tensor(data, shape, dtype);
    },
    under: (prefix) =>
      [...recorded.keys()].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length)),
  };
}

/** The values of the tensors, computed by the device together. */
export async function compute(device: Device, outputs: readonly Tensor[]): Promise<Float64Array[]> {
  await evaluate(outputs, device);
  return Promise.all(outputs.map(async (output) => Float64Array.from(await read(output, device))));
}

/** max |a - b| / max |b| below the bound: the measure of tests/golden/README.md. */
export function expectAgreement(
  actual: ArrayLike<number>,
  expected: Tensor,
  bound: number,
  what: string,
): void {
  if (expected.source.kind !== 'host') throw new Error('expectAgreement: expected recorded values');
  const { values } = expected.source;
  let [error, scale] = [0, 0];
  for (let i = 0; i < values.length; i += 1) {
    error = Math.max(error, Number.isNaN(actual[i]!) ? Infinity : Math.abs(actual[i]! - values[i]!));
    scale = Math.max(scale, Math.abs(values[i]!));
  }
  expect(actual.length, what).toBe(values.length);
  expect(error / scale, what).toBeLessThan(bound);
}
