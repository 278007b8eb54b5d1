/**
 * Strengths of an adapter by block of a UNet, as InstantStyle restricts what is injected (Wang et al. 2024, arXiv
 * 2404.02733): in SDXL the second attention of up block 0 carries style, that of down block 2 layout.
 */
import type { Module } from '@deftjs/autograd/nn';
import { requireAdapters } from './adapter.ts';

/** For each block, one strength for each of its attentions; diffusers writes these dictionaries. */
export interface BlockStrengths {
  readonly down?: Readonly<Record<`block_${number}`, readonly number[]>>;
  readonly mid?: number;
  readonly up?: Readonly<Record<`block_${number}`, readonly number[]>>;
}

/** SDXL's style block alone. */
export const styleOnly: BlockStrengths = { up: { block_0: [0, 1, 0] } };

/** SDXL's style and layout blocks. */
export const styleAndLayout: BlockStrengths = { down: { block_2: [0, 1] }, up: { block_0: [0, 1, 0] } };

function strengthAt(path: string, strengths: BlockStrengths): number {
  if (/(^|\.)mid_block\./.test(path)) return strengths.mid ?? 0;
  const place = /(?:^|\.)(down|up)_blocks\.(\d+)\.attentions\.(\d+)\./.exec(path);
  if (!place) return 0;
  const [, side, block, attention] = place as unknown as [string, 'down' | 'up', string, string];
  return strengths[side]?.[`block_${Number(block)}`]?.[Number(attention)] ?? 0;
}

/**
 * Sets the adapter's strength on every layer by the layer's block: what is not named gets 0, and computes exactly what the
 * base computes there.
 * @throws Error when no layer has the adapter, or none of its layers gets a strength
 */
export function setBlockStrengths(module: Module, strengths: BlockStrengths, adapterName = 'default'): void {
  const adapters = requireAdapters('setBlockStrengths', module, adapterName);
  const wanted = adapters.map(({ path }) => strengthAt(path, strengths));
  if (wanted.every((strength) => strength === 0)) {
    throw new Error('setBlockStrengths: no layer of the adapter lies in a block that has a strength');
  }
  adapters.forEach(({ adapter }, i) => {
    adapter.strength = wanted[i]!;
  });
}
