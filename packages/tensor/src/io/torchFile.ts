/**
 * Files of torch.save (PyTorch 1.6 and later), read without running anything of what they say.
 *
 * Such a file is a zip of uncompressed entries: <root>/data.pkl, a pickle in which every tensor refers to a storage, and
 * <root>/data/<key>, the storages. Allowed are tensors and parameters, plain and ordered dicts, lists, tuples, numbers,
 * strings, booleans and None (`pickle.ts`).
 */
import {
  type PickleConstructor,
  type PickleDict,
  PickleError,
  type PickleValue,
  readPickle,
} from './pickle.ts';
import { decodeStored, type HostTensor, type TensorSource } from './safetensors.ts';
import { type ByteSource, storedBytes, type TensorInfo } from './safetensorsHeader.ts';
import { readZipDirectory, type ZipEntry } from './zip.ts';

/** A file that torch.save did not write, or that holds what is refused. */
export class TorchFileError extends Error {
  override readonly name = 'TorchFileError';
  readonly problem: string;

  constructor(file: string, problem: string, tensor?: string) {
    const where = tensor === undefined ? '' : ` tensor ${JSON.stringify(tensor)}:`;
    super(`torch file: ${file}:${where} ${problem}`);
    this.problem = problem;
  }
}

/** A storage: numbers of one type in an entry of the zip. */
class TorchStorage {
  readonly dtype: string;
  readonly entry: ZipEntry;
  readonly count: number;
  constructor(dtype: string, entry: ZipEntry, count: number) {
    this.dtype = dtype;
    this.entry = entry;
    this.count = count;
  }
}

/** A tensor in the file, not yet read: a strided view of a storage. */
export class TorchTensor {
  /** As safetensors calls it: F32, BF16, I64. */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
  readonly storage: TorchStorage;

  constructor(storage: TorchStorage, offset: number, shape: readonly number[], strides: readonly number[]) {
    this.dtype = storage.dtype;
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }

  /** Bytes [start, end) of the file between the first and the last number. */
  get range(): { readonly start: number; readonly end: number } {
    const { entry, dtype } = this.storage;
    const size = storedBytes.get(dtype)!;
    const start = entry.start + this.offset * size;
    return { start, end: start + spanOf(this.shape, this.strides) * size };
  }
}

/** The type of a storage, where it is named. */
class StorageType {
  readonly dtype: string;
  constructor(dtype: string) {
    this.dtype = dtype;
  }
}

/** A value of a file of torch.save. */
export type TorchValue = PickleValue<TorchTensor>;

export interface TorchFile {
  readonly source: string;
  readonly root: TorchValue;
  /** The tensor's numbers in row-major order, of the types that `TensorSource.read` gives. */
  read(tensor: TorchTensor): Promise<HostTensor>;
}

type Inner = TorchTensor | TorchStorage | StorageType;

const storageTypes: ReadonlyMap<string, StorageType> = new Map(
  Object.entries({
    Float: 'F32',
    Half: 'F16',
    BFloat16: 'BF16',
    Double: 'F64',
    Long: 'I64',
    Int: 'I32',
    Short: 'I16',
    Char: 'I8',
    Byte: 'U8',
    Bool: 'BOOL',
  }).map(([name, dtype]) => [`torch ${name}Storage`, new StorageType(dtype)]),
);

const maxRank = 8;

/** How many numbers lie from the first to the last, both included. */
function spanOf(shape: readonly number[], strides: readonly number[]): number {
  if (shape.includes(0)) return 0;
  return shape.reduce((last, extent, axis) => last + (extent - 1) * strides[axis]!, 0) + 1;
}

function isShape(value: unknown): value is number[] {
  return (
    Array.isArray(value) &&
    value.length <= maxRank &&
    value.every((extent) => Number.isSafeInteger(extent) && extent >= 0)
  );
}

/** torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks) */
const rebuildTensor: PickleConstructor<Inner> = ([storage, offset, shape, strides]) => {
  if (!(storage instanceof TorchStorage)) return new Error('a tensor has no storage');
  if (!isShape(shape) || !isShape(strides) || shape.length !== strides.length || !isShape([offset])) {
    return new Error(`a tensor has a bad shape; expected at most ${maxRank} whole numbers >= 0`);
  }
  const count = shape.reduce((product, extent) => product * extent, 1);
  const end = (offset as number) + spanOf(shape, strides);
  if (end > storage.count || count > storage.count) {
    return new Error(`a tensor [${shape.join(', ')}] does not fit its storage of ${storage.count} numbers`);
  }
  return new TorchTensor(storage, offset as number, shape, strides);
};

