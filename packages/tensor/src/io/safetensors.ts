/**
 * safetensors files: reading by range, one tensor at a time, and writing.
 *
 * Numbers are little-endian in the files and taken as they lie, so this needs a little-endian host; every platform
 * that JavaScript engines run on is one.
 */
import {
  bytesPerElement,
  type DType,
  floatsOf,
  type HostArray,
  halvesOf,
  hostArray,
  toHalfBits,
} from '../dtype.ts';
import { numel, type Shape } from '../shape.ts';
import {
  type ByteSource,
  readExactly,
  readHeader,
  SafetensorsError,
  type SafetensorsHeader,
  type TensorInfo,
} from './safetensorsHeader.ts';

/** A tensor's values on the host. */
export interface HostTensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: HostArray;
}

/** Named tensors that are read when asked for: a file, several shards, or memory. */
export interface TensorSource {
  /** What messages call it. */
  readonly source: string;
  readonly names: readonly string[];
  /** @throws SafetensorsError when there is no tensor of that name */
  info(name: string): TensorInfo;
  /**
   * The values: F32, F16, F64, I32, U32 as they are; BF16 as f32; I64 and smaller integers as i32, unsigned ones as u32.
   * @throws SafetensorsError when there is no such tensor, its dtype has no counterpart or a value does not fit
   */
  read(name: string): Promise<HostTensor>;
}

export interface SafetensorsFile extends TensorSource {
  readonly header: SafetensorsHeader;
}

/** A source over bytes in memory. What it reads is copied. */
export function memorySource(name: string, bytes: Uint8Array): ByteSource {
  return { name, size: bytes.length, read: async (start, end) => new Uint8Array(bytes.subarray(start, end)) };
}

/**
 * The file with its header read and checked, its tensors not yet read.
 * @throws SafetensorsError
 */
export async function openSafetensors(source: ByteSource): Promise<SafetensorsFile> {
  const header = await readHeader(source);
  function info(name: string): TensorInfo {
    const found = header.tensors.get(name);
    if (found === undefined) throw new SafetensorsError(source.name, 'there is no tensor of that name', name);
    return found;
  }
  async function read(name: string): Promise<HostTensor> {
    const { dtype, shape, start, end } = info(name);
    const fail = (problem: string): never => {
      throw new SafetensorsError(source.name, problem, name);
    };
    if (!decoders.has(dtype)) failUnreadable(dtype, fail); // before its bytes are read
    return { ...decodeStored(dtype, await readExactly(source, start, end), fail), shape };
  }
  return { source: source.name, header, names: [...header.tensors.keys()], info, read };
}

/** Numbers stored as the dtype of that name, as `TensorSource.read` gives them; `fail` is told what is wrong. */
export function decodeStored(
  dtype: string,
  bytes: Uint8Array,
  fail: (problem: string) => never,
): Omit<HostTensor, 'shape'> {
  const decode = decoders.get(dtype) ?? failUnreadable(dtype, fail);
  return decode(bytes, fail);
}

function failUnreadable(dtype: string, fail: (problem: string) => never): never {
  return fail(`values of dtype ${dtype} cannot be read; readable: ${[...decoders.keys()].join(', ')}`);
}

type Decoder = (bytes: Uint8Array, fail: (problem: string) => never) => Omit<HostTensor, 'shape'>;

// An array over the bytes; they are copied where they do not start at a multiple of the element's size.
function elements<A>(
  array: {
    new (buffer: ArrayBufferLike, offset: number, length: number): A;
    readonly BYTES_PER_ELEMENT: number;
  },
  bytes: Uint8Array,
): A {
  const size = array.BYTES_PER_ELEMENT;
  const aligned = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
  return new array(aligned.buffer, aligned.byteOffset, aligned.byteLength / size);
}

