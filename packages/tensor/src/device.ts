/**
 * What every backend offers: storages that hold values, and programs that compute them.
 *
 * A backend takes a whole graph at a time. The reference interpreter walks it; WebGPU and wasm lower it to a plan
 * (kernel.ts) first and generate code.
 */
import type { DType, HostArray } from './dtype.ts';
import type { Tensor } from './tensor.ts';

export type DeviceKind = 'webgpu' | 'wasm' | 'reference';

/** Values on a device. Its owner disposes it; everything else only reads it. */
export interface Storage {
  readonly device: Device;
  readonly dtype: DType;
  /** Number of elements. */
  readonly length: number;
  readonly disposed: boolean;
  /** Gives the memory back, at the latest when the device has finished the work that reads it. */
  dispose(): void;
}

/** Tensors to compute from tensors whose values are given at each run. */
export interface Graph {
  /** Leaves that stand for the inputs of a run. */
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  /** donations[o] = i: output o takes over the storage of input i (equal shape and dtype), whose values are lost. */
  readonly donations: ReadonlyMap<number, number>;
}

/** What a kernel of a program costs. */
export interface KernelTime {
  readonly label: string;
  /** Kind and index space. */
  readonly description: string;
  readonly milliseconds: number;
  /** Arithmetic operations of one run, and bytes if each element that is touched moves once. */
  readonly flops: number;
  readonly bytes: number;
}

/** A compiled graph. Owns its temporaries until disposed. */
export interface Program {
  /**
   * Computes the outputs, in order: new storages, or the donated ones. Calls are queued; reading an output waits.
   * @throws DisposedError, DeviceError
   */
  run(inputs: readonly Storage[]): Storage[];
  /** One line for each kernel: label, index space, bytes, flops; then the generated source. */
  explain(): string;
  /**
   * How long each kernel takes on its own, one after the other, on values that mean nothing; missing on devices that
   * do not launch kernels one by one. @throws DisposedError, DeviceError
   */
  profile?(): Promise<readonly KernelTime[]>;
  /** Kernels that one run launches. */
  readonly kernelCount: number;
  /** Bytes of temporaries that the program holds. */
  readonly temporaryBytes: number;
  dispose(): void;
}

export interface Device {
  readonly kind: DeviceKind;
  /** For people: the adapter's name, the number of threads. */
  readonly description: string;
  /** The types it can hold. */
  readonly dtypes: readonly DType[];
  /** Bytes held by storages and programs that are not disposed. */
  readonly bytesInUse: number;
  /** Computes on this thread what is too small to ask this device for (see `evaluate`); closed with it. */
  readonly companion?: Device;
  /** A storage with a copy of the values. @throws DTypeError, DeviceError */
  upload(dtype: DType, values: HostArray): Storage;
  /** Overwrites a storage, which keeps its identity. */
  write(storage: Storage, values: HostArray): void;
  /** A copy of the values, when all work queued before has ended. @throws DisposedError, DeviceError */
  read(storage: Storage): Promise<HostArray>;
  /** Compiles; keeps nothing of the graph. @throws DTypeError when the device cannot hold a type that the graph uses, DeviceError */
  prepare(graph: Graph): Promise<Program>;
  /** Resolves when all queued work has ended. */
  idle(): Promise<void>;
  /** Ends the device; storages and programs on it are gone. */
  close(): Promise<void>;
}

/** `auto` is WebGPU where a hardware adapter answers, else wasm; `webgpu` also takes a software adapter. */
export type DeviceName = 'auto' | 'webgpu' | 'wasm' | 'reference';

/** An open device, and one line for the user on which it is and why. */
export interface OpenedDevice {
  readonly device: Device;
  readonly why: string;
}

let current: Device | null = null;

/** Makes the device the one that evaluates tensors unless told otherwise. */
export function setDevice(device: Device): void {
  current = device;
}

/**
 * The device set by `setDevice`.
 * @throws Error when none was set
 */
export function getDevice(): Device {
  if (current === null) {
    throw new Error(
      'device: none is set; call setDevice(await openDevice(...)) or setDevice(referenceDevice())',
    );
  }
  return current;
}
