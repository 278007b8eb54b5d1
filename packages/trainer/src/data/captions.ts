/** Captions as people write them: a text file beside each picture, or one metadata.jsonl or metadata.csv for all. */
import { readInside } from './insideFile.ts';

const maxSidecarBytes = 2 ** 16;
const maxMetadataBytes = 2 ** 24;

/**
 * Files that hold `file_name` and `text` of each picture, and `input_file_name` where it is drawn from another: a JSON object per
 * line, or rows under a line of headings.
 */
export const metadataFiles = ['metadata.jsonl', 'metadata.csv'] as const;
export type MetadataFile = (typeof metadataFiles)[number];

/** A row of such a file. */
export interface CaptionRow {
  readonly file: string;
  readonly caption: string;
  /** The picture that the caption names; null for none. */
  readonly input: string | null;
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
 * The rows of the folder's metadata file.
 *
 * @param problem called with the line number and what is wrong with it; such a line gives no row
 * @throws {Error} with a reason in words when the file cannot be read at all
 */
export async function readMetadata(
  folder: string,
  name: MetadataFile,
  problem: (line: number, reason: string) => void,
): Promise<CaptionRow[]> {
  const bytes = await readInside(folder, name, maxMetadataBytes);
  const text = new TextDecoder('utf-8').decode(bytes);
  const rows = new Map<string, CaptionRow>();
  const take = (line: number, read: () => CaptionRow): void => {
    try {
      const row = read();
      const earlier = rows.get(row.file);
      if (earlier) throw new Error(`${row.file} has a row already, in line ${earlier.line}`);
      rows.set(row.file, row);
    } catch (error) {
      problem(line, (error as Error).message);
    }
  };
  if (name === 'metadata.csv') {
    for (const { line, read } of csvRows(text)) take(line, read);
  } else {
    text.split('\n').forEach((json, index) => {
      if (json.trim() !== '') take(index + 1, () => parseRow(json, index + 1));
    });
  }
  return [...rows.values()];
}

/** The rows under the headings, each with the line it begins in. @throws {Error} when the headings lack a column */
function csvRows(text: string): { line: number; read: () => CaptionRow }[] {
  const [headings, ...records] = csvRecords(text);
  const columns = ['file_name', 'text', 'input_file_name'];
  const [file, caption, input] = columns.map((name) => headings?.cells.indexOf(name) ?? -1);
  if (file === -1 || caption === -1)
    throw new Error('expected the columns file_name and text in the first line');
  return records.map(({ line, cells }) => ({
    line,
    read: () => {
      if (cells.length !== headings!.cells.length) {
        throw new Error(`expected ${headings!.cells.length} columns; got ${cells.length}`);
      }
      const [name, words, given] = [cells[file!]!, cells[caption!]!, cells[input!] ?? ''];
      if (`${name}${words}${given}`.includes('\ufffd')) throw new Error('not UTF-8 text');
      return { file: name, caption: oneLine(words), input: given || null, line };
    },
  }));
}

/**
 * Records of RFC 4180: cells between commas, in quotes where they hold commas, quotes (twice) or line breaks.
 * @throws {Error} when the text is none
 */
function csvRecords(text: string): { line: number; cells: string[] }[] {
  const records: { line: number; cells: string[] }[] = [];
  let [line, read]: [number, number] = [1, 0];
  let record: { line: number; cells: string[] } | null = null;
  for (const [whole, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/gy)) {
    if (whole === '' && record === null) break; // the end of the text
    record ??= { line, cells: [] };
    record.cells.push(quoted?.replaceAll('""', '"') ?? plain!);
    read += whole!.length;
    line += whole!.split('\n').length - 1;
    if (end === ',') continue;
    if (record.cells.join('') !== '') records.push(record);
    record = null;
  }
  if (read < text.length) throw new Error(`line ${line} cannot be read as CSV: is a quote not closed?`);
  return records;
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
  const { file_name: file, text, input_file_name: input = null } = (row ?? {}) as Record<string, unknown>;
  if (typeof file !== 'string' || typeof text !== 'string') {
    throw new Error('expected {"file_name": "...", "text": "..."}');
  }
  if (input !== null && typeof input !== 'string') throw new Error('expected "input_file_name": "..."');
  return { file, caption: oneLine(text), input, line };
}
