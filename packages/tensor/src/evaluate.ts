/** Computing tensors: the graphs beneath them become programs, which are kept for graphs of the same structure. */
import { graphKey } from './compiler/ir.ts';
import { type Device, type Graph, getDevice, type Program, type Storage } from './device.ts';
import { decode, type HostArray } from './dtype.ts';
import { DeviceError, formatShape, ShapeError } from './errors.ts';
import { Remembered } from './lru.ts';
import { currentScope, own, tieUpload } from './scope.ts';
import { requireAlive, type Tensor } from './tensor.ts';

/** Programs kept for each device. */
const programCapacity = 256;

const programs = new WeakMap<Device, Remembered<Program>>();

function programFor(device: Device, graph: Graph): Promise<Program> {
  let known = programs.get(device);
  if (!known) {
    known = new Remembered<Program>(programCapacity, (program) => program.dispose());
    programs.set(device, known);
  }
  return known.of(graphKey(graph), () => device.prepare(graph));
}

/** Elements that the host has computed before a device has been asked: a launch and the wait for it take 100 us. */
const SMALL_ELEMENTS = 1024;

interface Reached {
  /** What the tensors are computed from, each once. */
  readonly leaves: readonly Tensor[];
  /** Whether the host has the values of all leaves, and nothing that is computed is larger than small. */
  readonly isSmall: boolean;
}

/** @throws DisposedError when the values of a leaf are gone */
function reachedBy(op: string, tensors: readonly Tensor[]): Reached {
  const seen = new Set(tensors);
  const leaves: Tensor[] = [];
  let isSmall = true;
  // A set in iteration visits what is added.
  for (const tensor of seen) {
    const { source } = tensor;
    if (source.kind === 'applied') for (const input of source.inputs) seen.add(input);
    else {
      requireAlive(op, tensor);
      leaves.push(tensor);
      isSmall &&= source.kind === 'host';
    }
    isSmall &&= tensor.size <= SMALL_ELEMENTS;
  }
  return { leaves, isSmall };
}

/**
 * The storage that holds a leaf's values on the device; those of host tensors are uploaded once and kept.
 * @throws DeviceError when the values are on another device, Error for a placeholder
 */
export function storageOn(op: string, device: Device, leaf: Tensor): Storage {
  const { source } = leaf;
  if (source.kind === 'stored') {
    if (source.storage.device === device) return source.storage;
    const [here, there] = [describe(device), describe(source.storage.device)];
    throw new DeviceError(
      `${op}: a tensor of shape ${formatShape(leaf.shape)} is on another device; expected ${here}; got ${there}`,
    );
  }
  if (source.kind !== 'host') {
    throw new Error(
      `${op}: a ${source.kind} tensor of shape ${formatShape(leaf.shape)} has no values to read`,
    );
  }
  const uploaded = source.storages.get(device);
  if (uploaded && !uploaded.disposed) return uploaded;
  const storage = device.upload(leaf.dtype, source.values);
  source.storages.set(device, storage);
  tieUpload(leaf, storage);
  return storage;
}

function describe({ kind, description }: Device): string {
  return `${kind} (${description})`;
}

/**
 * Computes the tensors together, so that what they share is computed once. From then on they hold their values.
 * Resolves when the work is queued: reading a value waits for it.
 *
 * Where the device has a companion, that computes small tensors from values that the host has, and the host has the
 * results: asking the device would take longer than computing. The choice depends on nothing but the graph and where
 * its leaves are.
 * @throws DisposedError, DeviceError, DTypeError
 */
export async function evaluate(tensors: readonly Tensor[], device: Device = getDevice()): Promise<void> {
  const scope = currentScope();
  for (const tensor of tensors) requireAlive('evaluate', tensor);
  const outputs = [...new Set(tensors)].filter(({ source }) => source.kind === 'applied');
  if (outputs.length === 0) return;
  const { leaves: inputs, isSmall } = reachedBy('evaluate', outputs);
  const onHost = isSmall && device.companion !== undefined;
  const computing = onHost ? device.companion! : device;
  for (const leaf of inputs) storageOn('evaluate', computing, leaf);
  const program = await programFor(computing, { inputs, outputs, donations: new Map() });
  // Again: while the program compiled, a leaf may have been disposed or have lost its upload.
  for (const leaf of inputs) requireAlive('evaluate', leaf);
  const storages = program.run(inputs.map((leaf) => storageOn('evaluate', computing, leaf)));
  const values = onHost ? await taken(storages) : [];
  outputs.forEach((output, i) => {
    const storage = storages[i]!;
    if (output.source.kind !== 'applied') {
      // Another call computed it meanwhile, or it was disposed.
      storage.dispose();
    } else if (onHost) {
      output.source = { kind: 'host', values: values[i]!, storages: new Map() };
      scope?.add(output);
    } else {
      output.source = { kind: 'stored', storage };
      own(output, storage, scope);
    }
  });
}

/** The values of storages, which are given back. */
async function taken(storages: readonly Storage[]): Promise<HostArray[]> {
  try {
    return await Promise.all(storages.map((storage) => storage.device.read(storage)));
  } finally {
    for (const storage of storages) storage.dispose();
  }
}

/**
 * A copy of the tensor's values, row-major, computed first if need be. f16 comes as numbers in a Float32Array, bool
 * as 0 and 1 in a Uint32Array.
 * @throws DisposedError, DeviceError, DTypeError
 */
export async function read(x: Tensor, device?: Device): Promise<Exclude<HostArray, Uint16Array>> {
  requireAlive('read', x);
  if (x.source.kind === 'applied') await evaluate([x], device);
  const { source } = x;
  if (source.kind === 'stored') return decoded(x, await source.storage.device.read(source.storage));
  if (source.kind === 'host') return decoded(x, source.values.slice());
  requireAlive('read', x);
  throw new Error(`read: a ${source.kind} tensor of shape ${formatShape(x.shape)} has no values to read`);
}

function decoded({ dtype }: Tensor, values: HostArray): Exclude<HostArray, Uint16Array> {
  return values instanceof Uint16Array ? Float32Array.from(decode(dtype, values)) : values;
}

/**
 * The one element of the tensor.
 * @throws ShapeError when it has another number of elements; DisposedError, DeviceError, DTypeError
 */
export async function item(x: Tensor, device?: Device): Promise<number> {
  if (x.size !== 1)
    throw new ShapeError(`item: expected a tensor of one element; got ${formatShape(x.shape)}`);
  return (await read(x, device))[0]!;
}
