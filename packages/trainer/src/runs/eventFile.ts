/**
 * TensorBoard's event files: records of tensorflow.Event messages, framed as TFRecord.
 *
 *     record = length (u64) | crc(length) (u32) | message | crc(message) (u32)          little-endian             (1)
 *
 * where crc is CRC-32C, rotated by 15 bits and shifted by a constant. A message is fields of (key, value), the key being
 * 8 * number + wire type (Protocol Buffers' encoding); of Event the fields wall_time = 1, step = 2, file_version = 3 and
 * summary = 5 are used, of its Summary.Value the fields tag = 1 and simple_value = 2.
 */

/** The first record of a file. @param time seconds since 1970 */
export function eventFileHeader(time: number): Uint8Array {
  return record(Buffer.concat([double(1, time), bytes(3, Buffer.from('brain.Event:2'))]));
}

/** The record of a step's numbers, each a chart of its own. @param time seconds since 1970 */
export function scalarEvent(
  step: number,
  time: number,
  values: Readonly<Record<string, number>>,
): Uint8Array {
  const summary = Object.entries(values).map(([tag, value]) =>
    bytes(1, Buffer.concat([bytes(1, Buffer.from(tag)), float(2, value)])),
  );
  return record(
    Buffer.concat([double(1, time), varint(2 * 8), varint(step), bytes(5, Buffer.concat(summary))]),
  );
}

/** (1) */
function record(message: Buffer): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(message.length));
  return Buffer.concat([length, checksum(length), message, checksum(message)]);
}

function checksum(data: Uint8Array): Buffer {
  const crc = crc32c(data);
  const masked = Buffer.alloc(4);
  masked.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0);
  return masked;
}

/** CRC-32C (Castagnoli), reflected, bit by bit: records are short. */
export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** Seven bits a byte, lowest first; the top bit says that more follow. */
function varint(value: number): Buffer {
  const groups: number[] = [];
  let rest = value;
  do {
    groups.push((rest % 128) | (rest >= 128 ? 128 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return Buffer.from(groups);
}

function bytes(field: number, value: Uint8Array): Buffer {
  return Buffer.concat([varint(field * 8 + 2), varint(value.length), value]);
}

function double(field: number, value: number): Buffer {
  const number = Buffer.alloc(8);
  number.writeDoubleLE(value);
  return Buffer.concat([varint(field * 8 + 1), number]);
}

function float(field: number, value: number): Buffer {
  const number = Buffer.alloc(4);
  number.writeFloatLE(value);
  return Buffer.concat([varint(field * 8 + 5), number]);
}
