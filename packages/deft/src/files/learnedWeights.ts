/**
 * Files that hold trained tensors as they are: learned_embeds.safetensors, the vectors of new words under each word, and
 * pytorch_custom_diffusion_weights.safetensors, the keys and values of cross-attention under diffusers' names,
 * `<attention>.processor.to_k_custom_diffusion.weight` for the layer `<attention>.to_k`.
 */
import {
  asFloat32,
  memorySource,
  openSafetensors,
  openTorchFile,
  read,
  SafetensorsError,
  type Tensor,
  tensor,
  torchTensors,
  unsqueeze,
  writeSafetensors,
} from '@deftjs/tensor';

type Weights = Readonly<Record<string, Tensor>>;

async function write(weights: Weights, keyOf: (name: string) => string): Promise<Uint8Array> {
  const entries = Object.entries(weights).map(async ([name, value]) => {
    const data = Float32Array.from(await read(value));
    return [keyOf(name), { dtype: 'f32', shape: value.shape, data }] as const;
  });
  return writeSafetensors(Object.fromEntries(await Promise.all(entries)), { format: 'pt' });
}

/** The tensors by their names. @param nameOf the name of a key, null for one that does not belong there */
async function readAll(
  file: string,
  bytes: Uint8Array,
  nameOf: (key: string) => string | null,
  expected: string,
): Promise<Record<string, Tensor>> {
  const source = memorySource(file, bytes);
  // Older files are of torch.save, whose zips begin so.
  const isZip = bytes[0] === 0x50 && bytes[1] === 0x4b;
  const opened = isZip ? torchTensors(await openTorchFile(source)) : await openSafetensors(source);
  const weights: Record<string, Tensor> = {};
  for (const key of opened.names) {
    const name = nameOf(key);
    if (name === null) throw new SafetensorsError(file, `expected ${expected}`, key);
    const values = await opened.read(key);
    const data = asFloat32(values);
    if (!data.every(Number.isFinite)) throw new SafetensorsError(file, 'it holds NaN or infinity', key);
    weights[name] = tensor(data, values.shape);
  }
  if (opened.names.length === 0) throw new SafetensorsError(file, 'it holds no tensors');
  return weights;
}

/** learned_embeds.safetensors: vectors [n, width] by word. */
export function writeLearnedEmbeds(words: Weights): Promise<Uint8Array> {
  return write(words, (word) => word);
}

/**
 * The vectors in the file by word, each [n, width]; a lone vector is one row.
 * @throws SafetensorsError naming a tensor that is no list of vectors, or not finite
 */
export async function readLearnedEmbeds(name: string, bytes: Uint8Array): Promise<Record<string, Tensor>> {
  const words = await readAll(name, bytes, (word) => word, 'a word');
  for (const [word, { rank }] of Object.entries(words)) {
    if (rank !== 1 && rank !== 2) throw new SafetensorsError(name, 'expected vectors [n, width]', word);
  }
  return Object.fromEntries(
    Object.entries(words).map(([word, x]) => [word, x.rank === 2 ? x : unsqueeze(x, 0)]),
  );
}

const layerPath = /^(.+)\.(to_k|to_v|to_q|to_out\.0)\.(weight|bias)$/;
const processorKey = /^(.+)\.processor\.(to_k|to_v|to_q|to_out)_custom_diffusion(\.0)?\.(weight|bias)$/;

/** pytorch_custom_diffusion_weights.safetensors: trained weights by their paths in the UNet. */
export function writeCustomDiffusion(weights: Weights): Promise<Uint8Array> {
  return write(weights, (path) => {
    const parts = layerPath.exec(path);
    if (!parts) throw new Error(`writeCustomDiffusion: expected weights of attention; got "${path}"`);
    const [, attention, layer, kind] = parts as unknown as string[];
    const written = layer === 'to_out.0' ? 'to_out_custom_diffusion.0' : `${layer}_custom_diffusion`;
    return `${attention}.processor.${written}.${kind}`;
  });
}

/** The weights in the file by their paths in the UNet. @throws SafetensorsError naming a key of another kind */
export function readCustomDiffusion(name: string, bytes: Uint8Array): Promise<Record<string, Tensor>> {
  return readAll(
    name,
    bytes,
    (key) => {
      const parts = processorKey.exec(key);
      return parts && `${parts[1]}.${parts[2]}${parts[3] ?? ''}.${parts[4]}`;
    },
    'a key like <attention>.processor.to_k_custom_diffusion.weight',
  );
}
