/**
 * Checkpoints in one file, as CompVis and Stability published Stable Diffusion 1.x, 2.x and XL and as kohya's tools
 * write them. The tensors are those of diffusers under other names:
 *
 *   model.diffusion_model.*      the UNet, its blocks numbered through from end to end
 *   first_stage_model.*          the autoencoder; its attention is written as 1 x 1 convolutions
 *   cond_stage_model.*           the text encoder (1.x: transformers' names; 2.x: OpenCLIP's)
 *   conditioner.embedders.0, 1   the two text encoders of XL, the first as 1.x, the second as 2.x
 */
import { type HostArray, type HostTensor, numel, SafetensorsError, type TensorSource } from '@deftjs/tensor';
import type { UNetConfig } from './unetConfig.ts';
import type { VaeConfig } from './vae.ts';

type Names = ReadonlyMap<string, string>;

/** The name with its longest beginning that the table has replaced, and that beginning; null where it has none. */
function replaceBeginning(name: string, table: Names): { beginning: string; renamed: string } | null {
  for (let end = name.length; end > 0; end = name.lastIndexOf('.', end - 1)) {
    const beginning = name.slice(0, end);
    const original = table.get(beginning);
    if (original !== undefined) return { beginning, renamed: original + name.slice(end) };
  }
  return null;
}

const unetResnet: Names = new Map([
  ['norm1', 'in_layers.0'],
  ['conv1', 'in_layers.2'],
  ['time_emb_proj', 'emb_layers.1'],
  ['norm2', 'out_layers.0'],
  ['conv2', 'out_layers.3'],
  ['conv_shortcut', 'skip_connection'],
]);

/** The modules of a UNet and where they are in the file. */
function unetModules({ levels, downAttention, upAttention }: UNetConfig): Names {
  const modules = new Map([
    ['conv_in', 'input_blocks.0.0'],
    ['time_embedding.linear_1', 'time_embed.0'],
    ['time_embedding.linear_2', 'time_embed.2'],
    ['add_embedding.linear_1', 'label_emb.0.0'],
    ['add_embedding.linear_2', 'label_emb.0.2'],
    ['mid_block.attentions.0', 'middle_block.1'],
    ['conv_norm_out', 'out.0'],
    ['conv_out', 'out.2'],
  ]);
  const addResnet = (path: string, original: string) => {
    for (const [ours, theirs] of unetResnet) modules.set(`${path}.${ours}`, `${original}.${theirs}`);
  };
  addResnet('mid_block.resnets.0', 'middle_block.0');
  addResnet('mid_block.resnets.1', 'middle_block.2');
  let block = 1;
  levels.forEach(({ resnets }, i) => {
    for (let j = 0; j < resnets; j += 1, block += 1) {
      addResnet(`down_blocks.${i}.resnets.${j}`, `input_blocks.${block}.0`);
      if (downAttention[i]) modules.set(`down_blocks.${i}.attentions.${j}`, `input_blocks.${block}.1`);
    }
    if (i < levels.length - 1) {
      modules.set(`down_blocks.${i}.downsamplers.0.conv`, `input_blocks.${block}.0.op`);
      block += 1;
    }
  });
  block = 0;
  levels.toReversed().forEach(({ resnets }, i) => {
    for (let j = 0; j <= resnets; j += 1, block += 1) {
      addResnet(`up_blocks.${i}.resnets.${j}`, `output_blocks.${block}.0`);
      if (upAttention[i]) modules.set(`up_blocks.${i}.attentions.${j}`, `output_blocks.${block}.1`);
    }
    // The upsampler is the last thing in the block before.
    const place = `output_blocks.${block - 1}.${upAttention[i] ? 2 : 1}`;
    if (i < levels.length - 1) modules.set(`up_blocks.${i}.upsamplers.0.conv`, `${place}.conv`);
  });
  return modules;
}

