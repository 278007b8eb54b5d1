import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  openSafetensorsFile,
  openWeights,
  readSafetensorsFile,
  writeSafetensorsFile,
} from '@deftjs/models/node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'deft-weights-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const tensor = (...numbers: number[]) => ({
  dtype: 'f32' as const,
  shape: [numbers.length],
  data: Float32Array.from(numbers),
});

async function writeShards(weightMap: string): Promise<void> {
  await writeSafetensorsFile(join(folder, 'model-1.safetensors'), { a: tensor(1) });
  await writeSafetensorsFile(join(folder, 'model-2.safetensors'), { b: tensor(2, 3) });
  writeFileSync(join(folder, 'model.safetensors.index.json'), `{"metadata":{},"weight_map":${weightMap}}`);
}

describe('a safetensors file on disk', () => {
  it('is replaced as a whole and leaves nothing beside it', async () => {
    const path = join(folder, 'w.safetensors');
    await writeSafetensorsFile(path, { a: tensor(1) });
    await writeSafetensorsFile(path, { a: tensor(2) });
    expect((await readSafetensorsFile(path)).get('a')).toEqual(tensor(2));
    expect(readdirSync(folder)).toEqual(['w.safetensors']);
  });

  it('keeps its old content when the new one cannot be written', async () => {
    const path = join(folder, 'w.safetensors');
    await writeSafetensorsFile(path, { a: tensor(1) });
    await expect(writeSafetensorsFile(path, { a: { ...tensor(1), shape: [2] } })).rejects.toThrow(
      /does not hold/,
    );
    expect((await readSafetensorsFile(path)).get('a')).toEqual(tensor(1));
  });

  it('is closed again when it is not valid', async () => {
    writeFileSync(join(folder, 'w.safetensors'), 'PK\u0003\u0004 and so on');
    await expect(openSafetensorsFile(join(folder, 'w.safetensors'))).rejects.toThrow(
      /zip \(\.pt\) checkpoint/,
    );
  });
});

describe('a model folder', () => {
  it('gives the tensors of all shards', async () => {
    await writeShards('{"a":"model-1.safetensors","b":"model-2.safetensors"}');
    await using weights = await openWeights(folder);
    expect(weights.names).toEqual(['a', 'b']);
    expect(weights.info('b').shape).toEqual([2]);
    expect(await weights.read('b')).toEqual(tensor(2, 3));
    expect(() => weights.info('c')).toThrow(/tensor "c": there is no tensor of that name/);
  });

  it.each([
    ['{"a":"model-3.safetensors"}', /shard model-3.safetensors is missing/],
    ['{"c":"model-1.safetensors"}', /tensor "c": there is no tensor of that name/],
    [
      '{"a":"../model-1.safetensors"}',
      /must be a safetensors file in the same folder; got "a": "\.\.\/model-1/,
    ],
    ['{"a":"model-1.safetensors","a":"model-2.safetensors"}', /duplicate key "a"/],
    ['[]', /an index must hold an object named weight_map/],
  ])('with the index %s is refused', async (weightMap, message) => {
    await writeShards(weightMap);
    await expect(openWeights(folder)).rejects.toThrow(message);
  });

  it('without weights is refused', async () => {
    await expect(openWeights(folder)).rejects.toThrow(/no weights here/);
  });
});
