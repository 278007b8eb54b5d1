/** Weights as the safetensors file of a model. */
import { type HostTensor, writeSafetensors } from '@deftjs/models';
import { read, type Tensor, toHalfBits } from '@deftjs/tensor';

/** The bytes of the file that holds the weights by name, rounded to the type. */
export async function weightFile(
  weights: Readonly<Record<string, Tensor>>,
  dtype: 'f16' | 'f32',
): Promise<Uint8Array> {
  const tensors: Record<string, HostTensor> = {};
  for (const [name, value] of Object.entries(weights)) {
    const values = await read(value);
    const data = dtype === 'f16' ? Uint16Array.from(values, toHalfBits) : Float32Array.from(values);
    tensors[name] = { dtype, shape: value.shape, data };
  }
  return writeSafetensors(tensors, { format: 'pt' });
}
