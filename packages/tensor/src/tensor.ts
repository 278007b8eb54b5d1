/**
 * Tensors: immutable handles to values that are computed when somebody asks.
 *
 * A tensor is a node of the graph: an op applied to other tensors. `evaluate` (or `data`, `item`) computes it; from
 * then on it holds its values and forgets what it was computed from. Leaves hold values from the start, on the host
 * until a device needs them.
 */
import type { Device, Storage } from './device.ts';
import { bytesPerElement, type DType, dtypeOfArray, encode, type HostArray } from './dtype.ts';
import { DisposedError, DTypeError, formatShape, ShapeError } from './errors.ts';
import type { Op } from './op.ts';
import { checkShape, numel, type Shape } from './shape.ts';

/** How a tensor comes by its values. */
export type Source =
  /** An op applied to tensors, not yet computed. */
  | { readonly kind: 'applied'; readonly op: Op; readonly inputs: readonly Tensor[]; readonly attrs: unknown }
  /** Values given on the host; `storages` caches where they have been uploaded. */
  | { readonly kind: 'host'; readonly values: HostArray; readonly storages: Map<Device, Storage> }
  | { readonly kind: 'stored'; readonly storage: Storage }
  /** The input of a traced function: values come with each run. */
  | { readonly kind: 'placeholder' }
  | { readonly kind: 'gone'; readonly why: string };

let nextSerial = 0;

/** @internal The serial number that the next tensor gets: tensors made from now on have at least this one. */
export function serialNow(): number {
  return nextSerial;
}

export class Tensor {
  /** @internal Counts up: a trace tells what it made from what it captured. */
  readonly serial: number;
  readonly shape: Shape;
  readonly dtype: DType;
  /** @internal Replaced when the tensor is computed or disposed. */
  source: Source;

  /** @internal Tensors are made by `tensor`, by ops and by compiled functions. */
  constructor(shape: Shape, dtype: DType, source: Source) {
    this.serial = nextSerial;
    nextSerial += 1;
    this.shape = shape;
    this.dtype = dtype;
    this.source = source;
  }

  /** Number of axes. */
  get rank(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  get size(): number {
    return numel(this.shape);
  }

  /** Bytes that the values take in storage. */
  get sizeBytes(): number {
    return this.size * bytesPerElement(this.dtype);
  }

  /** Frees the values now. Using the tensor afterwards throws; disposing it again does nothing. */
  dispose(): void {
    if (this.source.kind === 'host') for (const storage of this.source.storages.values()) storage.dispose();
    if (this.source.kind === 'stored') this.source.storage.dispose();
    if (this.source.kind !== 'gone') this.source = { kind: 'gone', why: 'it was disposed' };
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    return `Tensor(${this.dtype} ${formatShape(this.shape)}, ${this.source.kind})`;
  }
}

/** Numbers, nested once for each axis. */
export type Nested = number | readonly Nested[];

/**
 * A tensor of the given numbers.
 *
 * @param values a number, nested arrays of numbers, or a flat typed array (kept, not copied: do not change it)
 * @param shape default: the nesting, or one axis for a typed array
 * @param dtype default: the typed array's (a Uint16Array holds f16 bits), else f32
 * @throws ShapeError when the rows have different lengths or the shape does not hold all values
 */
export function tensor(values: Nested | HostArray, shape?: Shape, dtype?: DType): Tensor {
  if (ArrayBuffer.isView(values)) return fromArray(values, shape ?? [values.length], dtype);
  const nesting: number[] = [];
  for (let row: Nested = values; typeof row !== 'number'; row = row[0] ?? 0) nesting.push(row.length);
  const flat: number[] = [];
  flatten(values, nesting, 0, flat);
  const type = dtype ?? 'f32';
  return fromArray(encode(type, flat), shape ?? nesting, type);
}

function flatten(values: Nested, nesting: readonly number[], depth: number, into: number[]): void {
  if (typeof values === 'number') {
    if (depth !== nesting.length)
      throw new ShapeError(`tensor: a number where a row of ${nesting[depth]} belongs`);
    into.push(values);
    return;
  }
  if (values.length !== nesting[depth]) {
    throw new ShapeError(
      `tensor: rows differ; expected length ${nesting[depth] ?? 'none'}; got ${values.length}`,
    );
  }
  for (const row of values) flatten(row, nesting, depth + 1, into);
}

function fromArray(values: HostArray, shape: Shape, dtype: DType = dtypeOfArray(values)): Tensor {
  checkShape('tensor', shape);
  if (values.length !== numel(shape)) {
    throw new ShapeError(
      `tensor: ${formatShape(shape)} holds ${numel(shape)} elements; got ${values.length}`,
    );
  }
  const own = dtypeOfArray(values);
  if (own !== dtype && !(own === 'u32' && dtype === 'bool')) {
    throw new DTypeError(`tensor: a ${values.constructor.name} holds ${own}; got dtype ${dtype}`);
  }
  return new Tensor(shape, dtype, { kind: 'host', values, storages: new Map() });
}

/** A leaf whose values come with each run of the function being traced. */
export function placeholder(shape: Shape, dtype: DType): Tensor {
  return new Tensor(shape, dtype, { kind: 'placeholder' });
}

let observer: ((made: Tensor) => void) | null = null;

/** The result of `run`; each tensor that an op makes meanwhile is shown to `see`, with the call stack of its maker. */
export function observeOps<R>(run: () => R, see: (made: Tensor) => void): R {
  const outer = observer;
  observer = see;
  try {
    return run();
  } finally {
    observer = outer;
  }
}

/**
 * The op applied to the inputs: the one way to make a graph node.
 * @throws ShapeError, DTypeError by the op's rule; DisposedError when an input's values are gone
 */
export function apply<Attrs>(op: Op<Attrs>, inputs: readonly Tensor[], attrs: Attrs): Tensor {
  for (const input of inputs) requireAlive(op.name, input);
  const { shape, dtype } = op.infer(inputs, attrs);
  checkShape(op.name, shape);
  const made = new Tensor(shape, dtype, { kind: 'applied', op: op as Op, inputs, attrs });
  observer?.(made);
  return made;
}

/** @throws DisposedError when the tensor's values are gone */
export function requireAlive(op: string, x: Tensor): void {
  if (x.source.kind === 'gone') {
    throw new DisposedError(
      `${op}: a tensor of shape ${formatShape(x.shape)} cannot be used: ${x.source.why}`,
    );
  }
}
