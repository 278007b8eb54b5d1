/** A hash of base weights, by which a file says which base it was made for. */
import { cast, type Device, formatShape, read, type Tensor } from '@deftjs/tensor';

const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

async function sha256(bytes: Uint8Array): Promise<string> {
  return hex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>)));
}

/** The hash of one weight's name, shape and values as float32. */
export async function weightHash(name: string, weight: Tensor, device?: Device): Promise<string> {
  const values = Float32Array.from(await read(cast(weight, 'f32'), device));
  const bytes = new Uint8Array(values.buffer);
  return sha256(new TextEncoder().encode(`${name} ${formatShape(weight.shape)} ${await sha256(bytes)}`));
}

/** SHA-256 of the hashes of the weights, in the order of their names. */
export async function baseHash(
  weights: Iterable<readonly [name: string, weight: Tensor]>,
  device?: Device,
): Promise<string> {
  const hashes: [string, string][] = [];
  for (const [name, weight] of weights) hashes.push([name, await weightHash(name, weight, device)]);
  return joinedHash(hashes);
}

/** `baseHash` from the `weightHash` of each. */
export function joinedHash(hashes: readonly (readonly [name: string, hash: string])[]): Promise<string> {
  const ordered = [...hashes].sort(([a], [b]) => (a < b ? -1 : 1));
  return sha256(new TextEncoder().encode(ordered.map(([, hash]) => hash).join('')));
}
