/** What `deft inspect` does: tables of tensors, with what the configs beside them say. */
import fs from 'node:fs';
import { basename, join } from 'node:path';
import { type JsonConfig, layouts, type TensorSource } from '@deftjs/models';
import { openSafetensorsFile, openWeights, readConfigFile, writeRandomModel } from '@deftjs/models/node';
import { numel } from '@deftjs/tensor';
import { writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { summarize, type TensorSummary } from './summary.ts';

export interface InspectRequest {
  readonly json?: string;
}

/** A set of tensors and what it is: a file, a part of a pipeline, an adapter. */
interface Inspected {
  readonly name: string;
  /** The class of a model, the method of an adapter; null for a bare file. */
  readonly kind: string | null;
  readonly parameters: number;
  readonly bytes: number;
  readonly warnings: readonly string[];
  readonly tensors: readonly TensorSummary[];
}

/** Prints the tensors at the path; of a pipeline, each part in one line. @throws {UserError} when it holds none */
export async function inspect(path: string, { json }: InspectRequest): Promise<void> {
  const places = placesAt(path);
  const results: Inspected[] = [];
  for (const place of places) {
    const result = await inspectPlace(place);
    results.push(result);
    if (places.length === 1) for (const tensor of result.tensors) console.log(tensorLine(tensor));
    console.log(summaryLine(result));
    for (const warning of result.warnings) console.log(`warning: ${warning}`);
  }
  if (json !== undefined) {
    writeFileAtomically(json, `${JSON.stringify({ format: 1, path, contents: results }, null, 2)}\n`);
  }
}

const adapterFile = 'adapter_model.safetensors';

/** Somewhere tensors are, and the config that says what they are. */
interface Place {
  readonly name: string;
  readonly open: () => Promise<TensorSource & AsyncDisposable>;
  readonly config: string | null;
}

function placesAt(path: string): Place[] {
  if (!fs.existsSync(path)) throw new UserError(`${path}: no such file or folder`, 2);
  if (fs.statSync(path).isFile()) {
    return [{ name: basename(path), open: () => openSafetensorsFile(path), config: null }];
  }
  if (fs.existsSync(join(path, adapterFile))) {
    const config = join(path, 'adapter_config.json');
    return [{ name: basename(path), open: () => openSafetensorsFile(join(path, adapterFile)), config }];
  }
  if (fs.existsSync(join(path, 'adapter'))) return placesAt(join(path, 'adapter')); // a run
  if (fs.existsSync(join(path, 'model_index.json'))) {
    return fs
      .readdirSync(path)
      .sort()
      .map((part) => join(path, part))
      .filter((part) => fs.existsSync(join(part, 'config.json')))
      .map(modelFolder);
  }
  if (fs.existsSync(join(path, 'config.json'))) return [modelFolder(path)];
  throw new UserError(`${path}: neither a model nor an adapter; expected config.json or ${adapterFile}`, 2);
}

function modelFolder(path: string): Place {
  return { name: basename(path), open: () => openWeights(path), config: join(path, 'config.json') };
}

async function inspectPlace({ name, open, config }: Place): Promise<Inspected> {
  await using source = await open();
  const tensors: TensorSummary[] = [];
  for (const tensor of source.names) tensors.push(await summarize(source, tensor));
  return {
    name,
    kind: config === null ? null : kindOf(await readConfigFile(config)),
    parameters: tensors.reduce((sum, { shape }) => sum + numel(shape), 0),
    bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
    warnings: [...((source as { header?: { warnings: readonly string[] } }).header?.warnings ?? [])],
    tensors,
  };
}

/** What a config says its weights are: `UNet2DConditionModel`, `DEFT r 4 alpha 4 on to_k, to_q`. */
function kindOf(config: JsonConfig): string {
  const { _class_name: diffusers, architectures, peft_type: method, target_modules: targets } = config;
  if (method !== undefined) {
    const alpha = config.lora_alpha ?? config.alpha ?? null;
    const on = Array.isArray(targets) ? targets.join(', ') : String(targets);
    return `${method} r ${config.r}${alpha === null ? '' : ` alpha ${alpha}`} on ${on}`;
  }
  return String(diffusers ?? (Array.isArray(architectures) ? architectures[0] : 'a model of no named class'));
}

function tensorLine({ name, dtype, shape, norm, notFinite }: TensorSummary): string {
  const size = norm === null ? '' : `norm ${norm.toPrecision(6)}`;
  const plain = /^[\w./-]+$/.test(name) ? name : JSON.stringify(name);
  const strange = notFinite > 0 ? `  ${notFinite} not finite` : '';
  return `${dtype.padEnd(5)} ${`[${shape.join(', ')}]`.padEnd(22)} ${size.padEnd(17)} ${plain}${strange}`;
}

function summaryLine({ name, kind, parameters, bytes, tensors }: Inspected): string {
  const dtypes = [...new Set(tensors.map(({ dtype }) => dtype))].sort().join(', ');
  const what = kind === null ? '' : `${kind}, `;
  const count = parameters.toLocaleString('en-US');
  return `${name}: ${what}${tensors.length} tensors, ${count} parameters, ${dtypes || 'no data'}, ${formatBytes(bytes)}`;
}

function formatBytes(bytes: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)));
  return `${power === 0 ? bytes : (bytes / 1000 ** power).toPrecision(4)} ${units[power]}`;
}

export interface RandomModelRequest {
  readonly makeRandom: string;
  readonly dtype: string;
}

/** Writes a random model into a new folder. @throws {UserError} for unknown names, or a folder that holds something */
export async function makeRandom(
  path: string,
  { makeRandom: name, dtype }: RandomModelRequest,
): Promise<void> {
  const layout = layouts.get(name);
  if (layout === undefined) {
    throw new UserError(`--make-random: expected ${[...layouts.keys()].join(', ')}; got "${name}"`, 2);
  }
  if (dtype !== 'f16' && dtype !== 'f32') {
    throw new UserError(`--dtype: expected f16 or f32; got "${dtype}"`, 2);
  }
  if (fs.existsSync(path) && (!fs.statSync(path).isDirectory() || fs.readdirSync(path).length > 0)) {
    throw new UserError(`${path}: is there already; give a new folder`, 2);
  }
  await writeRandomModel(path, layout, { dtype });
  console.log(`${path}: random weights in the layout of ${name}, ${dtype}`);
}
