/** How much adapters change weights, for people to read. */
import { changeOf, type StoredLayer } from '@deftjs/deft';
import { type Device, read } from '@deftjs/tensor';
import { type BasePart, readWeight } from './baseFolder.ts';

/** What an adapter does to a layer's weight, in Frobenius norms. */
export interface LayerChange {
  readonly part: string;
  readonly path: string;
  readonly rank: number | null;
  readonly weightNorm: number;
  readonly changeNorm: number;
}

/** The weight, the change of it, and their norms. */
export async function changeOfLayer(
  layer: StoredLayer,
  base: BasePart,
  device: Device,
): Promise<{
  readonly W0: ArrayLike<number>;
  readonly delta: ArrayLike<number>;
  readonly norms: LayerChange;
}> {
  const { part, path, method } = layer;
  const weight = await readWeight(base, path);
  const { change } = await changeOf(layer, weight, device);
  const [W0, delta] = [await read(weight, device), await read(change.delta(weight), device)];
  return {
    W0,
    delta,
    norms: { part, path, rank: method.rank, weightNorm: norm(W0), changeNorm: norm(delta) },
  };
}

function norm(values: ArrayLike<number>): number {
  let squares = 0;
  for (let i = 0; i < values.length; i += 1) squares += values[i]! ** 2;
  return Math.sqrt(squares);
}

const shareOf = ({ changeNorm, weightNorm }: LayerChange): number => changeNorm / weightNorm;

export function changeLine(layer: LayerChange): string {
  const { part, path, rank, changeNorm } = layer;
  const ranked = rank === null ? '' : `  rank ${rank}`;
  return `${part}.${path}${ranked}  |dW| ${changeNorm.toPrecision(4)}  |dW|/|W| ${shareOf(layer).toExponential(2)}`;
}

/** What is odd about the changes, a sentence each. */
export function changeWarnings(layers: readonly LayerChange[]): readonly string[] {
  const mean = layers.reduce((sum, layer) => sum + shareOf(layer), 0) / layers.length;
  return mean > 1e-6 ? [] : ['the adapter changes next to nothing: mean |dW|/|W| is about 0'];
}
