/**
 * How files name the layers of a LoRA adapter.
 *
 * diffusers: `<part>.<path>.lora_A.weight`, and older spellings of the same:
 *
 *     unet.<path>.lora.down.weight                        before PEFT
 *     <path of attention>.processor.to_q_lora.down.weight processors of attention, without the part
 *     text_encoder.<path>.lora_linear_layer.down.weight
 *     text_encoder.<path of attention>.to_q_lora.down.weight, for q_proj
 *
 * kohya, A1111, ComfyUI: `lora_unet_<path with underscores>.lora_down.weight`. Which path is meant can only be told
 * with the paths of the model at hand.
 */
import { SafetensorsError } from '@deftjs/tensor';
import { sgmNames } from './sgmNames.ts';
import { type LayerShapes, nearest, type Parts } from './storedAdapter.ts';

/** What of a layer a tensor is. */
export type LoraRole = 'down' | 'up' | 'alpha';

export interface LoraKey {
  readonly part: string;
  readonly path: string;
  readonly role: LoraRole;
}

/** Tensors of other methods, by how their keys end, and what the methods are called. */
const others: readonly (readonly [RegExp, string])[] = [
  [/\.hada_[wt]\d/, 'LoHa (LyCORIS)'],
  [/\.lokr_[wt]\d/, 'LoKr (LyCORIS)'],
  [/\.(oft|boft)_|\.oft_blocks$/, 'OFT'],
  [/\.(dora_scale|lora_magnitude_vector)(\.|$)/, 'DoRA'],
  [/\.lora_mid\.weight$/, 'LoCon in Tucker form (LyCORIS)'],
  [/\.(diff|diff_b|w_norm|b_norm)$/, 'whole changes of weights (LyCORIS)'],
  [/\.[ab][12]\.weight$/, 'GLoRA (LyCORIS)'],
  [/\.(on_input|scalar)$/, 'IA3 (LyCORIS)'],
  [/\.lora_embedding_[AB]$/, 'LoRA of embeddings'],
  [/\.lora_[AB]\.bias$|\.lora_(up|down)\.bias$/, 'LoRA with biases'],
];

/** @throws SafetensorsError for a key of a method that is known and not supported */
export function refuseOthers(source: string, keys: readonly string[]): void {
  for (const key of keys) {
    const found = others.find(([ending]) => ending.test(key));
    if (found) throw new SafetensorsError(source, `this is ${found[1]}, which is not supported`, key);
  }
}

export function isKohyaKey(key: string): boolean {
  return /^lora_(unet|transformer|te\d?)_/.test(key);
}

/** kohya's beginnings for a part, what is written first. */
function kohyaBeginnings(part: string, hasTwoTextEncoders: boolean): readonly string[] {
  if (part === 'text_encoder') return hasTwoTextEncoders ? ['lora_te1', 'lora_te'] : ['lora_te', 'lora_te1'];
  if (part === 'text_encoder_2') return ['lora_te2'];
  return part === 'transformer' ? ['lora_transformer', 'lora_unet'] : [`lora_${part}`];
}

/** The names that kohya's tools give to the layers of the models, what is written first. */
export function kohyaNames(
  models: Parts<LayerShapes>,
): Map<string, { names: string[]; part: string; path: string }> {
  const all = new Map<string, { names: string[]; part: string; path: string }>();
  for (const [part, layers] of Object.entries(models)) {
    const original = part === 'unet' ? sgmNames(layers.keys()) : new Map<string, string>();
    const isXl = layers.has('add_embedding.linear_1');
    for (const path of layers.keys()) {
      const own = part.startsWith('text_encoder') ? transformersPath(path) : path;
      const there = original.get(path);
      const paths = there === undefined ? [own] : isXl ? [there, own] : [own, there];
      const names = kohyaBeginnings(part, 'text_encoder_2' in models).flatMap((beginning) =>
        paths.map((spelt) => `${beginning}_${spelt.replaceAll('.', '_')}`),
      );
      all.set(`${part}.${path}`, { names, part, path });
    }
  }
  return all;
}