function decodeBfloat(bytes: Uint8Array): Float32Array {
  const halves = elements(Uint16Array, bytes);
  const words = Uint32Array.from(halves, (half) => half << 16); // the upper half of a float32
  return new Float32Array(words.buffer);
}

function decodeBool(bytes: Uint8Array, fail: (problem: string) => never): Uint32Array {
  const strange = bytes.find((byte) => byte > 1);
  if (strange !== undefined) fail(`BOOL bytes must be 0 or 1; got ${strange}`);
  return Uint32Array.from(bytes);
}

function narrow<A extends Int32Array | Uint32Array>(
  wide: BigInt64Array | BigUint64Array,
  narrowed: A,
  fail: (problem: string) => never,
): A {
  for (let i = 0; i < wide.length; i += 1) {
    narrowed[i] = Number(wide[i]);
    if (narrowed[i] !== Number(wide[i])) fail(`element ${i} does not fit 32 bits; got ${wide[i]}`);
  }
  return narrowed;
}

const decoders: ReadonlyMap<string, Decoder> = new Map<string, Decoder>([
  ['F32', (bytes) => ({ dtype: 'f32', data: elements(Float32Array, bytes) })],
  ['F16', (bytes) => ({ dtype: 'f16', data: elements(Uint16Array, bytes) })],
  ['BF16', (bytes) => ({ dtype: 'f32', data: decodeBfloat(bytes) })],
  ['F64', (bytes) => ({ dtype: 'f64', data: elements(Float64Array, bytes) })],
  ['I32', (bytes) => ({ dtype: 'i32', data: elements(Int32Array, bytes) })],
  ['U32', (bytes) => ({ dtype: 'u32', data: elements(Uint32Array, bytes) })],
  ['I16', (bytes) => ({ dtype: 'i32', data: Int32Array.from(elements(Int16Array, bytes)) })],
  ['U16', (bytes) => ({ dtype: 'u32', data: Uint32Array.from(elements(Uint16Array, bytes)) })],
  ['I8', (bytes) => ({ dtype: 'i32', data: Int32Array.from(elements(Int8Array, bytes)) })],
  ['U8', (bytes) => ({ dtype: 'u32', data: Uint32Array.from(bytes) })],
  ['BOOL', (bytes, fail) => ({ dtype: 'bool', data: decodeBool(bytes, fail) })],
  [
    'I64',
    (bytes, fail) => {
      const wide = elements(BigInt64Array, bytes);
      return { dtype: 'i32', data: narrow(wide, new Int32Array(wide.length), fail) };
    },
  ],
  [
    'U64',
    (bytes, fail) => {
      const wide = elements(BigUint64Array, bytes);
      return { dtype: 'u32', data: narrow(wide, new Uint32Array(wide.length), fail) };
    },
  ],
]);

/** The values as float32, whatever float type they are stored in. */
export function asFloat32(values: HostTensor): Float32Array {
  if (values.dtype === 'f32') return values.data as Float32Array;
  return values.dtype === 'f16' ? floatsOf(values.data as Uint16Array) : Float32Array.from(values.data);
}

/** The values as bits of half-precision numbers, rounded to the nearest where they are wider. */
export function asFloat16(values: HostTensor): Uint16Array {
  if (values.dtype === 'f16') return values.data as Uint16Array;
  if (values.dtype === 'f32') return halvesOf(values.data as Float32Array);
  return Uint16Array.from(values.data, toHalfBits);
}

/** The file's dtype for ours, in the format's own order: what is written first has the widest elements. */
const writtenDTypes: ReadonlyMap<DType, string> = new Map([
  ['f64', 'F64'],
  ['f32', 'F32'],
  ['u32', 'U32'],
  ['i32', 'I32'],
  ['f16', 'F16'],
  ['bool', 'BOOL'],
]);

/** A tensor's place in a file that is to be written. */
export interface WrittenTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

/** Bytes of a tensor in a file. */
export function writtenBytes({ dtype, shape }: WrittenTensor): number {
  return numel(shape) * (dtype === 'bool' ? 1 : bytesPerElement(dtype));
}

