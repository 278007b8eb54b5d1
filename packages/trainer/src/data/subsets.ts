/**
 * A data folder: pictures, or folders named as kohya's trainers want them, `10_sks toy`: how often the pictures inside are
 * taken in an epoch, and the caption of those that have none of their own.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../userError.ts';
import { type FolderOptions, type ImageFolder, readImageFolder, type TrainingPicture } from './folder.ts';

/** What an epoch is made of. */
export interface TrainingData extends ImageFolder {
  /** The pictures of an epoch: each as often as its folder says. */
  readonly epoch: readonly TrainingPicture[];
}

/** A folder's name, what it says, and what is in it. */
interface Subset {
  readonly name: string;
  readonly repeats: number;
  readonly content: ImageFolder;
}

/**
 * The pictures of a data folder, of its subsets where it has them.
 * @throws {UserError} exit status 1, one line for each picture or caption that cannot be used, whatever its subset
 */
export async function readTrainingData(folder: string, options: FolderOptions): Promise<TrainingData> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []); // readImageFolder says what is wrong
  const named = entries
    .filter((entry) => entry.isDirectory())
    .flatMap(({ name }) => {
      const parts = /^(\d{1,4})_(\S.*)$/.exec(name);
      return parts && Number(parts[1]) > 0 ? [{ name, repeats: Number(parts[1]), prompt: parts[2]! }] : [];
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  if (named.length === 0) {
    const content = await readImageFolder(folder, options);
    return { ...content, epoch: content.pictures };
  }
  const subsets: Subset[] = [];
  const problems: string[] = [];
  for (const { name, repeats, prompt } of named) {
    try {
      const content = await readImageFolder(join(folder, name), { ...options, instancePrompt: prompt });
      subsets.push({ name, repeats, content });
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      problems.push(error.message);
    }
  }
  if (problems.length > 0) throw new UserError(problems.join('\n'));
  return joined(
    subsets,
    entries.map(({ name }) => name).filter((name) => !name.startsWith('.')),
  );
}

function joined(subsets: readonly Subset[], names: readonly string[]): TrainingData {
  const within = <T extends { readonly path: string }>(name: string, files: readonly T[]): T[] =>
    files.map((file) => ({ ...file, path: `${name}/${file.path}` }));
  const parts = subsets.map(({ name, repeats, content }) => ({
    repeats,
    pictures: within(name, content.pictures),
    passedOver: within(name, content.passedOver),
    source: `${name}: ${content.captionSource}`,
  }));
  const beside = names.filter((name) => !subsets.some((subset) => subset.name === name));
  return {
    pictures: parts.flatMap(({ pictures }) => pictures),
    epoch: parts.flatMap(({ pictures, repeats }) => Array.from({ length: repeats }, () => pictures).flat()),
    passedOver: [
      ...parts.flatMap(({ passedOver }) => passedOver),
      ...beside.map((path) => ({
        path,
        reason: 'beside folders that say how often their pictures are taken',
      })),
    ],
    captionSource: parts.map(({ source }) => source).join('; '),
  };
}
