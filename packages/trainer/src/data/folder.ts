/** A folder of captioned pictures, as `deft train` reads it: everything that is wrong with it is said at once. */
import { readdir, realpath } from 'node:fs/promises';
import { extname, parse } from 'node:path';
import { UserError } from '../userError.ts';
import type { PictureSize } from './buckets.ts';
import { metadataFiles, readMetadata, readSidecar } from './captions.ts';
import { decodeImage, decodeNearest, decodeWhole, type Planes } from './imageFile.ts';
import { readInside } from './insideFile.ts';

/** One picture to train on. */
export interface TrainingPicture {
  /** Relative to the folder. */
  readonly path: string;
  readonly caption: string;
  /** 3 x size x size numbers in [-1, 1], or 3 x height x width of `bucket`. */
  readonly pixels: Float32Array;
  /** Its size, where that is not the square. */
  readonly bucket?: PictureSize;
  /** All of a picture that is no square, where it is asked for. */
  readonly whole?: Planes;
  /** The picture that the caption names, as `pixels`; absent where it names none. */
  readonly input?: Float32Array;
}

/** What a folder gave. */
export interface ImageFolder {
  /** In the order of their names. */
  readonly pictures: readonly TrainingPicture[];
  /** Files that were passed over, each with the reason: for the user to read. */
  readonly passedOver: readonly { readonly path: string; readonly reason: string }[];
  /** Where the captions came from, such as "5 from text files beside the pictures". */
  readonly captionSource: string;
}

export interface FolderOptions {
  /** Width and height that the model takes, in pixels. */
  readonly size: number;
  /** The caption of pictures that have none of their own. */
  readonly instancePrompt: string | null;
  /**
   * What is wrong with a caption, such as too many words for the text encoder; null when nothing is.
   * @param hasInput whether a picture is given with it
   */
  readonly captionProblem: (caption: string, hasInput: boolean) => string | null;
  /** Sizes of which each picture takes the nearest in shape; default: the square alone. */
  readonly buckets?: readonly PictureSize[];
  /** Whether pictures that are no squares are kept whole too; default: only their middles. */
  readonly keepWhole?: boolean;
  /** A word that is put before captions that lack it. */
  readonly triggerWord?: string | null;
  /** More problems than this are counted, not listed; default 10. */
  readonly maxProblems?: number;
}

const extensions = new Set(['.png', '.jpg', '.jpeg', '.webp']);
const maxImageBytes = 64 * 2 ** 20;

type CaptionKind = 'text file' | 'row' | 'instance prompt';

/**
 * The pictures of a folder with their captions. A caption is the picture's row in metadata.jsonl or metadata.csv, or the text file of
 * the same name beside it, or else the instance prompt.
 *
 * @throws {UserError} exit status 1, one line for each picture or caption that cannot be used
 */
