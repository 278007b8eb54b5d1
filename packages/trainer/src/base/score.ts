/** `deft score`: pictures in a folder, against their captions and against real pictures, by encoders that are given or our own. */
import fs from 'node:fs';
import { join, parse } from 'node:path';
import type { RgbPicture } from '@deftjs/models';
import { shippedModel } from '../config/index.ts';
import { decodePicture, isImageName, readSidecar } from '../data/index.ts';
import {
  alignment,
  type Estimate,
  estimate,
  formatEstimate,
  frechetDistance,
  likeness,
  openPictureEncoder,
  type PictureEncoder,
} from '../metrics/index.ts';
import { writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { openNamedDevice } from './open.ts';
import { recipeIn } from './recipe.ts';

export interface ScoreRequest {
  /** Folders of encoders, or the names of shipped ones. */
  readonly encoders: readonly string[];
  /** A folder of real pictures; null: none. */
  readonly against: string | null;
  readonly device: string;
  /** Where the numbers are written; null: nowhere. */
  readonly json: string | null;
}

/** One number: what it is called, by which encoder. */
export interface Score {
  readonly metric: string;
  readonly encoder: string;
  readonly value: Estimate;
}

interface ScoredPicture {
  readonly name: string;
  readonly picture: RgbPicture;
  readonly caption: string | null;
}

/** The pictures of a folder, with the prompt of their recipe or the text file of their name. @throws {UserError} */
async function readPictures(folder: string): Promise<ScoredPicture[]> {
  if (!fs.existsSync(folder)) throw new UserError(`${folder}: no such folder`, 2);
  const names = fs.readdirSync(folder).filter(isImageName);
  if (names.length === 0) throw new UserError(`${folder}: no PNG, JPEG or WebP pictures are here`, 2);
  const pictures: ScoredPicture[] = [];
  const problems: string[] = [];
  for (const name of names.sort()) {
    const path = join(folder, name);
    try {
      const bytes = fs.readFileSync(path);
      pictures.push({ name, picture: await decodePicture(bytes), caption: await captionOf(path, bytes) });
    } catch (error) {
      problems.push(`${path}: ${(error as Error).message}`);
    }
  }
  if (problems.length > 0) throw new UserError(problems.join('\n'));
  return pictures;
}

async function captionOf(path: string, bytes: Uint8Array): Promise<string | null> {
  const { dir, name, ext } = parse(path);
  const recipe = ext.toLowerCase() === '.png' ? recipeIn(path, bytes) : null;
  if (recipe?.kind === 'picture') return recipe.prompts[0]!;
  const text = `${name}.txt`;
  return fs.existsSync(join(dir, text)) ? readSidecar(fs.realpathSync(dir), text) : null;
}

/** What the encoder says of the pictures: CLIP-T where all have captions, likeness and distance where real ones are given. */
export async function scoresBy(
  encoder: PictureEncoder,
  drawn: readonly { readonly picture: RgbPicture; readonly caption: string | null }[],
  real: readonly { readonly picture: RgbPicture }[] | null,
): Promise<Score[]> {
  const scores: Score[] = [];
  const add = (metric: string, values: readonly number[]): void => {
    scores.push({ metric, encoder: encoder.name, value: estimate(values) });
  };
  const features = await encoder.pictures(drawn.map(({ picture }) => picture));
  const captions = drawn.flatMap(({ caption }) => (caption === null ? [] : [caption]));
  if (encoder.texts && captions.length === drawn.length) {
    add('CLIP-T', alignment(features, await encoder.texts(captions)));
  }
  if (real === null) return scores;
  const others = await encoder.pictures(real.map(({ picture }) => picture));
  add(encoder.texts ? 'CLIP-I' : `${encoder.name} similarity`, likeness(features, others));
  if (features.length > 1 && others.length > 1) add('Fréchet distance', [frechetDistance(features, others)]);
  return scores;
}

/** Prints the scores of every encoder. @throws {UserError} */
export async function scoreFolder(folder: string, request: ScoreRequest): Promise<void> {
  const { encoders, against, json } = request;
  const drawn = await readPictures(folder);
  const real = against === null ? null : await readPictures(against);
  const device = await openNamedDevice(request.device);
  const scores: Score[] = [];
  for (const path of encoders) {
    const encoder = await openPictureEncoder(shippedModel(path) ?? path, device);
    const some = await scoresBy(encoder, drawn, real);
    const uncaptioned = drawn.filter(({ caption }) => caption === null);
    if (encoder.texts && uncaptioned.length > 0) {
      const names = `${uncaptioned[0]!.name}${uncaptioned.length > 1 ? ` and ${uncaptioned.length - 1} more` : ''}`;
      console.log(
        `CLIP-T: not measured; ${names} have no caption (a recipe inside, or a text file beside it)`,
      );
    }
    for (const { metric, encoder: name, value } of some) {
      console.log(`${metric} ${formatEstimate(value)} (${name}, ${drawn.length} pictures)`);
    }
    scores.push(...some);
  }
  if (json !== null) {
    const contents = { format: 1, folder, against, pictures: drawn.length, scores };
    writeFileAtomically(json, `${JSON.stringify(contents, null, 2)}\n`);
  }
}
