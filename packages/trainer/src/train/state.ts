/** Training state as checkpoint files: every tensor of the state tree under its path, in one safetensors file. */
import { memorySource, openSafetensors, writeSafetensors } from '@deftjs/models';
import {
  formatShape,
  read,
  sameShape,
  type Tensor,
  type Tree,
  tensor,
  treeLeaves,
  treeMap,
} from '@deftjs/tensor';
import { UserError } from '../userError.ts';

/** The bytes of a state tree. */
export async function encodeState(state: Tree): Promise<Uint8Array> {
  const leaves = new Map<string, Tensor>();
  treeMap((x, path) => {
    leaves.set(path, x);
    return x;
  }, state);
  const entries = await Promise.all(
    Array.from(leaves, async ([path, x]) => {
      return [path, { dtype: x.dtype, shape: x.shape, data: await read(x) }] as const;
    }),
  );
  return writeSafetensors(Object.fromEntries(entries));
}

/**
 * A state tree like `like` with the values that were encoded.
 * @param name what messages call the file
 * @throws {UserError} when it holds other tensors: the configuration has changed
 */
export async function decodeState<T extends Tree>(name: string, bytes: Uint8Array, like: T): Promise<T> {
  const file = await openSafetensors(memorySource(name, bytes));
  const values = new Map<string, Tensor>();
  for (const path of file.names) {
    const { dtype, shape, data } = await file.read(path);
    values.set(path, tensor(data, shape, dtype));
  }
  const count = treeLeaves(like).length;
  if (count !== values.size) throw new UserError(`${name}: expected ${count} tensors; got ${values.size}`);
  return treeMap((x, path) => {
    const value = values.get(path);
    if (value === undefined || !sameShape(value.shape, x.shape) || value.dtype !== x.dtype) {
      const got = value ? `${value.dtype} ${formatShape(value.shape)}` : 'nothing';
      throw new UserError(`${name}: expected ${x.dtype} ${formatShape(x.shape)} at "${path}"; got ${got}`);
    }
    return value;
  }, like);
}