/** The modules of an autoencoder and where they are in the file. */
function vaeModules({ channels, resnets }: VaeConfig): Names {
  const modules = new Map([
    ['quant_conv', 'quant_conv'],
    ['post_quant_conv', 'post_quant_conv'],
  ]);
  const addResnet = (path: string, original: string) => {
    for (const layer of ['norm1', 'conv1', 'norm2', 'conv2'])
      modules.set(`${path}.${layer}`, `${original}.${layer}`);
    modules.set(`${path}.conv_shortcut`, `${original}.nin_shortcut`);
  };
  for (const half of ['encoder', 'decoder']) {
    modules.set(`${half}.conv_in`, `${half}.conv_in`);
    modules.set(`${half}.conv_norm_out`, `${half}.norm_out`);
    modules.set(`${half}.conv_out`, `${half}.conv_out`);
    addResnet(`${half}.mid_block.resnets.0`, `${half}.mid.block_1`);
    addResnet(`${half}.mid_block.resnets.1`, `${half}.mid.block_2`);
    for (const [ours, theirs] of Object.entries(pixelAttention))
      modules.set(`${half}.mid_block.attentions.0.${ours}`, `${half}.mid.attn_1.${theirs}`);
  }
  const last = channels.length - 1;
  for (let i = 0; i <= last; i += 1) {
    for (let j = 0; j < resnets; j += 1)
      addResnet(`encoder.down_blocks.${i}.resnets.${j}`, `encoder.down.${i}.block.${j}`);
    // Levels are numbered from the finest, up blocks from the coarsest.
    for (let j = 0; j <= resnets; j += 1)
      addResnet(`decoder.up_blocks.${i}.resnets.${j}`, `decoder.up.${last - i}.block.${j}`);
    if (i === last) continue;
    modules.set(`encoder.down_blocks.${i}.downsamplers.0.conv`, `encoder.down.${i}.downsample.conv`);
    modules.set(`decoder.up_blocks.${i}.upsamplers.0.conv`, `decoder.up.${last - i}.upsample.conv`);
  }
  return modules;
}

const pixelAttention = { group_norm: 'norm', to_q: 'q', to_k: 'k', to_v: 'v', 'to_out.0': 'proj_out' };

/** Where a parameter's values are in the file. */
interface Original {
  readonly name: string;
  /** Of the rows, this third: queries, keys or values of one stacked matrix. */
  readonly third?: 0 | 1 | 2;
  /** Whether the matrix is written transposed. */
  readonly transposed?: boolean;
}

/** The name that a parameter of a UNet has in the file, without the prefix. @throws RangeError when it has none */
export function originalUNetName(name: string, config: UNetConfig): string {
  return originalName(name, unetModules(config));
}

/** The name that a parameter of an autoencoder has in the file, without the prefix. @throws RangeError */
export function originalVaeName(name: string, config: VaeConfig): string {
  return originalName(name, vaeModules(config));
}

function originalName(name: string, modules: Names): string {
  const found = replaceBeginning(name, modules);
  if (found === null) throw new RangeError(`single file: there is no place for a parameter "${name}"`);
  return found.renamed;
}

/** The UNet of the file under the names of diffusers. */
export function singleFileUNet(file: TensorSource, config: UNetConfig): TensorSource {
  return renamedBack(file, 'model.diffusion_model.', inverted(unetModules(config)));
}

/** The autoencoder of the file under the names of diffusers. */
export function singleFileVae(file: TensorSource, config: VaeConfig): TensorSource {
  const source = renamedBack(file, 'first_stage_model.', inverted(vaeModules(config)));
  // 1 x 1 convolutions over pixels are linear maps of them.
  const flat = (name: string, shape: readonly number[]) =>
    /\.attentions\.0\.to_.*weight$/.test(name) && shape.length === 4 ? shape.slice(0, 2) : shape;
  return reshaped(source, flat);
}

/**
 * A text encoder of the file under the names of transformers.
 * @param prefix where it is: `cond_stage_model.` (1.x and 2.x), `conditioner.embedders.0.` or `.1.` (XL)
 */
export function singleFileText(file: TensorSource, prefix = 'cond_stage_model.'): TensorSource {
  const isOpenClip = file.names.some((name) => name.startsWith(`${prefix}model.`));
  return isOpenClip
    ? openClipText(file, `${prefix}model.`)
    : renamedBack(file, `${prefix}transformer.`, null);
}

function inverted(names: Names): Names {
  return new Map(Array.from(names, ([ours, theirs]) => [theirs, ours]));
}

