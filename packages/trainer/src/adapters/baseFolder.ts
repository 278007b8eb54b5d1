/**
 * Base models as files: their weights by part and layer, read one at a time. No model is built, so that any folder of
 * diffusers or transformers will do, of any size.
 */
import fs from 'node:fs';
import { join, resolve } from 'node:path';
import type { LayerShapes, Parts } from '@deftjs/deft';
import { type OpenWeights, openWeights, readConfigFile } from '@deftjs/models/node';
import { asFloat32, type Shape, type Tensor, tensor } from '@deftjs/tensor';
import { UserError } from '../userError.ts';

/** The parts of a pipeline that adapters are for, as diffusers calls them. */
const partNames = ['unet', 'transformer', 'text_encoder', 'text_encoder_2'];

export interface BasePart {
  readonly folder: string;
  readonly weights: OpenWeights;
  readonly layers: LayerShapes;
}

export interface BaseFolder extends AsyncDisposable {
  readonly folder: string;
  readonly parts: Parts<BasePart>;
}

/** @throws {UserError} when the folder holds no model */
export async function openBase(named: string): Promise<BaseFolder> {
  const folder = resolve(named);
  const places = await placesIn(folder);
  const parts: Record<string, BasePart> = {};
  const close = async (): Promise<void> => {
    for (const { weights } of Object.values(parts)) await weights.close();
  };
  try {
    for (const [part, place] of places) {
      const weights = await openWeights(place);
      parts[part] = { folder: place, weights, layers: layersOf(weights) };
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { folder, parts, [Symbol.asyncDispose]: close };
}

async function placesIn(folder: string): Promise<[string, string][]> {
  if (fs.existsSync(join(folder, 'model_index.json'))) {
    const places = partNames.filter((part) => fs.existsSync(join(folder, part, 'config.json')));
    return places.map((part) => [part, join(folder, part)]);
  }
  if (!fs.existsSync(join(folder, 'config.json'))) {
    throw new UserError(`--base ${folder}: expected a folder with model_index.json or config.json`, 2);
  }
  const { _class_name: name } = await readConfigFile(join(folder, 'config.json'));
  const part = /Transformer2DModel$/.test(String(name))
    ? 'transformer'
    : name === undefined
      ? 'text_encoder'
      : 'unet';
  return [[part, folder]];
}

/** What is looked up by an index is no layer, though its table is a matrix. */
const isTable = (path: string): boolean => /(^|\.)(\w+_embedding|\w*embeddings?|shared|wte|wpe)$/.test(path);

function layersOf({ names, info }: OpenWeights): LayerShapes {
  return new Map(
    names.flatMap((name): [string, Shape][] => {
      const path = /^(?:(.*)\.)?weight$/.exec(name)?.[1];
      return path === undefined || isTable(path) ? [] : [[path, info(name).shape]];
    }),
  );
}

/** A layer's weight, float32. */
export async function readWeight({ weights }: BasePart, path: string): Promise<Tensor> {
  const values = await weights.read(`${path}.weight`);
  return tensor(asFloat32(values), values.shape);
}

/** The shapes of all parts' layers. */
export function shapesOf({ parts }: BaseFolder): Parts<LayerShapes> {
  return Object.fromEntries(Object.entries(parts).map(([part, { layers }]) => [part, layers]));
}
