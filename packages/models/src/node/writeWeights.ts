/** Weights into folders as save_pretrained writes them, one tensor in memory at a time. */
import { type FileHandle, open, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type HostArray, safetensorsHeader, type WrittenTensor, writtenBytes } from '@deftjs/tensor';

/** A tensor to write; its values are asked for when their turn has come. */
export interface WeightToWrite extends WrittenTensor {
  readonly values: () => HostArray | Promise<HostArray>;
}

/** The size of a shard in diffusers. */
const shardBytes = 10e9;

/**
 * Writes the weights under the name that the library gives them (`model.safetensors`), in one file or, where that would
 * be larger than a shard, in several with an index. Each file is whole or absent; the index is written last.
 * @throws SafetensorsError when a name cannot be written; RangeError when values do not fill their shape; the system's
 *   error
 */
export async function writeWeights(
  folder: string,
  fileName: string,
  weights: readonly WeightToWrite[],
  { maxShardBytes = shardBytes } = {},
): Promise<void> {
  const shards = shardsOf(weights, maxShardBytes);
  if (shards.length === 1) return writeShard(join(folder, fileName), shards[0]!);
  const number = (i: number) => String(i).padStart(5, '0');
  const weightMap: Record<string, string> = {};
  for (const [i, shard] of shards.entries()) {
    const suffix = `-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    const shardName = fileName.replace('.safetensors', suffix);
    await writeShard(join(folder, shardName), shard);
    for (const { name } of shard) weightMap[name] = shardName;
  }
  const size = weights.reduce((sum, weight) => sum + writtenBytes(weight), 0);
  const index = { metadata: { total_size: size }, weight_map: weightMap };
  await writeFile(join(folder, `${fileName}.index.json`), `${JSON.stringify(index, null, 2)}\n`);
}

/** Weights in order, cut where a shard is full. */
function shardsOf(weights: readonly WeightToWrite[], maxBytes: number): WeightToWrite[][] {
  const shards: WeightToWrite[][] = [[]];
  let filled = 0;
  for (const weight of weights) {
    const bytes = writtenBytes(weight);
    if (filled > 0 && filled + bytes > maxBytes) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(weight);
    filled += bytes;
  }
  return shards;
}

async function writeShard(path: string, weights: readonly WeightToWrite[]): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const handle = await open(temporary, 'w');
    try {
      await writeAll(handle, safetensorsHeader(weights, { format: 'pt' }));
      for (const weight of weights) await writeAll(handle, await bytesOf(weight));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function bytesOf(weight: WeightToWrite): Promise<Uint8Array> {
  const { buffer, byteOffset, byteLength } = await weight.values();
  if (byteLength !== writtenBytes(weight)) {
    throw new RangeError(
      `writeWeights: ${weight.name}: expected ${writtenBytes(weight)} bytes; got ${byteLength}`,
    );
  }
  return new Uint8Array(buffer, byteOffset, byteLength);
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    at += (await handle.write(bytes, at, Math.min(bytes.length - at, 2 ** 30))).bytesWritten;
  }
}
