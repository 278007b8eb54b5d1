/**
 * The header of a safetensors file: 8 bytes of little-endian length, that many bytes of JSON, then the data.
 * Everything is checked before a single tensor is read; what the format leaves open is refused or warned about.
 */
import { type Json, JsonError, type JsonObject, parseJson } from './json.ts';

/** A file that is not a safetensors file, or a tensor in it that cannot be used. */
export class SafetensorsError extends Error {
  override readonly name = 'SafetensorsError';
  /** What the source calls itself: a path, mostly. */
  readonly file: string;
  /** The tensor concerned, if the problem is one tensor's. */
  readonly tensor: string | undefined;
  readonly problem: string;

  constructor(file: string, problem: string, tensor?: string) {
    const where = tensor === undefined ? '' : ` tensor ${JSON.stringify(tensor)}:`;
    super(`safetensors: ${file}:${where} ${problem}`);
    this.file = file;
    this.tensor = tensor;
    this.problem = problem;
  }
}

/** Bytes that can be read by range, [start, end). */
export interface ByteSource {
  /** What messages call it. */
  readonly name: string;
  readonly size: number;
  read(start: number, end: number): Promise<Uint8Array>;
}

/** Where a tensor lies: shape, the file's own dtype name, and bytes [start, end) of the whole file. */
export interface TensorInfo {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly start: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, string>;
  /** What is odd but harmless, a sentence each. */
  readonly warnings: readonly string[];
}

/** The format's own limit on the header. */
const maxHeaderBytes = 100_000_000;
const maxTensors = 200_000;
const maxRank = 8;
const maxExtent = 2n ** 32n;
const maxExact = BigInt(Number.MAX_SAFE_INTEGER);

/** Bytes per element of the dtypes whose elements fill whole bytes, in the format's own order. */
export const storedBytes: ReadonlyMap<string, number> = new Map([
  ['BOOL', 1],
  ['U8', 1],
  ['I8', 1],
  ['F8_E5M2', 1],
  ['F8_E4M3', 1],
  ['F8_E8M0', 1],
  ['I16', 2],
  ['U16', 2],
  ['F16', 2],
  ['BF16', 2],
  ['I32', 4],
  ['U32', 4],
  ['F32', 4],
  ['C64', 8],
  ['F64', 8],
  ['I64', 8],
  ['U64', 8],
]);

/**
 * The checked header of the file.
 * @throws SafetensorsError naming the file, the tensor and the rule that is broken
 */
export async function readHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const fail = (problem: string): never => {
    throw new SafetensorsError(source.name, problem);
  };
  if (source.size < 8) fail(`file too short: ${source.size} of 8 header-length bytes`);
  const prefix = await readExactly(source, 0, Math.min(source.size, 64));
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  // A file of another kind has some length or other in its first bytes, so its kind is only asked for on failure.
  const failAsForeign = (problem: string): never => fail(foreignFormat(prefix) ?? problem);
  if (length === 0n) failAsForeign('header length 0, need at least 2');
  if (length > maxHeaderBytes) failAsForeign(`header length ${length} over limit ${maxHeaderBytes}`);
  const dataStart = 8 + Number(length);
  if (dataStart > source.size) {
    failAsForeign(`header runs past end of file (needs ${dataStart} bytes, file has ${source.size})`);
  }
  const bytes = await readExactly(source, 8, dataStart);
  const text = decodeUtf8(source.name, bytes);
  if (/^\s*[[n]/.test(text)) fail('header must be an object');
  if (text[0] !== '{') failAsForeign('header must start with "{"');
  return checkHeader(source.name, parseHeader(source.name, text), dataStart, source.size);
}

/**
 * Bytes [start, end) of the source.
 * @throws SafetensorsError when there are fewer: the file shrank while it was open
 */
export async function readExactly(source: ByteSource, start: number, end: number): Promise<Uint8Array> {
  const bytes = await source.read(start, end);
  if (bytes.length !== end - start) {
    throw new SafetensorsError(
      source.name,
      `file changed while open: bytes ${start} to ${end} are not there`,
    );
  }
  return bytes;
}

function foreignFormat(prefix: Uint8Array): string | undefined {
  const text = String.fromCharCode(...prefix);
  if (prefix[0] === 0x80 && prefix[1]! >= 2 && prefix[1]! <= 5)
    return 'this is a pickle checkpoint; convert it to safetensors';
  if (text.startsWith('PK\x03\x04')) return 'this is a zip (.pt) checkpoint; convert it to safetensors';
  if (text.startsWith('version https://git-lfs')) return 'this is a git-LFS pointer; run git lfs pull';
  if (/^\s*<(?:!doctype|html)/i.test(text)) return 'this looks like HTML (a failed download?)';
  return undefined;
}

function decodeUtf8(file: string, bytes: Uint8Array): string {
  const decoder = () => new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  try {
    return decoder().decode(bytes);
  } catch {
    // The longest prefix that could still become UTF-8 ends where the fault is.
    let good = 0;
    let bad = bytes.length + 1;
    while (bad - good > 1) {
      const middle = (good + bad) >>> 1;
      try {
        decoder().decode(bytes.subarray(0, middle), { stream: true });
        good = middle;
      } catch {
        bad = middle;
      }
    }
    throw new SafetensorsError(file, `header not UTF-8 at byte ${8 + good}`);
  }
}

type Member = Json<bigint | number>;

// Integer literals become bigints and only they do: 4.0 and 1e2 are not offsets.
function headerNumber(literal: string): bigint | number | undefined {
  if (/^-?[0-9]{1,20}$/.test(literal)) return BigInt(literal);
  return /[NI]/.test(literal) ? undefined : Number(literal);
}

