/** What `deft sample` does. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { decodeImage } from '../data/index.ts';
import type { PromptSamples } from '../metrics/index.ts';
import { gridPng, picturePng } from '../report/index.ts';
import { makeFolder, writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { version } from '../version.ts';
import { fromPlanes } from '../world/index.ts';
import { drawPrompts } from './draw.ts';
import { openModel, openNamedDevice } from './open.ts';
import { fingerprint, type Recipe, readRecipe, withRecipe } from './recipe.ts';

/** What to draw: the options of the command, or what a picture's recipe says. */
export type Order = Pick<
  Recipe,
  'kind' | 'model' | 'prompts' | 'seeds' | 'steps' | 'guidance' | 'imageGuidance' | 'strength' | 'device'
> & {
  /** Files with the picture that each prompt names: none, or one for each. */
  readonly inputs: readonly string[];
};

/** Where pictures go. */
export interface Places {
  /** The sheet of all pictures; null for none. */
  readonly out: string | null;
  /** A folder for each picture in a file of its own; null for none. */
  readonly outDir: string | null;
}

/**
 * Draws a row for each prompt and a column for each seed. Every file holds the recipe that it can be drawn again from.
 * @throws {UserError}
 */
export async function sample(order: Order, places: Places): Promise<void> {
  await drawAndWrite(order, places, () => {});
}

/**
 * Draws a picture or sheet again, from the recipe in its file: the same bytes, with the same version and device.
 * @param changes the model or device to use in place of the recorded one
 * @throws {UserError} when the file holds no recipe, or the model has other weights than then
 */
export async function sampleAgain(
  path: string,
  changes: Partial<Pick<Order, 'model' | 'device'>>,
  places: Places,
): Promise<void> {
  const before = readRecipe(path);
  const { kind, model, prompts, seeds, steps, guidance, imageGuidance, strength, device } = before;
  const inputs = before.inputs.map(({ file }) => file);
  const how = { steps, guidance, imageGuidance, strength, device };
  const order: Order = { kind, model, prompts, seeds, inputs, ...how, ...changes };
  await drawAndWrite(order, places, (now) => {
    if (now.weights !== before.weights) {
      throw new UserError(
        `${path}: drawn by a model with other weights than ${order.model}: expected SHA-256 ` +
          `${before.weights.slice(0, 12)}...; got ${now.weights.slice(0, 12)}...`,
        2,
      );
    }
    const odd = now.inputs.findIndex(({ sha256 }, i) => sha256 !== before.inputs[i]!.sha256);
    if (odd >= 0) {
      throw new UserError(`${path}: drawn from another picture than ${now.inputs[odd]!.file} holds now`, 2);
    }
    const moved = (['version', 'device', 'adapter'] as const).filter((key) => now[key] !== before[key]);
    for (const key of moved) {
      console.error(`deft: drawn with ${key} "${before[key]}", now "${now[key]}": bytes may differ`);
    }
  });
}

async function drawAndWrite(order: Order, places: Places, check: (now: Recipe) => void): Promise<void> {
  const { prompts, seeds, steps, guidance, imageGuidance, strength } = order;
  const device = await openNamedDevice(order.device);
  const model = await openModel(order.model, device, strength);
  if (order.inputs.length > 0 && order.inputs.length !== prompts.length) {
    throw new UserError(
      `--image: expected none, or one for each of the ${prompts.length} prompts; got ${order.inputs.length}`,
      2,
    );
  }
  const inputs = await Promise.all(order.inputs.map((file) => readInput(file, model.pictureSize)));
  for (const prompt of prompts) {
    const problem = model.captionProblem(prompt, inputs.length > 0);
    if (problem) throw new UserError(`--prompt "${prompt}": ${problem}`, 2);
  }
  // Always in this order: it is part of the file's bytes.
  const recipe: Recipe = {
    format: 1,
    version,
    kind: order.kind,
    model: order.model,
    weights: await fingerprint(model),
    prompts,
    seeds,
    steps,
    guidance,
    inputs: inputs.map(({ file, sha256 }) => ({ file, sha256 })),
    imageGuidance,
    strength,
    width: model.pictureSize,
    height: model.pictureSize,
    device: device.kind,
    adapter: device.description,
  };
  check(recipe);
  if (places.out !== null) makeFolder(dirname(places.out));
  if (places.outDir !== null) makeFolder(places.outDir);
  const drawn = await drawPrompts(model, {
    prompts,
    seeds,
    steps,
    guidanceScale: guidance,
    imageGuidanceScale: imageGuidance,
    ...(inputs.length > 0 && { inputs: inputs.map(({ picture }) => picture) }),
    device,
  });
  if (places.out !== null) write(places.out, withRecipe(await wholeOf(drawn, order), recipe));
  if (places.outDir === null) return;
  for (const [p, { prompt, pictures }] of drawn.entries()) {
    for (const [s, picture] of pictures.entries()) {
      const own = recipe.inputs.slice(p, p + 1);
      const one: Recipe = { ...recipe, kind: 'picture', prompts: [prompt], seeds: [seeds[s]!], inputs: own };
      const file = join(places.outDir, pictureName(p, prompt, seeds[s]!));
      write(file, withRecipe(await picturePng(picture), one));
    }
  }
}

/** A picture that a prompt names, at the size that the model reads. @throws {UserError} */
async function readInput(file: string, size: number) {
  const bytes = await readFile(file).catch(() => {
    throw new UserError(`--image ${file}: no such file`, 2);
  });
  const planes = await decodeImage(bytes, size).catch((error: Error) => {
    throw new UserError(`--image ${file}: ${error.message}`, 2);
  });
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return { file, sha256, picture: fromPlanes(planes, size, size) };
}

/** The file that an order asks for: the one picture, or the sheet. */
function wholeOf(drawn: readonly PromptSamples[], { kind, prompts, seeds }: Order): Promise<Uint8Array> {
  const pictures = drawn.flatMap((row) => row.pictures);
  return kind === 'picture'
    ? picturePng(pictures[0]!)
    : gridPng(pictures, { columns: seeds.length, rowLabels: prompts });
}

function write(path: string, png: Uint8Array): void {
  writeFileAtomically(path, png);
  console.error(`deft: ${path}`);
}

/** "01-a-red-circle-seed-7.png": prompts may hold anything, names of files only letters, digits and dashes. */
function pictureName(index: number, prompt: string, seed: number): string {
  const words = prompt
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')
    .slice(0, 60);
  return [String(index + 1).padStart(2, '0'), words, `seed-${seed}.png`].filter(Boolean).join('-');
}
