/**
 * The reference device: every op by its definition, in float64, one after the other.
 *
 * Floats of any dtype are kept and computed in float64 and never rounded, so that results are what the other devices
 * approximate. Integers wrap and saturate as everywhere. No compiler, no kernels, nothing shared with them.
 */
import type { Device, Graph, Program, Storage } from './device.ts';
import { type DType, decode, dtypes, encode, type HostArray } from './dtype.ts';
import { DisposedError } from './errors.ts';
import type { Aval, Op, Values } from './op.ts';
import type { Tensor } from './tensor.ts';

class ReferenceStorage implements Storage {
  readonly device: ReferenceDevice;
  readonly dtype: DType;
  readonly length: number;
  #data: Float64Array | null;

  constructor(device: ReferenceDevice, dtype: DType, data: Float64Array) {
    this.device = device;
    this.dtype = dtype;
    this.length = data.length;
    this.#data = data;
    device.bytesInUse += data.byteLength;
  }

  get disposed(): boolean {
    return this.#data === null;
  }

  get data(): Float64Array {
    if (this.#data === null) throw new DisposedError('reference: the storage was disposed');
    return this.#data;
  }

  set data(data: Float64Array) {
    this.#data = data;
  }

  dispose(): void {
    if (this.#data !== null) this.device.bytesInUse -= this.#data.byteLength;
    this.#data = null;
  }
}

/** An op on values by their places: inputs first, then the results of the steps before. */
interface Step extends Aval {
  readonly op: Op;
  readonly attrs: unknown;
  readonly inputs: readonly number[];
}

interface Ends {
  readonly inputs: readonly Aval[];
  readonly outputs: readonly { readonly place: number; readonly dtype: DType }[];
  readonly donations: Graph['donations'];
}

class ReferenceDevice implements Device {
  readonly kind = 'reference';
  readonly description = 'float64 interpreter';
  readonly dtypes = dtypes;
  bytesInUse = 0;

  upload(dtype: DType, values: HostArray): ReferenceStorage {
    return new ReferenceStorage(this, dtype, decode(dtype, values));
  }

  write(storage: Storage, values: HostArray): void {
    (storage as ReferenceStorage).data.set(decode(storage.dtype, values));
  }

  async read(storage: Storage): Promise<HostArray> {
    return encode(storage.dtype, (storage as ReferenceStorage).data);
  }

  async prepare(graph: Graph): Promise<Program> {
    const places = new Map(graph.inputs.map((input, place) => [input, place]));
    const steps = topologicalOrder(graph).map((node): Step => {
      if (node.source.kind !== 'applied') throw new Error('internal: only applied nodes are in the order');
      const { op, attrs, inputs } = node.source;
      places.set(node, places.size);
      const { shape, dtype } = node;
      return { op, attrs, inputs: inputs.map((input) => places.get(input)!), shape, dtype };
    });
    const ends: Ends = {
      inputs: graph.inputs.map(({ shape, dtype }) => ({ shape, dtype })),
      outputs: graph.outputs.map((output) => ({ place: places.get(output)!, dtype: output.dtype })),
      donations: graph.donations,
    };
    return {
      kernelCount: steps.length,
      temporaryBytes: 0,
      explain: () => steps.map(({ op }) => op.name).join('\n'),
      run: (inputs) => this.#run(steps, ends, inputs),
      dispose: () => {},
    };
  }

  #run(steps: readonly Step[], { inputs, outputs, donations }: Ends, given: readonly Storage[]): Storage[] {
    const values: Values[] = inputs.map((aval, i) => ({
      ...aval,
      data: (given[i] as ReferenceStorage).data,
    }));
    for (const { op, attrs, inputs: operands, shape, dtype } of steps) {
      const result = op.reference(
        operands.map((place) => values[place]!),
        attrs,
        { shape, dtype },
      );
      values.push({
        shape,
        dtype,
        data: result instanceof Float64Array ? result : Float64Array.from(result),
      });
    }
    return outputs.map(({ place, dtype }, o) => {
      const data = (values[place]!.data as Float64Array).slice();
      const donor = donations.get(o);
      if (donor === undefined) return new ReferenceStorage(this, dtype, data);
      (given[donor] as ReferenceStorage).data = data;
      return given[donor]!;
    });
  }

  async idle(): Promise<void> {}

  async close(): Promise<void> {}
}

/** Applied nodes that the outputs depend on, each after its inputs. */
export function topologicalOrder(graph: Pick<Graph, 'inputs' | 'outputs'>): Tensor[] {
  const done = new Set<Tensor>(graph.inputs);
  const order: Tensor[] = [];
  const stack = graph.outputs.map((node) => ({ node, next: 0 })).reverse();
  while (stack.length > 0) {
    const top = stack.at(-1)!;
    const { source } = top.node;
    if (done.has(top.node)) stack.pop();
    else if (source.kind !== 'applied') {
      throw new Error(`internal: a leaf is no input of the graph: ${top.node}`);
    } else if (top.next < source.inputs.length) {
      stack.push({ node: source.inputs[top.next]!, next: 0 });
      top.next += 1;
    } else {
      done.add(top.node);
      order.push(top.node);
      stack.pop();
    }
  }
  return order;
}

/** A device that computes everything by its definition in float64: slow, and the one that tests trust. */
export function referenceDevice(): Device {
  return new ReferenceDevice();
}