const constructors: ReadonlyMap<string, PickleConstructor<Inner>> = new Map<string, PickleConstructor<Inner>>(
  [
    ['torch._utils _rebuild_tensor_v2', rebuildTensor],
    [
      'torch._utils _rebuild_parameter',
      ([data]) => (data instanceof TorchTensor ? data : new Error('a parameter is no tensor')),
    ],
    [
      'collections OrderedDict',
      (args) => (args.length === 0 ? new Map() : new Error('an OrderedDict with arguments')),
    ],
  ],
);

/**
 * The file with its pickle read and its tensors not yet read.
 * @throws TorchFileError
 */
export async function openTorchFile(source: ByteSource): Promise<TorchFile> {
  const fail = (problem: string): never => {
    throw new TorchFileError(source.name, problem);
  };
  const beginning = await source.read(0, Math.min(64, source.size));
  if (beginning[0] === 0x80) {
    fail(
      'it is in the format of PyTorch before 1.6, which is not read; save it again with a newer PyTorch, or as safetensors',
    );
  }
  const entries = await readZipDirectory(source, fail);
  const pickles = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1) fail('it is a zip, but not of torch.save: expected one data.pkl');
  const root = pickles[0]!.slice(0, -'data.pkl'.length);
  const bytesOf = async ({ start, end }: ZipEntry): Promise<Uint8Array> => {
    const bytes = await source.read(start, end);
    return bytes.length === end - start ? bytes : fail('it changed while open');
  };
  const order = entries.get(`${root}byteorder`);
  if (order && new TextDecoder().decode(await bytesOf(order)) !== 'little') {
    fail('its numbers are big-endian; expected little-endian');
  }
  /** ('storage', type, key, device, count) */
  function persistent(id: PickleValue<Inner>): TorchStorage | Error {
    if (!Array.isArray(id) || id[0] !== 'storage') return new Error('it refers to what is no storage');
    const [, type, key, , count] = id as readonly PickleValue<Inner>[];
    const entry = entries.get(`${root}data/${String(key)}`);
    if (!(type instanceof StorageType) || !isShape([count])) return new Error('a storage of no known type');
    if (!entry) return new Error(`storage ${JSON.stringify(key)} is missing`);
    const expected = (count as number) * storedBytes.get(type.dtype)!;
    if (entry.end - entry.start !== expected) {
      return new Error(
        `storage ${JSON.stringify(key)} has ${entry.end - entry.start} bytes; expected ${expected}`,
      );
    }
    return new TorchStorage(type.dtype, entry, count as number);
  }
  const pickle = entries.get(pickles[0]!)!;
  if (pickle.end - pickle.start > 2 ** 30) fail('its pickle is too large');
  try {
    const value = readPickle<Inner>(await bytesOf(pickle), { constructors, names: storageTypes, persistent });
    return {
      source: source.name,
      root: value as TorchValue,
      read: async (tensor) => readTensor(tensor, await bytesOf({ ...tensor.range }), fail),
    };
  } catch (error) {
    if (error instanceof PickleError) return fail(error.message);
    throw error;
  }
}

/** The numbers of a view whose storage's bytes, from its first to its last number, are given. */
function readTensor(
  { dtype, shape, strides }: TorchTensor,
  bytes: Uint8Array,
  fail: (problem: string) => never,
): HostTensor {
  const { dtype: type, data: stored } = decodeStored(dtype, bytes, fail);
  const count = shape.reduce((product, extent) => product * extent, 1);
  const data = stored.slice(0, count);
  const index = shape.map(() => 0);
  let from = 0;
  for (let to = 0; to < count; to += 1) {
    data[to] = stored[from]!;
    for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
      index[axis]! += 1;
      from += strides[axis]!;
      if (index[axis]! < shape[axis]!) break;
      from -= index[axis]! * strides[axis]!;
      index[axis] = 0;
    }
  }
  return { dtype: type, shape, data };
}

/**
 * The file as named tensors: it must hold a dict of tensors and nothing else, as a state dict does.
 * @throws TorchFileError
 */
export function torchTensors({ source, root, read }: TorchFile): TensorSource {
  if (!(root instanceof Map)) throw new TorchFileError(source, 'expected a dict of tensors');
  const tensors = new Map<string, TorchTensor>();
  for (const [name, value] of root as PickleDict<TorchTensor>) {
    if (!(value instanceof TorchTensor)) {
      throw new TorchFileError(source, 'expected a tensor', String(name));
    }
    tensors.set(String(name), value);
  }
  function find(name: string): TorchTensor {
    const tensor = tensors.get(name);
    if (!tensor) throw new TorchFileError(source, 'there is no tensor of that name', name);
    return tensor;
  }
  return {
    source,
    names: [...tensors.keys()],
    info(name): TensorInfo {
      const { dtype, shape, range } = find(name);
      return { dtype, shape, ...range };
    },
    read: async (name) => read(find(name)),
  };
}
