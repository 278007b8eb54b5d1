/**
 * The names that the layers of Stable Diffusion's UNets have in CompVis's and Stability's code, where blocks are numbered
 * from end to end: what kohya's tools call the layers of SDXL.
 */

const resnetNames: readonly (readonly [string, string])[] = [
  ['conv1', 'in_layers.2'],
  ['time_emb_proj', 'emb_layers.1'],
  ['conv2', 'out_layers.3'],
  ['conv_shortcut', 'skip_connection'],
];

const fixedNames: readonly (readonly [string, string])[] = [
  ['conv_in', 'input_blocks.0.0'],
  ['time_embedding.linear_1', 'time_embed.0'],
  ['time_embedding.linear_2', 'time_embed.2'],
  ['add_embedding.linear_1', 'label_emb.0.0'],
  ['add_embedding.linear_2', 'label_emb.0.2'],
  ['conv_out', 'out.2'],
  ['mid_block.resnets.0', 'middle_block.0'],
  ['mid_block.attentions.0', 'middle_block.1'],
  ['mid_block.resnets.1', 'middle_block.2'],
];

/** For each of a UNet's layers, by its path in diffusers, its path there. Layers that have none are left out. */
export function sgmNames(paths: Iterable<string>): ReadonlyMap<string, string> {
  const all = [...paths];
  const has = (beginning: string): boolean => all.some((path) => path.startsWith(`${beginning}.`));
  const count = (list: string): number => {
    let n = 0;
    while (has(`${list}.${n}`)) n += 1;
    return n;
  };
  const places = new Map(fixedNames);
  for (const [side, original] of [
    ['down_blocks', 'input_blocks'],
    ['up_blocks', 'output_blocks'],
  ] as const) {
    let block = side === 'down_blocks' ? 1 : 0;
    for (let level = 0; level < count(side); level += 1) {
      const path = `${side}.${level}`;
      const attends = has(`${path}.attentions`);
      for (let i = 0; i < count(`${path}.resnets`); i += 1, block += 1) {
        places.set(`${path}.resnets.${i}`, `${original}.${block}.0`);
        places.set(`${path}.attentions.${i}`, `${original}.${block}.1`);
      }
      if (has(`${path}.downsamplers`)) {
        places.set(`${path}.downsamplers.0.conv`, `${original}.${block}.0.op`);
        block += 1;
      }
      // The upsampler is the last thing in the block before.
      places.set(`${path}.upsamplers.0.conv`, `${original}.${block - 1}.${attends ? 2 : 1}.conv`);
    }
  }
  const named = all.flatMap((path): [string, string][] => {
    for (let end = path.length; end > 0; end = path.lastIndexOf('.', end - 1)) {
      const [beginning, rest] = [path.slice(0, end), path.slice(end)];
      const place = places.get(beginning);
      if (place === undefined) continue;
      if (!/\bresnets\.\d+$/.test(beginning)) return [[path, place + rest]];
      const inner = resnetNames.find(([name]) => rest === `.${name}`)?.[1];
      return inner === undefined ? [] : [[path, `${place}.${inner}`]];
    }
    return [];
  });
  return new Map(named);
}
