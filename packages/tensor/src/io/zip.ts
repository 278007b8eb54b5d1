/** The directory of a zip whose entries are stored as they are, as torch.save writes it. */
import type { ByteSource } from './safetensorsHeader.ts';

/** Bytes [start, end) of the file. */
export interface ZipEntry {
  readonly start: number;
  readonly end: number;
}

const maxEntries = 200_000;
const maxDirectoryBytes = 64 * 1024 * 1024;
/** The end record has a comment of at most 65535 bytes. */
const endRecordBytes = 22;

/**
 * Every entry by its name.
 * @param fail what is thrown: a zip that is cut off, compressed, encrypted or in disorder
 */
export async function readZipDirectory(
  source: ByteSource,
  fail: (problem: string) => never,
): Promise<ReadonlyMap<string, ZipEntry>> {
  async function bytes(start: number, length: number): Promise<DataView> {
    if (!(start >= 0 && length >= 0 && start + length <= source.size))
      fail('the zip points outside of the file');
    const found = await source.read(start, start + length);
    if (found.length !== length) fail('it changed while open');
    return new DataView(found.buffer, found.byteOffset, length);
  }
  /** A 64-bit number; what is not exact is outside of any file. */
  const u64 = (view: DataView, at: number): number => Number(view.getBigUint64(at, true));

  const tailStart = Math.max(0, source.size - endRecordBytes - 65535);
  const tail = await bytes(tailStart, source.size - tailStart);
  let end = tail.byteLength - endRecordBytes;
  while (end >= 0 && tail.getUint32(end, true) !== 0x06054b50) end -= 1;
  if (end < 0) fail('it is not a zip, or it is cut off: its directory is missing');
  let [count, size, start] = [
    tail.getUint16(end + 10, true),
    tail.getUint32(end + 12, true),
    tail.getUint32(end + 16, true),
  ];
  if (end >= 20 && tail.getUint32(end - 20, true) === 0x07064b50) {
    const large = await bytes(u64(tail, end - 12), 56);
    if (large.getUint32(0, true) !== 0x06064b50) fail('the zip64 end record is missing');
    [count, size, start] = [u64(large, 32), u64(large, 40), u64(large, 48)];
  }
  if (count > maxEntries) fail(`${count} entries in the zip; the limit is ${maxEntries}`);
  if (size > maxDirectoryBytes)
    fail(`the zip's directory has ${size} bytes; the limit is ${maxDirectoryBytes}`);
  const directory = await bytes(start, size);

  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < count; i += 1) {
    if (at + 46 > size || directory.getUint32(at, true) !== 0x02014b50) fail('the zip has a bad directory');
    const [flags, method] = [directory.getUint16(at + 8, true), directory.getUint16(at + 10, true)];
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((k) =>
      directory.getUint16(at + k, true),
    ) as [number, number, number];
    const next = at + 46 + nameLength + extraLength + commentLength;
    if (next > size) fail('the zip has a bad directory');
    const name = new TextDecoder().decode(
      new Uint8Array(directory.buffer, directory.byteOffset + at + 46, nameLength),
    );
    let [stored, whole, header] = [20, 24, 42].map((k) => directory.getUint32(at + k, true)) as [
      number,
      number,
      number,
    ];
    // What 32 bits cannot say is in an extra field, in this order and only if it is needed.
    for (let extra = at + 46 + nameLength; extra + 4 <= next - commentLength; ) {
      const [id, length] = [directory.getUint16(extra, true), directory.getUint16(extra + 2, true)];
      let field = extra + 4;
      const wide = (value: number): number => {
        if (value !== 0xffffffff || field + 8 > Math.min(extra + 4 + length, size)) return value;
        field += 8;
        return u64(directory, field - 8);
      };
      if (id === 1) [whole, stored, header] = [wide(whole), wide(stored), wide(header)];
      extra += 4 + length;
    }
    if ((flags & 1) !== 0) fail(`the zip's entry ${JSON.stringify(name)} is encrypted`);
    if (method !== 0 || stored !== whole) {
      fail(`the zip's entry ${JSON.stringify(name)} is compressed; torch.save stores them as they are`);
    }
    if (entries.has(name)) fail(`the zip has two entries ${JSON.stringify(name)}`);
    const local = await bytes(header, 30);
    if (local.getUint32(0, true) !== 0x04034b50) fail('the zip has a bad directory');
    const data = header + 30 + local.getUint16(26, true) + local.getUint16(28, true);
    if (data + stored > source.size)
      fail(`the zip's entry ${JSON.stringify(name)} runs past the end of the file`);
    entries.set(name, { start: data, end: data + stored });
    at = next;
  }
  return entries;
}
