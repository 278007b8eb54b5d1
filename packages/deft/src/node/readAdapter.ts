/** Adapters on disk, in whatever format they are. */
import { existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type JsonConfig,
  memorySource,
  openSafetensors,
  openTorchFile,
  parseConfig,
  SafetensorsError,
  type TensorSource,
  type TorchValue,
  torchTensors,
} from '@deftjs/tensor';
import { readLora } from '../files/lora.ts';
import { readOfficial } from '../files/official.ts';
import { readPeft } from '../files/peft.ts';
import type { LayerShapes, Parts, StoredAdapter } from '../files/storedAdapter.ts';
import {
  isCustomDiffusionKey,
  isShiftKey,
  readStoredShifts,
  readStoredWeights,
} from '../files/storedWeights.ts';

const officialFiles = { injection: 'knowledge_injection', para: 'para_rank' } as const;

/** Files that are an adapter by themselves, as libraries call them in a folder. */
const namedFiles = [
  'pytorch_lora_weights.safetensors',
  'pytorch_lora_weights.bin',
  'spectral_shifts.safetensors',
  'pytorch_custom_diffusion_weights.safetensors',
  'pytorch_custom_diffusion_weights.bin',
];

/** The part that an adapter is for which does not say: the model that draws, where there are several. */
function drawingPart(models: Parts<LayerShapes> | undefined): string {
  const parts = Object.keys(models ?? {});
  return parts.find((part) => part === 'unet' || part === 'transformer') ?? parts[0] ?? 'unet';
}

/**
 * The adapter at the path: a PEFT folder, a folder or file of diffusers or kohya's tools (safetensors or torch.save),
 * SVDiff's or Custom Diffusion's file, or a checkpoint of the DEFT authors' code.
 * @param models the layers of the base's parts; absent: those that the file has, where its format says them
 * @param part which part it is for, where its format does not say; default: the one that draws
 * @throws ConfigError, SafetensorsError, TorchFileError; the system's error when a file cannot be read
 */
export async function readAdapter(
  path: string,
  models?: Parts<LayerShapes>,
  part = drawingPart(models),
): Promise<StoredAdapter> {
  const layers = models?.[part];
  const known = layers ? { layers } : {};
  if (!statSync(path).isDirectory()) return readFileAdapter(path, part, models);
  if (existsSync(join(path, 'adapter_config.json'))) {
    const [weights, config] = await Promise.all([
      readFile(join(path, 'adapter_model.safetensors')),
      readFile(join(path, 'adapter_config.json'), 'utf8'),
    ]);
    return readPeft({ weights, config }, { name: path, part, ...known });
  }
  for (const [kind, beginning] of Object.entries(officialFiles)) {
    const state = join(path, `${beginning}_state.bin`);
    if (!existsSync(state)) continue;
    const files = { kind: kind as keyof typeof officialFiles, state: torchTensors(await openTorch(state)) };
    return readOfficial(
      { ...files, config: await officialConfig(join(path, `${beginning}_config`)) },
      { part, ...known },
    );
  }
  const named = namedFiles.find((name) => existsSync(join(path, name)));
  if (named !== undefined) return readFileAdapter(join(path, named), part, models);
  throw new SafetensorsError(
    path,
    'no adapter is here; expected adapter_config.json, a LoRA file or a checkpoint of DEFT',
  );
}

const openTorch = async (path: string) => openTorchFile(memorySource(path, await readFile(path)));

/** The readable twin where there is one: the other may name classes of the authors' code, which are refused. */
async function officialConfig(beginning: string): Promise<JsonConfig | TorchValue> {
  const json = `${beginning}.json`;
  if (existsSync(json)) return parseConfig(json, await readFile(json, 'utf8'));
  return (await openTorch(`${beginning}.bin`)).root;
}

async function readFileAdapter(
  path: string,
  part: string,
  models: Parts<LayerShapes> | undefined,
): Promise<StoredAdapter> {
  const { file, metadata } = await openFile(path);
  const whole = file.names.some(isShiftKey)
    ? readStoredShifts
    : file.names.some(isCustomDiffusionKey)
      ? readStoredWeights
      : null;
  if (whole === null) return readLora(file, { ...(models ? { models } : {}), defaultPart: part, metadata });
  const layers = models?.[part];
  if (!layers)
    throw new SafetensorsError(path, 'this kind of adapter can be read only with the base model at hand');
  return whole(file, { part, layers });
}

async function openFile(
  path: string,
): Promise<{ readonly file: TensorSource; readonly metadata: ReadonlyMap<string, string> }> {
  if (/\.(bin|pt|pth)$/.test(path)) return { file: torchTensors(await openTorch(path)), metadata: new Map() };
  const file = await openSafetensors(memorySource(path, await readFile(path)));
  return { file, metadata: file.header.metadata };
}
