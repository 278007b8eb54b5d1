/**
 * Text inside PNG files: iTXt chunks (PNG specification, third edition, 11.3.3.4), not compressed.
 *
 *     file  = signature | chunk*         chunk = length (u32) | type | data | CRC-32 of type and data     big-endian
 *     iTXt  = keyword 0 | 0 0 | language 0 | translated keyword 0 | text in UTF-8
 */
import { crc32 } from 'node:zlib';

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const textType = 'iTXt';

/** The PNG file with a text under a keyword of 1 to 79 Latin letters, before its pixels. */
export function withPngText(png: Uint8Array, keyword: string, text: string): Uint8Array {
  const [header] = chunks(png);
  const data = Buffer.concat([Buffer.from(`${keyword}\0\0\0\0\0`, 'latin1'), Buffer.from(text, 'utf8')]);
  const body = Buffer.concat([Buffer.from(textType, 'latin1'), data]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  const check = Buffer.alloc(4);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([png.subarray(0, header!.end), length, body, check, png.subarray(header!.end)]);
}

/**
 * The text under a keyword; null where the file has none.
 * @throws {Error} with a reason in words when the bytes are no PNG file, are cut short or damaged
 */
export function pngText(png: Uint8Array, keyword: string): string | null {
  const prefix = Buffer.from(`${keyword}\0\0\0\0\0`, 'latin1');
  for (const { type, data } of chunks(png)) {
    if (type === textType && prefix.equals(data.subarray(0, prefix.length)))
      return data.subarray(prefix.length).toString('utf8');
  }
  return null;
}

interface Chunk {
  readonly type: string;
  readonly data: Buffer;
  /** Where the next chunk begins. */
  readonly end: number;
}

function* chunks(png: Uint8Array): Generator<Chunk> {
  const bytes = Buffer.from(png.buffer, png.byteOffset, png.byteLength);
  if (!signature.equals(bytes.subarray(0, signature.length))) throw new Error('not a PNG file');
  for (let at = signature.length; ; ) {
    const length = at + 12 <= bytes.length ? bytes.readUInt32BE(at) : Number.POSITIVE_INFINITY;
    const end = at + 12 + length;
    if (end > bytes.length) throw new Error('the PNG file is cut short');
    const body = bytes.subarray(at + 4, end - 4);
    if (crc32(body) !== bytes.readUInt32BE(end - 4))
      throw new Error('the PNG file is damaged: a CRC differs');
    const type = body.toString('latin1', 0, 4);
    yield { type, data: body.subarray(4), end };
    if (type === 'IEND') return;
    at = end;
  }
}
