/**
 * What stays the same in every step is computed once, before the first: latents of pictures, and contexts of captions
 * where no text encoder is trained. Kept on disk, too, it is found again by the next run; the numbers are the same.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { type Module, stateOf } from '@deftjs/autograd/nn';
import { memorySource, openSafetensors, writeSafetensors } from '@deftjs/models';
import { compile, type Device, evaluate, read, type Tensor, tensor, treeLeaves } from '@deftjs/tensor';
import { cacheRoot } from '@deftjs/tensor/node';
import { hashWeights } from '../base/recipe.ts';
import type { TextToImage } from '../base/textToImage.ts';
import type { PictureSize } from '../data/index.ts';
import { writeFileAtomically } from '../runs/index.ts';
import { mirrored } from './augment.ts';
import type { Contexts } from './batch.ts';
import type { Captioned } from './dataset.ts';

/** Lists of numbers by what they were computed from. */
interface Store {
  /** Those of the inputs, computed where they are not kept yet. */
  take(inputs: readonly ArrayBufferView[], make: () => Promise<readonly Tensor[]>): Promise<Float32Array[]>;
}

/**
 * Numbers that a part of a model computes on a device, a file for each input in the cache folder: under the hash of the
 * part's weights, so that other weights find nothing, and named by the hash of the input. A file that cannot be read is
 * computed again.
 * @param keep false: nothing is read or written
 */
async function storeOf(parts: readonly Module[], device: Device, keep: boolean): Promise<Store> {
  const numbers = async (made: readonly Tensor[]): Promise<Float32Array[]> => {
    await evaluate([...made], device);
    const values = await Promise.all(made.map(async (x) => Float32Array.from(await read(x, device))));
    for (const spent of made) spent.dispose();
    return values;
  };
  if (!keep) return { take: async (_, make) => numbers(await make()) };
  const hash = createHash('sha256').update(`1 ${device.kind} ${device.description}\n`);
  for (const part of parts) await hashWeights(hash, stateOf(part));
  const folder = join(cacheRoot(), 'training', hash.digest('hex').slice(0, 32));
  fs.mkdirSync(folder, { recursive: true });
  return {
    async take(inputs, make) {
      const name = createHash('sha256');
      for (const { buffer, byteOffset, byteLength } of inputs) {
        name.update(`${byteLength}\n`).update(new Uint8Array(buffer, byteOffset, byteLength));
      }
      const path = join(folder, `${name.digest('hex')}.safetensors`);
      const kept = await readNumbers(path);
      if (kept) return kept;
      const values = await numbers(await make());
      const tensors = values.map((data, i) => [i, { dtype: 'f32', shape: [data.length], data }] as const);
      writeFileAtomically(path, writeSafetensors(Object.fromEntries(tensors)));
      return values;
    },
  };
}

async function readNumbers(path: string): Promise<Float32Array[] | null> {
  if (!fs.existsSync(path)) return null;
  try {
    const file = await openSafetensors(memorySource(path, fs.readFileSync(path)));
    const names = [...file.names].sort((a, b) => Number(a) - Number(b));
    return await Promise.all(names.map(async (name) => (await file.read(name)).data as Float32Array));
  } catch (error) {
    console.error(`deft: ${(error as Error).message}; computed again`);
    return null;
  }
}

export interface EncodeOptions {
  readonly device: Device;
  /** Whether the cache folder is read and written. */
  readonly cache: boolean;
}

/** The pictures as steps take them: with latents for pixels where the model has a VAE, of mirrored pictures too if any are. */
export async function encodePictures(
  model: TextToImage,
  pictures: readonly Captioned[],
  { flip, device, cache }: EncodeOptions & { readonly flip: boolean },
): Promise<Captioned[]> {
  const { vae } = model;
  if (vae === null) return [...pictures];
  const square = { width: model.pictureSize, height: model.pictureSize };
  const encode = compile((x: Tensor) => vae.scale(vae.encode(x).mean), { device });
  const store = await storeOf([vae], device, cache);
  const latents = async (pixels: Float32Array, { width, height }: PictureSize): Promise<Float32Array> => {
    const make = async () => {
      using picture = tensor(pixels, [1, 3, height, width]);
      return [await encode(picture)];
    };
    // Pictures of two shapes may have the same numbers.
    return (
      await store.take([pixels, ...(width === height ? [] : [Int32Array.of(width, height)])], make)
    )[0]!;
  };
  const encoded = new Map<Float32Array, Captioned>(); // by pixels: pictures that are repeated are encoded once
  for (const { pixels, caption, bucket } of pictures) {
    if (encoded.has(pixels)) continue;
    const size = bucket ?? square;
    const other = flip ? { mirrored: await latents(mirrored(pixels, size.width), size) } : {};
    encoded.set(pixels, {
      pixels: await latents(pixels, size),
      caption,
      ...(bucket && { bucket }),
      ...other,
    });
  }
  encode.dispose();
  return pictures.map(({ pixels, caption }) => ({ ...encoded.get(pixels)!, caption }));
}

/** What the network sees of each of the captions, and of none. */
export async function encodeCaptions(
  model: TextToImage,
  captions: readonly string[],
  { device, cache }: EncodeOptions,
): Promise<Contexts> {
  const encode = compile((tokens: ReturnType<TextToImage['tokenize']>) => model.encodeText(tokens), {
    device,
  });
  const store = await storeOf(model.allTextEncoders, device, cache);
  const like = model.encodeText(model.tokenize(['']));
  const rows = new Map<string, readonly Float32Array[]>();
  for (const caption of new Set(['', ...captions])) {
    const tokens = model.tokenize([caption]);
    const ids = await Promise.all(treeLeaves(tokens).map((leaf) => read(leaf)));
    rows.set(caption, await store.take(ids, async () => treeLeaves(await encode(tokens))));
  }
  encode.dispose();
  return { like, rows };
}
