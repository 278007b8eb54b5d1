/** How a picture was drawn, as it stands in the picture's own PNG file. */
import { createHash, type Hash } from 'node:crypto';
import fs from 'node:fs';
import { stateOf } from '@deftjs/autograd/nn';
import { read, type Tensor } from '@deftjs/tensor';
import { z } from 'zod';
import { list, real, section, seed, text, whole } from '../config/fields.ts';
import { pngText, withPngText } from '../report/index.ts';
import { UserError } from '../userError.ts';
import type { TextToImage } from './textToImage.ts';

const keyword = 'deft';

function sha256() {
  const error = 'expected a SHA-256';
  return z.string({ error }).regex(/^[0-9a-f]{64}$/, { error });
}

const recipeSchema = section({
  format: z.literal(1, { error: 'expected 1; a newer deft may have drawn it' }),
  /** The version of deft. */
  version: text(100),
  /** A sheet has a row for each prompt and a column for each seed; a picture has one of each. */
  kind: z.enum(['sheet', 'picture'], { error: 'expected sheet or picture' }),
  /** As the command named it. */
  model: text(4096),
  /** SHA-256 of every weight, those of the adapter among them: {@link fingerprint}. */
  weights: sha256(),
  prompts: list(text(10_000), 1, 1000),
  seeds: list(seed(), 1, 1000),
  steps: whole(1, 1000),
  guidance: real(0, 100),
  /** The picture that each prompt names, none or one for each, and how close to keep to them. */
  inputs: list(section({ file: text(4096), sha256: sha256() }), 0, 1000).default([]),
  imageGuidance: real(0, 100).default(1.5),
  strength: real(-10, 10),
  width: whole(1, 65_536),
  height: whole(1, 65_536),
  /** The kind of device and its own words: bits may differ on another. */
  device: text(100),
  adapter: text(1000),
});

/** Everything that a picture or sheet of `deft sample` depends on. */
export type Recipe = z.output<typeof recipeSchema>;

/** The PNG file with its recipe inside. */
export function withRecipe(png: Uint8Array, recipe: Recipe): Uint8Array {
  return withPngText(png, keyword, JSON.stringify(recipe));
}

/** The recipe inside a PNG file. @throws {UserError} when the file holds none that can be used */
export function readRecipe(path: string): Recipe {
  if (!fs.existsSync(path)) throw new UserError(`${path}: no such file`, 2);
  const recipe = recipeIn(path, fs.readFileSync(path));
  if (recipe === null) throw new UserError(`${path}: the picture holds no recipe of deft sample`, 2);
  return recipe;
}

/** The recipe in the bytes of a PNG file, null where there is none. @throws {UserError} as {@link readRecipe} */
export function recipeIn(path: string, png: Uint8Array): Recipe | null {
  const refuse = (problem: string): never => {
    throw new UserError(`${path}: ${problem}`, 2);
  };
  let written: string | null;
  let parsed: unknown;
  try {
    written = pngText(png, keyword);
    parsed = JSON.parse(written ?? 'null');
  } catch (error) {
    return refuse((error as Error).message);
  }
  if (written === null) return null;
  const checked = recipeSchema.safeParse(parsed);
  if (checked.success) return checked.data;
  const { path: key, message } = checked.error.issues[0]!;
  return refuse(`its recipe cannot be used: ${key.join('.')}: ${message}`);
}

/** SHA-256 of a model's weights with their paths and shapes, in the order of the paths. */
export async function fingerprint(model: TextToImage): Promise<string> {
  const hash = createHash('sha256');
  await hashWeights(hash, stateOf(model));
  return hash.digest('hex');
}

/** Adds weights with their paths and shapes to a hash, in the order of the paths. */
export async function hashWeights(hash: Hash, weights: Readonly<Record<string, Tensor>>): Promise<void> {
  const state = Object.entries(weights).sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [path, weight] of state) {
    hash.update(`${path} ${weight.dtype} ${weight.shape.join(' ')}\n`);
    const { buffer, byteOffset, byteLength } = await read(weight);
    hash.update(new Uint8Array(buffer, byteOffset, byteLength));
  }
}