/**
 * What precedes the data in a file of these tensors, in this order: the header with its length.
 * @throws SafetensorsError when a name cannot be written
 */
export function safetensorsHeader(
  tensors: readonly WrittenTensor[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const keys = Object.keys(metadata).sort(compareCodePoints);
  const members = keys.length === 0 ? [] : [`"__metadata__":${JSON.stringify(metadata, keys)}`];
  let offset = 0;
  for (const tensor of tensors) {
    if (tensor.name === '__metadata__' || /\p{Surrogate}/u.test(tensor.name)) {
      throw new SafetensorsError('(to be written)', 'a tensor cannot have this name', tensor.name);
    }
    const end = offset + writtenBytes(tensor);
    const { dtype, shape } = tensor;
    const entry = { dtype: writtenDTypes.get(dtype), shape, data_offsets: [offset, end] };
    members.push(`${JSON.stringify(tensor.name)}:${JSON.stringify(entry)}`);
    offset = end;
  }
  const json = new TextEncoder().encode(`{${members.join(',')}}`);
  const headerBytes = Math.ceil(json.length / 8) * 8;
  const header = new Uint8Array(8 + headerBytes).fill(0x20, 8);
  new DataView(header.buffer).setBigUint64(0, BigInt(headerBytes), true);
  header.set(json, 8);
  return header;
}

/**
 * The bytes of a file that holds the tensors: the same bytes for the same tensors and metadata, in whatever order they
 * come. Wider elements come first, then names in code-point order, as the safetensors library writes them.
 * @throws SafetensorsError when a shape does not match its data or a name cannot be written
 */
export function writeSafetensors(
  tensors: Readonly<Record<string, HostTensor>>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const dtypeOrder = [...writtenDTypes.keys()];
  const ordered = Object.entries(tensors)
    .map(([name, tensor]) => ({ name, ...tensor }))
    .sort(
      (a, b) =>
        dtypeOrder.indexOf(a.dtype) - dtypeOrder.indexOf(b.dtype) || compareCodePoints(a.name, b.name),
    );
  const header = safetensorsHeader(ordered, metadata);
  for (const tensor of ordered) checkWritable(tensor.name, tensor);
  const bytes = ordered.reduce((sum, tensor) => sum + writtenBytes(tensor), header.length);
  const file = new Uint8Array(bytes);
  file.set(header);
  let at = header.length;
  for (const tensor of ordered) {
    file.set(storedBytesOf(tensor), at);
    at += writtenBytes(tensor);
  }
  return file;
}

function checkWritable(name: string, { dtype, shape, data }: HostTensor): void {
  const fail = (problem: string): never => {
    throw new SafetensorsError('(to be written)', problem, name);
  };
  if (data.length !== numel(shape)) fail(`shape [${shape.join(', ')}] does not hold ${data.length} elements`);
  if (data.constructor !== hostArray(dtype, 0).constructor) {
    fail(
      `dtype ${dtype} is carried by a ${hostArray(dtype, 0).constructor.name}; got a ${data.constructor.name}`,
    );
  }
}

function storedBytesOf({ dtype, data }: HostTensor): Uint8Array {
  if (dtype === 'bool') return Uint8Array.from(data, (value) => (value === 0 ? 0 : 1));
  return new Uint8Array(data.buffer, data.byteOffset, data.length * bytesPerElement(dtype));
}

// UTF-16 order differs from code-point order where a name has characters beyond the basic plane.
function compareCodePoints(a: string, b: string): number {
  const first = Array.from(a, (character) => character.codePointAt(0)!);
  const second = Array.from(b, (character) => character.codePointAt(0)!);
  for (let i = 0; i < Math.min(first.length, second.length); i += 1) {
    if (first[i] !== second[i]) return first[i]! - second[i]!;
  }
  return first.length - second.length;
}
