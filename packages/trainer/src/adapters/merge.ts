/**
 * What `deft merge` does: a base with an adapter folded into its weights, as a folder like the base's.
 *
 * W = W0 + delta(W0) in float32, stored in the weight's own type (bfloat16 as float32, which loses nothing). One weight is
 * in memory at a time. The folder appears when everything in it is written and checked.
 */
import fs from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { Linear } from '@deftjs/autograd/nn';
import { changeOf, linearMapOf, matrixShape, type StoredAdapter, type StoredLayer } from '@deftjs/deft';
import { type WeightToWrite, writeWeights } from '@deftjs/models/node';
import {
  add,
  type Device,
  type DType,
  type HostArray,
  matmul,
  randomNormal,
  read,
  reshape,
  type Tensor,
  toHalfBits,
  transpose,
} from '@deftjs/tensor';
import { openNamedDevice } from '../base/open.ts';
import { writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { type BaseFolder, type BasePart, openBase, readWeight, shapesOf } from './baseFolder.ts';
import { changeLine, changeOfLayer, changeWarnings, type LayerChange } from './changes.ts';
import { checkedBaseHash, readNamedAdapter } from './read.ts';

export interface MergeRequest {
  readonly base: string;
  readonly out: string;
  readonly verify: boolean;
  readonly device: string;
}

const reportFile = 'merge_report.json';

/** Largest difference of outputs, relative to the largest output, that storing the weight in the type explains. */
const outputBound: Readonly<Partial<Record<DType, number>>> = { f32: 1e-4, f16: 1e-2 };

/** Merges and checks. @throws {UserError}, or the error of a file that is no adapter; nothing is left then */
export async function mergeAdapter(input: string, request: MergeRequest): Promise<void> {
  const { out, verify } = request;
  if (fs.existsSync(out)) throw new UserError(`${out}: is there already; give another name`, 2);
  await using base = await openBase(request.base);
  const adapter = await readNamedAdapter(input, shapesOf(base));
  const device = await openNamedDevice(request.device);
  await checkedBaseHash(adapter, base, device);
  const draft = join(dirname(out), `.${basename(out)}.${process.pid}.tmp`);
  try {
    const layers = await writeMerged(draft, adapter, base, device);
    const difference = verify ? await largestDifference(draft, adapter, base, device) : null;
    const report = {
      format: 1,
      adapter: input,
      base: request.base,
      kind: adapter.format,
      difference,
      layers,
    };
    writeFileAtomically(join(draft, reportFile), `${JSON.stringify(report, null, 2)}\n`);
    fs.renameSync(draft, out);
    print(out, layers, difference);
  } catch (error) {
    fs.rmSync(draft, { recursive: true, force: true });
    throw error;
  }
}

function print(out: string, layers: readonly LayerChange[], difference: number | null): void {
  for (const layer of layers) console.log(changeLine(layer));
  const checked =
    difference === null
      ? 'not verified'
      : `outputs of every layer within ${difference.toExponential(1)} of the adapter's`;
  console.log(`${out}: ${layers.length} layers merged, ${checked}`);
  for (const warning of changeWarnings(layers)) console.log(`warning: ${warning}`);
}

/** Writes the whole folder; parts without the adapter are copied. */
async function writeMerged(
  out: string,
  { layers }: StoredAdapter,
  base: BaseFolder,
  device: Device,
): Promise<LayerChange[]> {
  const merged: LayerChange[] = [];
  const changed = Object.entries(base.parts).filter(([part]) => layers.some((layer) => layer.part === part));
  const rewritten = new Set(changed.map(([, { folder }]) => folder));
  fs.cpSync(base.folder, out, {
    recursive: true,
    filter: (path) => !(rewritten.has(dirname(path)) && isWeightFile(basename(path))),
  });
  for (const [part, own] of changed) {
    const byName = new Map(
      layers.filter((layer) => layer.part === part).map((layer) => [`${layer.path}.weight`, layer]),
    );
    const weights = own.weights.names.map((name): WeightToWrite => {
      const { shape } = own.weights.info(name);
      const layer = byName.get(name);
      const dtype = writtenType(own.weights.info(name).dtype);
      const values = async (): Promise<HostArray> => {
        if (!layer) return (await own.weights.read(name)).data;
        const { W, norms } = await mergedWeight(layer, own, device);
        merged.push(norms);
        return dtype === 'f16' ? Uint16Array.from(W, toHalfBits) : dtype === 'f64' ? Float64Array.from(W) : W;
      };
      return { name, dtype, shape, values };
    });
    const file = fs.readdirSync(own.folder).find(isWeightFile)!;
    const name = file.startsWith('diffusion') ? 'diffusion_pytorch_model.safetensors' : 'model.safetensors';
    await writeWeights(join(out, relative(base.folder, own.folder)), name, weights);
  }
  return merged;
}

const isWeightFile = (name: string): boolean =>
  /^(diffusion_pytorch_)?model.*\.safetensors(\.index\.json)?$/.test(name);

/** The type that values of the file's dtype are read as. */
function writtenType(stored: string): DType {
  const types: Readonly<Record<string, DType>> = {
    F16: 'f16',
    F64: 'f64',
    BOOL: 'bool',
    U8: 'u32',
    U16: 'u32',
    U32: 'u32',
    U64: 'u32',
  };
  return types[stored] ?? (/^I\d/.test(stored) ? 'i32' : 'f32');
}

async function mergedWeight(
  layer: StoredLayer,
  part: BasePart,
  device: Device,
): Promise<{ W: Float32Array; norms: LayerChange }> {
  const { W0, delta, norms } = await changeOfLayer(layer, part, device);
  const W = Float32Array.from(W0, (value, i) => value + delta[i]!);
  if (!W.every(Number.isFinite)) {
    throw new UserError(
      `${layer.part}.${layer.path}: the merged weight holds NaN or infinity; nothing was written`,
    );
  }
  return { W, norms };
}

/**
 * Reads the merged weights back and compares what every layer makes of random inputs with what the base's layer and the
 * adapter beside it make.
 * @throws {UserError} where they differ by more than the stored type explains
 */
async function largestDifference(
  out: string,
  { layers }: StoredAdapter,
  base: BaseFolder,
  device: Device,
): Promise<number> {
  await using again = await openBase(out);
  let largest = 0;
  for (const layer of layers) {
    const { part, path, shape } = layer;
    const own = base.parts[part]!;
    const [m, n] = matrixShape(shape);
    const W0 = await readWeight(own, path);
    const { change } = await changeOf(layer, W0, device);
    const x = randomNormal([part.length, path.length], [4, n]);
    const outputs = (weight: Tensor): Tensor => matmul(x, transpose(reshape(weight, [m, n])));
    const y0 = outputs(W0);
    const wanted = await read(add(y0, change.apply(x, y0, linearMapOf(new Linear(n, m), false))), device);
    const found = await read(outputs(await readWeight(again.parts[part]!, path)), device);
    const difference = relativeDifference(found, wanted);
    const bound = outputBound[writtenType(own.weights.info(`${path}.weight`).dtype)] ?? 1e-4;
    if (!(difference <= bound)) {
      throw new UserError(
        `${part}.${path}: the merged layer differs from the adapter by ${difference.toExponential(1)}, more than ${bound}; nothing was written`,
      );
    }
    largest = Math.max(largest, difference);
  }
  return largest;
}

/** max |a - b| / max |b| */
function relativeDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [difference, size] = [0, 0];
  for (let i = 0; i < b.length; i += 1) {
    difference = Math.max(difference, Math.abs(a[i]! - b[i]!));
    size = Math.max(size, Math.abs(b[i]!));
  }
  return size === 0 ? difference : difference / size;
}