function parseHeader(file: string, text: string): JsonObject<bigint | number> {
  try {
    const rules = { maxDepth: 4, maxMembers: maxTensors + 1, number: headerNumber };
    return parseJson(text, rules) as JsonObject<bigint | number>; // it starts with "{"
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    const trailing = error.message.endsWith('text after the value');
    const problem = trailing ? 'only spaces may follow the header JSON' : `header ${error.message}`;
    throw new SafetensorsError(file, `${problem} (at character ${error.at} of ${text.length})`);
  }
}

function checkHeader(
  file: string,
  root: JsonObject<bigint | number>,
  dataStart: number,
  fileSize: number,
): SafetensorsHeader {
  const tensors = new Map<string, TensorInfo>();
  let metadata: ReadonlyMap<string, string> = new Map();
  const warnings: string[] = [];
  for (const [name, entry] of root) {
    if (name !== '__metadata__') tensors.set(name, checkTensor(file, name, entry, dataStart, warnings));
    else if (entry === null) warnings.push('__metadata__ is null');
    else metadata = checkMetadata(file, entry);
  }
  checkCoverage(file, tensors, dataStart, fileSize);
  return { tensors, metadata, warnings };
}

function checkMetadata(file: string, entry: Member): ReadonlyMap<string, string> {
  if (!(entry instanceof Map)) throw new SafetensorsError(file, '__metadata__ must be an object of strings');
  for (const [key, value] of entry) {
    if (typeof value !== 'string') {
      throw new SafetensorsError(file, `metadata values must be strings; ${JSON.stringify(key)} is not`);
    }
  }
  return entry;
}

const tensorFields = new Set(['dtype', 'shape', 'data_offsets']);

function checkTensor(
  file: string,
  name: string,
  entry: Member,
  dataStart: number,
  warnings: string[],
): TensorInfo {
  const fail = (problem: string): never => {
    throw new SafetensorsError(file, problem, name);
  };
  if (!(entry instanceof Map)) return fail('must be an object with dtype, shape and data_offsets');
  const dtype = entry.get('dtype');
  if (dtype === undefined) fail('missing dtype');
  const elementBytes = typeof dtype === 'string' ? storedBytes.get(dtype) : undefined;
  if (typeof dtype !== 'string' || elementBytes === undefined) {
    const known = [...storedBytes.keys()].join(', ');
    return fail(
      `unsupported dtype ${typeof dtype === 'string' ? JSON.stringify(dtype) : 'that is no string'}; known: ${known}`,
    );
  }
  const shape = wholeNumbers(entry.get('shape'), 'shape', fail);
  if (shape.length > maxRank) fail(`rank ${shape.length} over ${maxRank}`);
  // Zero extents are left out, so that the verdict does not depend on the order of the factors.
  const count = shape.filter((extent) => extent > 0n).reduce((product, extent) => product * extent, 1n);
  if (shape.some((extent) => extent > maxExtent) || count > maxExact) {
    fail(
      `shape [${shape.join(', ')}] overflows: extents up to 2^32 and fewer than 2^53 elements are supported`,
    );
  }
  const offsets = wholeNumbers(entry.get('data_offsets'), 'data_offsets', fail);
  if (offsets.length !== 2) fail(`data_offsets needs exactly 2 numbers; got ${offsets.length}`);
  const [begin, end] = offsets as [bigint, bigint];
  if (end > maxExact) fail(`data_offsets: ${end} is too large to be exact`);
  if (begin > end) fail(`begin ${begin} after end ${end}`);
  const needed = (shape.includes(0n) ? 0n : count) * BigInt(elementBytes);
  if (end - begin !== needed) fail(`shape needs ${needed} bytes, range has ${end - begin}`);
  for (const key of entry.keys()) {
    if (!tensorFields.has(key))
      warnings.push(`tensor ${JSON.stringify(name)}: unknown field ${JSON.stringify(key)}`);
  }
  return { dtype, shape: shape.map(Number), start: dataStart + Number(begin), end: dataStart + Number(end) };
}

function wholeNumbers(list: Member | undefined, what: string, fail: (problem: string) => never): bigint[] {
  if (!Array.isArray(list)) return fail(`${what} must be a list of non-negative integers`);
  for (const item of list as readonly Member[]) {
    if (typeof item !== 'bigint' || item < 0n) {
      const shown = typeof item === 'bigint' ? item : JSON.stringify(item);
      fail(
        `${what} must hold non-negative integer literals; got ${shown}${isNegative(item) ? ' (negative)' : ''}`,
      );
    }
  }
  return list as bigint[];
}

function isNegative(item: Member): boolean {
  return (typeof item === 'bigint' || typeof item === 'number') && item < 0;
}

// In order of their offsets, the tensors must tile the data: no gap, no overlap, nothing left over.
function checkCoverage(
  file: string,
  tensors: ReadonlyMap<string, TensorInfo>,
  dataStart: number,
  fileSize: number,
): void {
  const ordered = [...tensors].sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  let reached = dataStart;
  let previous = '';
  for (const [name, { start, end }] of ordered) {
    if (start > reached) throw new SafetensorsError(file, `gap of ${start - reached} bytes before it`, name);
    if (start < reached) {
      throw new SafetensorsError(
        file,
        `offsets not contiguous: it overlaps ${JSON.stringify(previous)}`,
        name,
      );
    }
    reached = end;
    previous = name;
  }
  if (reached > fileSize) {
    throw new SafetensorsError(
      file,
      `data ends at ${fileSize}, header needs ${reached} (truncated download?)`,
    );
  }
  if (reached < fileSize) {
    throw new SafetensorsError(file, `${fileSize - reached} bytes not covered by any tensor`);
  }
}
