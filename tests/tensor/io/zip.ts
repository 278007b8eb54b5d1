/** Zips of stored entries, as torch.save lays them out, for tests of what reads them. */

export interface Entry {
  readonly name: string;
  readonly data: Uint8Array;
  readonly method?: number;
  readonly flags?: number;
}

const bytesOf = (view: DataView): Uint8Array => new Uint8Array(view.buffer);

function header(length: number, fields: readonly [offset: number, size: 2 | 4, value: number][]): Uint8Array {
  const view = new DataView(new ArrayBuffer(length));
  for (const [offset, size, value] of fields) {
    if (size === 2) view.setUint16(offset, value, true);
    else view.setUint32(offset, value, true);
  }
  return bytesOf(view);
}

export function joined(...parts: readonly (Uint8Array | string)[]): Uint8Array {
  const bytes = parts.map((part) => (typeof part === 'string' ? latin1(part) : part));
  const whole = new Uint8Array(bytes.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of bytes) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A byte for each character. */
export function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** The zip of the entries. */
export function zip(entries: readonly Entry[]): Uint8Array {
  const [files, directory]: [Uint8Array[], Uint8Array[]] = [[], []];
  let at = 0;
  for (const { name, data, method = 0, flags = 0 } of entries) {
    const place = at;
    const named = latin1(name);
    const fields = (from: number): [number, 2 | 4, number][] => [
      [from, 2, flags],
      [from + 2, 2, method],
      [from + 12, 4, data.length],
      [from + 16, 4, data.length],
      [from + 20, 2, named.length],
    ];
    files.push(header(30, [[0, 4, 0x04034b50], ...fields(6)]), named, data);
    directory.push(header(46, [[0, 4, 0x02014b50], ...fields(8), [42, 4, place]]), named);
    at += 30 + named.length + data.length;
  }
  const listed = joined(...directory);
  const end = header(22, [
    [0, 4, 0x06054b50],
    [10, 2, entries.length],
    [12, 4, listed.length],
    [16, 4, at],
  ]);
  return joined(...files, listed, end);
}

/** A file of torch.save with this pickle and these storages. */
export function torchFile(
  pickle: Uint8Array,
  storages: Readonly<Record<string, Uint8Array>> = {},
): Uint8Array {
  const data = Object.entries(storages).map(([key, bytes]) => ({ name: `archive/data/${key}`, data: bytes }));
  return zip([{ name: 'archive/data.pkl', data: pickle }, ...data]);
}
