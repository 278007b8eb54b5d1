/** Captions as people write them: a text file beside each picture, or one metadata.jsonl for all. */
import { readInside } from './insideFile.ts';

const maxSidecarBytes = 2 ** 16;
const maxMetadataBytes = 2 ** 24;

/** The file that holds one JSON object per line, with `file_name` and `text`. */
export const metadataFile = 'metadata.jsonl';

/** A row of metadata.jsonl. */
export interface CaptionRow {
  readonly file: string;
  readonly caption: string;
  /** Counted from 1. */
  readonly line: number;
}

/** Bytes as UTF-8 on one line, trimmed; throws an Error with a reason in words. */
function plainText(bytes: Uint8Array): string {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Error('not UTF-8 text');
  }
  return oneLine(text);
}

function oneLine(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  if (/[\p{Cc}\p{Bidi_Control}]/u.test(line)) throw new Error('a control character in the caption');
  return line;
}

/** The caption in a text file of the folder. @throws {Error} with a reason in words */
export async function readSidecar(folder: string, name: string): Promise<string> {
  return plainText(await readInside(folder, name, maxSidecarBytes));
}

/**
 * The rows of the folder's metadata.jsonl.
 *
 * @param problem called with the line number and what is wrong with it; such a line gives no row
 * @throws {Error} with a reason in words when the file cannot be read at all
 */
export async function readMetadata(
  folder: string,
  problem: (line: number, reason: string) => void,
): Promise<CaptionRow[]> {
  const bytes = await readInside(folder, metadataFile, maxMetadataBytes);
  const text = new TextDecoder('utf-8').decode(bytes);
  const rows = new Map<string, CaptionRow>();
  text.split('\n').forEach((json, index) => {
    if (json.trim() === '') return;
    const line = index + 1;
    try {
      const row = parseRow(json, line);
      const earlier = rows.get(row.file);
      if (earlier) throw new Error(`${row.file} has a row already, in line ${earlier.line}`);
      rows.set(row.file, row);
    } catch (error) {
      problem(line, (error as Error).message);
    }
  });
  return [...rows.values()];
}

function parseRow(json: string, line: number): CaptionRow {
  if (json.length > maxSidecarBytes) throw new Error(`longer than ${maxSidecarBytes} characters`);
  if (json.includes('\ufffd')) throw new Error('not UTF-8 text');
  let row: unknown;
  try {
    row = JSON.parse(json);
  } catch {
    throw new Error('not a JSON object');
  }
  const { file_name: file, text } = (row ?? {}) as Record<string, unknown>;
  if (typeof file !== 'string' || typeof text !== 'string') {
    throw new Error('expected {"file_name": "...", "text": "..."}');
  }
  return { file, caption: oneLine(text), line };
}
