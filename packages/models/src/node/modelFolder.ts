/** Folders as save_pretrained writes them: config.json beside one safetensors file or several shards with an index. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type JsonConfig, parseConfig, SafetensorsError, type TensorSource } from '@deftjs/tensor';
import { type OpenSafetensorsFile, openSafetensorsFile } from './fileSource.ts';

/** The file names under which diffusers and transformers save weights, in the order they are looked for. */
const weightFiles = ['diffusion_pytorch_model.safetensors', 'model.safetensors'];

export interface OpenWeights extends TensorSource, AsyncDisposable {
  close(): Promise<void>;
}

/** The JSON object in the file. @throws ConfigError when it holds something else */
export async function readConfigFile(path: string): Promise<JsonConfig> {
  return parseConfig(path, await readFile(path, 'utf8'));
}

/**
 * The weights of a model folder: one safetensors file, or its shards joined by their index.
 * @throws SafetensorsError when there are none, or a shard or the index is not valid
 */
export async function openWeights(folder: string): Promise<OpenWeights> {
  for (const name of weightFiles) {
    const path = join(folder, name);
    if (await exists(path)) return openSafetensorsFile(path);
    if (await exists(`${path}.index.json`)) return openShards(folder, `${path}.index.json`);
  }
  throw new SafetensorsError(folder, `no weights here; expected ${weightFiles.join(' or ')}`);
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}

async function openShards(folder: string, indexPath: string): Promise<OpenWeights> {
  const shardOf = await readIndex(indexPath);
  const files = new Map<string, OpenSafetensorsFile>();
  const close = async () => {
    await Promise.all(Array.from(files.values(), (file) => file.close()));
  };
  try {
    for (const shard of new Set(shardOf.values())) {
      if (!(await exists(join(folder, shard))))
        throw new SafetensorsError(indexPath, `shard ${shard} is missing`);
      files.set(shard, await openSafetensorsFile(join(folder, shard)));
    }
    for (const [name, shard] of shardOf) files.get(shard)!.info(name); // every promise of the index is kept
  } catch (error) {
    await close();
    throw error;
  }
  function holder(name: string): OpenSafetensorsFile {
    const shard = shardOf.get(name);
    if (shard === undefined) throw new SafetensorsError(indexPath, 'there is no tensor of that name', name);
    return files.get(shard)!;
  }
  return {
    source: indexPath,
    names: [...shardOf.keys()],
    info: (name) => holder(name).info(name),
    read: (name) => holder(name).read(name),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Tensor name -> shard file. */
async function readIndex(path: string): Promise<ReadonlyMap<string, string>> {
  const fail = (problem: string): never => {
    throw new SafetensorsError(path, problem);
  };
  const weightMap = parseConfig(path, await readFile(path, 'utf8')).weight_map;
  if (weightMap === null || typeof weightMap !== 'object' || Array.isArray(weightMap)) {
    return fail('an index must hold an object named weight_map');
  }
  const shards = new Map<string, string>();
  for (const [name, shard] of Object.entries(weightMap)) {
    if (typeof shard !== 'string' || !/^[\w.-]+\.safetensors$/.test(shard)) {
      const seen = `${JSON.stringify(name)}: ${JSON.stringify(shard)}`;
      return fail(`a shard must be a safetensors file in the same folder; got ${seen}`);
    }
    shards.set(name, shard);
  }
  return shards;
}
