/** Pipelines of random weights in the layouts of the published ones. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { namedParameters, type Parameter } from '@deftjs/autograd/nn';
import {
  asFloat16,
  type HostArray,
  type Key,
  keyOf,
  numel,
  read,
  referenceDevice,
  type Shape,
} from '@deftjs/tensor';
import type { Layout, LayoutPart } from '../layouts.ts';
import { writeWeights } from './writeWeights.ts';

/**
 * Numbers drawn for one tensor, which is filled by repeating them: a prime, so that rows of a matrix differ. A fresh
 * number for each of billions of weights would take longer than all that is measured with them.
 */
const drawn = 65537;

/**
 * Writes the layout with weights as the models are initialised, from the seed.
 * @throws the system's error
 */
export async function writeRandomModel(
  folder: string,
  layout: Layout,
  { dtype, seed = 0 }: { readonly dtype: 'f32' | 'f16'; readonly seed?: number },
): Promise<void> {
  for (const part of layout.parts) await writeRandomPart(join(folder, part.folder), part, { dtype, seed });
  await mkdir(join(folder, 'scheduler'), { recursive: true });
  await writeJson(join(folder, 'scheduler', 'scheduler_config.json'), layout.scheduler);
  const parts = layout.parts.map(({ folder: name, library, config }) => [name, [library, classOf(config)]]);
  await writeJson(join(folder, 'model_index.json'), {
    _class_name: layout.pipeline,
    scheduler: ['diffusers', layout.scheduler._class_name],
    ...Object.fromEntries(parts),
  });
}

/** Writes one part of a layout: config.json and weights. @throws the system's error */
export async function writeRandomPart(
  folder: string,
  { config, library, create }: LayoutPart,
  { dtype, seed = 0 }: { readonly dtype: 'f32' | 'f16'; readonly seed?: number },
): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeJson(join(folder, 'config.json'), config);
  const weights = [...namedParameters(create(config))].map(([name, parameter], i) => ({
    name,
    dtype,
    shape: parameter.shape,
    values: () => randomValues(parameter, keyOf(seed + i), dtype),
  }));
  const prefix = library === 'diffusers' ? 'diffusion_pytorch_' : '';
  await writeWeights(folder, `${prefix}model.safetensors`, weights);
}

function classOf({ _class_name: diffusers, architectures }: LayoutPart['config']): unknown {
  return diffusers ?? (architectures as readonly string[])[0];
}

function writeJson(path: string, value: unknown): Promise<void> {
  return writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}

async function randomValues(parameter: Parameter, key: Key, dtype: 'f32' | 'f16'): Promise<HostArray> {
  const numbers = Float32Array.from(await initialNumbers(parameter, key));
  const pattern = dtype === 'f16' ? asFloat16({ dtype: 'f32', shape: [], data: numbers }) : numbers;
  const values = new (dtype === 'f16' ? Uint16Array : Float32Array)(numel(parameter.shape));
  for (let at = 0; at < values.length; at += pattern.length) {
    values.set(pattern.subarray(0, Math.min(pattern.length, values.length - at)), at);
  }
  return values;
}

/** Values for the whole parameter, or for as many of its first rows as hold the numbers that are repeated. */
async function initialNumbers({ shape, initializer }: Parameter, key: Key): Promise<ArrayLike<number>> {
  const rowSize = numel(shape.slice(1));
  const rows = Math.ceil(drawn / rowSize);
  const part: Shape = shape.length > 0 && rows < shape[0]! ? [rows, ...shape.slice(1)] : shape;
  const numbers = await read(initializer(part, key), referenceDevice());
  return part === shape ? numbers : numbers.subarray(0, drawn);
}