export async function readImageFolder(folder: string, options: FolderOptions): Promise<ImageFolder> {
  const root = await realpath(folder).catch(() => {
    throw new UserError(`${folder}: no such folder; expected one with PNG, JPEG or WebP pictures`);
  });
  const entries = await readdir(root, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    throw new UserError(
      `${folder}: ${error.code === 'ENOTDIR' ? 'not a folder' : `cannot be read (${error.code})`}`,
    );
  });
  const names = entries.map(({ name }) => name).filter((name) => !name.startsWith('.'));
  names.sort(); // by code unit: the same order everywhere
  const problems: string[] = [];
  const problem = (name: string, reason: string): void => void problems.push(`${folder}/${name}: ${reason}`);

  const [metadataFile = 'metadata.jsonl', second] = metadataFiles.filter((name) => names.includes(name));
  if (second) problem(second, `captions are in ${metadataFile} too; keep one of them`);
  const rows = names.includes(metadataFile)
    ? await readMetadata(root, metadataFile, (line, reason) =>
        problem(`${metadataFile}:${line}`, reason),
      ).catch((error: Error) => {
        problem(metadataFile, error.message);
        return [];
      })
    : [];
  const rowOf = new Map(rows.map((row) => [row.file, row]));
  const inputs = new Set(rows.flatMap(({ input }) => input ?? []));
  const own = names.filter((name) => isImageName(name) && !inputs.has(name));
  const images = [...new Set([...own, ...rowOf.keys()])].sort();
  if (images.length === 0 && problems.length === 0) {
    throw new UserError(`${folder}: no pictures; expected PNG, JPEG or WebP files`);
  }

  const pictures: TrainingPicture[] = [];
  const sources: CaptionKind[] = [];
  for (const path of images) {
    const row = rowOf.get(path);
    const label = row ? `${metadataFile}:${row.line}: ${path}` : path;
    try {
      const bytes = await readInside(root, path, maxImageBytes);
      const { pixels, width, height } = await decodeNearest(
        bytes,
        options.buckets ?? [{ width: options.size, height: options.size }],
      );
      const bucket = width !== height ? { width, height } : null;
      const whole = options.keepWhole ? await decodeWhole(bytes, options.size) : null;
      const hasMore = whole !== null && whole.width !== whole.height;
      const input = row?.input
        ? await readInside(root, row.input, maxImageBytes)
            .then((given) => decodeImage(given, options.size))
            .catch((error: Error) => {
              throw new Error(`${row.input}: ${error.message}`);
            })
        : null;
      const sidecar = `${path.slice(0, path.length - extname(path).length)}.txt`;
      const beside = names.includes(sidecar) ? await readSidecar(root, sidecar) : null;
      const files = { sidecar, metadataFile };
      const { caption, kind } = chooseCaption(row?.caption ?? null, beside, files, input !== null, options);
      pictures.push({
        path,
        caption,
        pixels,
        ...(bucket && { bucket }),
        ...(hasMore && { whole }),
        ...(input && { input }),
      });
      sources.push(kind);
    } catch (error) {
      problem(label, (error as Error).message);
    }
  }
  const without = pictures.find(({ input }) => !input);
  if (inputs.size > 0 && without) {
    problem(without.path, 'expected an input_file_name in its row, as the other pictures have');
  }
  if (problems.length > 0) throw new UserError(summarise(folder, problems, options.maxProblems));
  return {
    pictures,
    passedOver: passedOver(names, [...images, ...inputs]),
    captionSource: describeSources(sources, metadataFile),
  };
}

/** Whether a file is taken for a picture. */
export function isImageName(name: string): boolean {
  return extensions.has(extname(name).toLowerCase());
}

function chooseCaption(
  row: string | null,
  own: string | null,
  { sidecar, metadataFile }: { readonly sidecar: string; readonly metadataFile: string },
  hasInput: boolean,
  { instancePrompt, captionProblem, triggerWord = null }: FolderOptions,
): { caption: string; kind: CaptionKind } {
  if (row && own && row !== own)
    throw new Error(`two captions, in ${metadataFile} and in ${sidecar}; keep one`);
  const [written, kind]: [string | null, CaptionKind] = row
    ? [row, 'row']
    : own
      ? [own, 'text file']
      : [instancePrompt, 'instance prompt'];
  if (!written) {
    throw new Error(
      `no caption; write one into ${sidecar} or ${metadataFile}, or give data.instance_prompt for all pictures`,
    );
  }
  const lacks = triggerWord !== null && !written.split(/[\s,]+/).includes(triggerWord);
  const caption = lacks ? `${triggerWord} ${written}` : written;
  const wrong = captionProblem(caption, hasInput);
  if (wrong !== null) throw new Error(`${wrong}: "${caption.slice(0, 100)}"`);
  return { caption, kind };
}

/** The files that are neither a picture nor a caption of one. */
function passedOver(names: readonly string[], images: readonly string[]): ImageFolder['passedOver'] {
  const stems = new Set(images.map((path) => parse(path).name));
  const used = new Set<string>([...images, ...metadataFiles]);
  return names
    .filter((name) => !used.has(name) && !(extname(name) === '.txt' && stems.has(parse(name).name)))
    .map((path) => ({
      path,
      reason: extname(path) === '.txt' ? 'the caption of no picture' : 'not named .png, .jpg, .jpeg or .webp',
    }));
}

function describeSources(sources: readonly CaptionKind[], metadataFile: string): string {
  const words: Readonly<Record<CaptionKind, string>> = {
    'text file': 'from text files beside the pictures',
    row: `from ${metadataFile}`,
    'instance prompt': 'from the instance prompt',
  };
  return (Object.keys(words) as CaptionKind[])
    .map((kind) => ({ kind, number: sources.filter((source) => source === kind).length }))
    .filter(({ number }) => number > 0)
    .map(({ kind, number }) => `${number} ${words[kind]}`)
    .join(', ');
}

function summarise(folder: string, problems: readonly string[], maxProblems = 10): string {
  if (problems.length <= maxProblems) return problems.join('\n');
  const rest = problems.length - maxProblems;
  return [...problems.slice(0, maxProblems), `${folder}: and ${rest} more problems`].join('\n');
}