/** CLIP's layers lie below `text_model` in the transformers that these formats come from; later versions left it out. */
function transformersPath(path: string): string {
  return /^(encoder|embeddings|final_layer_norm)\b/.test(path) ? `text_model.${path}` : path;
}

/**
 * What each of kohya's keys means.
 * @throws SafetensorsError for a key of no layer of the models, with the nearest that there are
 */
export function readKohyaKeys(
  source: string,
  keys: readonly string[],
  models: Parts<LayerShapes>,
): ReadonlyMap<string, LoraKey> {
  const byName = new Map<string, { part: string; path: string }>();
  for (const { names, part, path } of [...kohyaNames(models).values()].reverse()) {
    for (const name of names) byName.set(name, { part, path });
  }
  return new Map(
    keys.map((key) => {
      const [, name, ending] = /^(.*)\.(lora_down\.weight|lora_up\.weight|alpha)$/.exec(key) ?? [];
      if (name === undefined) {
        throw new SafetensorsError(source, 'expected a key like lora_unet_<layer>.lora_down.weight', key);
      }
      const layer = byName.get(name);
      if (!layer) {
        throw new SafetensorsError(
          source,
          `no layer of the model has this name; ${nearest(name, byName.keys())}`,
          key,
        );
      }
      const role = ending === 'alpha' ? 'alpha' : ending === 'lora_down.weight' ? 'down' : 'up';
      return [key, { ...layer, role }] as const;
    }),
  );
}

const modernKey =
  /^(?:(.*)\.)?((?:lora_A|lora_B|lora\.down|lora\.up|lora_linear_layer\.down|lora_linear_layer\.up)\.weight|alpha)$/;
const processorKey = /^(.*_lora)\.((?:down|up)\.weight)$/;

/** The beginning of a key that names its part. */
export const partNames = /^(unet|transformer|text_encoder_\d|text_encoder)\./;

/**
 * What each of diffusers' keys means, by the names alone.
 * @param defaultPart of keys that name none
 * @throws SafetensorsError for a key that is none of LoRA's
 */
export function readDiffusersKeys(
  source: string,
  keys: readonly string[],
  defaultPart: string,
): ReadonlyMap<string, LoraKey> {
  return new Map(
    keys.map((key) => {
      const part = partNames.exec(key)?.[1] ?? defaultPart;
      const inner = key.replace(partNames, '').replace(/^base_model\.model\./, '');
      const found = modernKey.exec(inner) ?? processorKey.exec(inner);
      const [, spelt = '', ending = ''] = found ?? [];
      if (found === null) {
        throw new SafetensorsError(source, `expected a key like ${defaultPart}.<layer>.lora_A.weight`, key);
      }
      const role: LoraRole = ending === 'alpha' ? 'alpha' : /A\.|down\./.test(ending) ? 'down' : 'up';
      return [key, { part, path: modernPath(spelt, part), role }] as const;
    }),
  );
}

/** The path of the layer that an older spelling means. */
function modernPath(spelt: string, part: string): string {
  const [, attention, name] =
    /^(.*)\.(to_\w+|add_\w+)_lora$/.exec(spelt.replace(/\.processor(?=\.)/, '')) ?? [];
  if (attention === undefined) return spelt;
  if (!part.startsWith('text_encoder')) return `${attention}.${name === 'to_out' ? 'to_out.0' : name}`;
  return `${attention}.${name!.replace(/^to_/, '')}_proj`;
}

/** The model's own path for a text encoder's, whichever of transformers' two spellings either has. */
export function pathInModel(part: string, path: string, layers: LayerShapes): string | null {
  if (layers.has(path)) return path;
  if (!part.startsWith('text_encoder')) return null;
  const other = path.startsWith('text_model.') ? path.slice('text_model.'.length) : transformersPath(path);
  return layers.has(other) ? other : null;
}
