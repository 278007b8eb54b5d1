/** Computing tensors: the graphs beneath them become programs, which are kept for graphs of the same structure. */
import { detachedGraph, graphKey } from './compiler/ir.ts';
import { type Device, type Graph, getDevice, type Program, type Storage } from './device.ts';
import { decode, type HostArray } from './dtype.ts';
import { DeviceError, formatShape, ShapeError } from './errors.ts';
import { Lru } from './lru.ts';
import { currentScope, own, tieUpload } from './scope.ts';
import { requireAlive, type Tensor } from './tensor.ts';

/** Programs kept for each device. */
const programCapacity = 256;

const programs = new WeakMap<Device, Lru<Promise<Program>>>();

function programFor(device: Device, graph: Graph): Promise<Program> {
  let known = programs.get(device);
  if (!known) {
    known = new Lru<Promise<Program>>(programCapacity, (evicted) => {
      evicted.then(
        (program) => program.dispose(),
        () => {},
      );
    });
    programs.set(device, known);
  }
  const cache = known;
  const key = graphKey(graph);
  const ready = cache.get(key);
  if (ready) return ready;
  const program = device.prepare(detachedGraph(graph));
  cache.set(key, program);
  // What failed to compile is tried again next time.
  program.catch(() => cache.delete(key));
  return program;
}

/**
 * The leaves that the tensors are computed from, each once.
 * @throws DisposedError when the values of one are gone, Error when one is a placeholder
 */
export function leavesOf(op: string, tensors: readonly Tensor[]): Tensor[] {
  const seen = new Set(tensors);
  const leaves: Tensor[] = [];
  // A set in iteration visits what is added.
  for (const tensor of seen) {
    requireAlive(op, tensor);
    if (tensor.source.kind === 'applied') for (const input of tensor.source.inputs) seen.add(input);
    else leaves.push(tensor);
  }
  return leaves;
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
 * @throws DisposedError, DeviceError, DTypeError
 */
export async function evaluate(tensors: readonly Tensor[], device: Device = getDevice()): Promise<void> {
  const scope = currentScope();
  for (const tensor of tensors) requireAlive('evaluate', tensor);
  const outputs = [...new Set(tensors)].filter(({ source }) => source.kind === 'applied');
  if (outputs.length === 0) return;
  const inputs = leavesOf('evaluate', outputs);
  for (const leaf of inputs) storageOn('evaluate', device, leaf);
  const program = await programFor(device, { inputs, outputs, donations: new Map() });
  // Again: while the program compiled, a leaf may have been disposed or have lost its upload.
  for (const leaf of inputs) requireAlive('evaluate', leaf);
  const storages = program.run(inputs.map((leaf) => storageOn('evaluate', device, leaf)));
  outputs.forEach((output, i) => {
    const storage = storages[i]!;
    if (output.source.kind !== 'applied') {
      // Another call computed it meanwhile, or it was disposed.
      storage.dispose();
      return;
    }
    output.source = { kind: 'stored', storage };
    own(output, storage, scope);
  });
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
