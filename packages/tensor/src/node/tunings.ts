import { createHash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Tune, TuningStore } from '../webgpu/index.ts';
import { cacheRoot } from './cache.ts';
import { replaceFile } from './replaceFile.ts';

/** Measured tilings in the cache folder: a JSON file for each adapter. */
export const cachedTunings: TuningStore = {
  load: async (adapter) => JSON.parse(await readFile(fileOf(adapter), 'utf8')),
  save: async (adapter, tunings) => {
    mkdirSync(join(cacheRoot(), 'tunings'), { recursive: true });
    await replaceFile(fileOf(adapter), JSON.stringify({ ...tunings }, null, 2));
  },
};

function fileOf(adapter: string): string {
  const name = createHash('sha256').update(adapter).digest('hex').slice(0, 16);
  return join(cacheRoot(), 'tunings', `${name}.json`);
}

const modes: readonly Tune[] = ['off', 'cached', 'measure'];

/** `$DEFT_TUNE`, else `cached`. @throws RangeError for another word */
export function tuneFromEnvironment(): Tune {
  const mode = (process.env.DEFT_TUNE || 'cached') as Tune;
  if (!modes.includes(mode)) {
    throw new RangeError(`DEFT_TUNE: expected one of ${modes.join(', ')}; got ${mode}`);
  }
  return mode;
}