/** What begins with the prefix, without it and by the table's names; what the table does not know keeps its name. */
function renamedBack(file: TensorSource, prefix: string, table: Names | null): TensorSource {
  const places = new Map<string, Original>();
  for (const name of file.names) {
    if (!name.startsWith(prefix)) continue;
    const rest = name.slice(prefix.length);
    places.set((table && replaceBeginning(rest, table)?.renamed) ?? rest, { name });
  }
  return placed(file, places);
}

const openClipLayer: Names = new Map([
  ['ln_1', 'layer_norm1'],
  ['ln_2', 'layer_norm2'],
  ['attn.out_proj', 'self_attn.out_proj'],
  ['mlp.c_fc', 'mlp.fc1'],
  ['mlp.c_proj', 'mlp.fc2'],
]);

/** OpenCLIP stacks queries, keys and values into one matrix and multiplies by its projection from the left. */
function openClipText(file: TensorSource, prefix: string): TensorSource {
  const outside: Readonly<Record<string, string>> = {
    'token_embedding.weight': 'text_model.embeddings.token_embedding.weight',
    positional_embedding: 'text_model.embeddings.position_embedding.weight',
    'ln_final.weight': 'text_model.final_layer_norm.weight',
    'ln_final.bias': 'text_model.final_layer_norm.bias',
  };
  const places = new Map<string, Original>();
  for (const name of file.names) {
    if (!name.startsWith(prefix)) continue;
    const rest = name.slice(prefix.length);
    const [, layer, inner] = /^transformer\.resblocks\.(\d+)\.(.+)$/.exec(rest) ?? [];
    const stacked = inner && /^attn\.in_proj_(weight|bias)$/.exec(inner);
    if (stacked) {
      for (const [third, projection] of (['q_proj', 'k_proj', 'v_proj'] as const).entries()) {
        const path = `text_model.encoder.layers.${layer}.self_attn.${projection}.${stacked[1]}`;
        places.set(path, { name, third: third as 0 | 1 | 2 });
      }
    } else if (inner) {
      const known = replaceBeginning(inner, openClipLayer)?.renamed ?? inner;
      places.set(`text_model.encoder.layers.${layer}.${known}`, { name });
    } else if (rest === 'text_projection') {
      places.set('text_projection.weight', { name, transposed: true });
    } else if (rest !== 'logit_scale') places.set(outside[rest] ?? rest, { name }); // a scale of training only
  }
  return placed(file, places);
}

/** Tensors of the file at their places. */
function placed(file: TensorSource, places: ReadonlyMap<string, Original>): TensorSource {
  const originalOf = (name: string): Original => {
    const found = places.get(name);
    if (found === undefined) throw new SafetensorsError(file.source, 'there is no tensor of that name', name);
    return found;
  };
  const shapeOf = (name: string): readonly number[] => {
    const { name: original, third, transposed } = originalOf(name);
    const { shape } = file.info(original);
    if (transposed) return shape.toReversed();
    return third === undefined ? shape : [shape[0]! / 3, ...shape.slice(1)];
  };
  return {
    source: file.source,
    names: [...places.keys()],
    info: (name) => ({ ...file.info(originalOf(name).name), shape: shapeOf(name) }),
    async read(name) {
      const { name: original, third, transposed } = originalOf(name);
      const whole = await file.read(original);
      const shape = shapeOf(name);
      if (transposed) return { ...whole, shape, data: transpose(whole) };
      if (third === undefined) return whole;
      const size = numel(shape);
      return { ...whole, shape, data: whole.data.slice(third * size, (third + 1) * size) };
    },
  };
}

/** The values of a matrix, column by column. */
function transpose({ data, shape }: HostTensor): HostArray {
  const [rows, columns] = shape as [number, number];
  const turned = data.slice();
  for (let i = 0; i < data.length; i += 1) {
    turned[(i % columns) * rows + Math.floor(i / columns)] = data[i]!;
  }
  return turned;
}

/** The source with other shapes of the same values. */
function reshaped(
  source: TensorSource,
  shapeFor: (name: string, shape: readonly number[]) => readonly number[],
): TensorSource {
  return {
    ...source,
    info(name) {
      const info = source.info(name);
      return { ...info, shape: shapeFor(name, info.shape) };
    },
    async read(name) {
      const tensor = await source.read(name);
      return { ...tensor, shape: shapeFor(name, tensor.shape) };
    },
  };
}
