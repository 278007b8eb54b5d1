/** Folders of golden cases: recorded tensors, how they came about, and the models they are about. */
import fs from 'node:fs';
import { basename, join } from 'node:path';
import { type JsonConfig, parseConfig } from '@deftjs/models';
import { readSafetensorsFile } from '@deftjs/models/node';
import { type Tensor, tensor } from '@deftjs/tensor';
import { tokenizerCases } from './tokenizerCase.ts';

export interface GoldenFolder {
  readonly path: string;
  readonly name: string;
  /** What was recorded, by name. */
  readonly tensors: Readonly<Record<string, Tensor>>;
  /** Whether the file is there. */
  has(file: string): boolean;
  /** The JSON object in a file. @throws ConfigError when it is malformed; the system's error when it is missing */
  json(file: string): JsonConfig;
  /** The recorded tensor. @throws Error when there is none */
  get(name: string): Tensor;
  /** The recorded tensors whose names begin so, by the rest of their names. */
  under(prefix: string): Record<string, Tensor>;
}

const recorded = 'case.safetensors';

/** The case in a folder. @throws SafetensorsError */
export async function openGoldenFolder(path: string): Promise<GoldenFolder> {
  const name = basename(path);
  const file = await readSafetensorsFile(join(path, recorded));
  const tensors = Object.fromEntries(
    [...file].map(([key, { data, shape, dtype }]) => [key, tensor(data, shape, dtype)]),
  );
  return {
    path,
    name,
    tensors,
    has: (inner) => fs.existsSync(join(path, inner)),
    json: (inner) => parseConfig(join(path, inner), fs.readFileSync(join(path, inner), 'utf8')),
    get(key) {
      const found = tensors[key];
      if (found === undefined) throw new Error(`${name}: no recorded tensor "${key}"`);
      return found;
    },
    under: (prefix) =>
      Object.fromEntries(
        Object.entries(tensors)
          .filter(([key]) => key.startsWith(prefix))
          .map(([key, value]) => [key.slice(prefix.length), value]),
      ),
  };
}

/**
 * The cases in a folder, by name, or the path itself if it is one: case folders, and the file of tokenizer cases. A
 * folder that has lost one of its files is still a case, which will fail.
 */
export function goldenCasesIn(path: string): string[] {
  if (isCase(path)) return [path];
  return fs
    .readdirSync(path)
    .sort()
    .map((name) => join(path, name))
    .filter(isCase);
}

function isCase(path: string): boolean {
  return (
    basename(path) === tokenizerCases ||
    [recorded, 'case.json'].some((file) => fs.existsSync(join(path, file)))
  );
}
