import { type Device, getDevice } from './device.ts';
import type { DType, HostArray } from './dtype.ts';
import { currentScope, own } from './scope.ts';
import type { Shape } from './shape.ts';
import { Tensor, tensor } from './tensor.ts';

/**
 * A tensor whose values only the device holds: for weights, which the host has no room to keep a second time. The
 * array is free to go when this returns.
 * @throws ShapeError when the shape does not hold all values; DTypeError, DeviceError by the device
 */
export function upload(values: HostArray, shape: Shape, dtype?: DType, device: Device = getDevice()): Tensor {
  const given = tensor(values, shape, dtype);
  const storage = device.upload(given.dtype, values);
  const uploaded = new Tensor(given.shape, given.dtype, { kind: 'stored', storage });
  own(uploaded, storage, currentScope());
  return uploaded;
}
