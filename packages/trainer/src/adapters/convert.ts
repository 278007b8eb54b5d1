/** What `deft convert` does: adapters from one format to another, layer by layer. */
import fs from 'node:fs';
import { join } from 'node:path';
import { orthonormalBasis } from '@deftjs/autograd/linalg';
import {
  changeOf,
  deft,
  factorsOf,
  type LayerShapes,
  lora,
  loraAsItIs,
  loraOfChange,
  type Method,
  matrixShape,
  type Parts,
  type StoredAdapter,
  type StoredLayer,
  type Theta,
  type WrittenLora,
  writeLoraLayers,
  writePeftLayers,
} from '@deftjs/deft';
import { add, type Device, evaluate, matmul, reshape, type Tensor, transpose } from '@deftjs/tensor';
import { openNamedDevice } from '../base/open.ts';
import { writeFileAtomically } from '../runs/index.ts';
import { UserError } from '../userError.ts';
import { type BaseFolder, openBase, readWeight, shapesOf } from './baseFolder.ts';
import { checkedBaseHash, readNamedAdapter } from './read.ts';

export const formats = ['peft', 'diffusers', 'kohya'] as const;

export interface ConvertRequest {
  readonly to: string;
  readonly base?: string;
  /** PEFT only: make it this method, with the same change of the weights. */
  readonly as?: string;
  readonly device: string;
}

/** Writes the adapter in another format. @throws {UserError}, or the error of a file that is no adapter */
export async function convert(input: string, output: string, request: ConvertRequest): Promise<void> {
  const to = formats.find((format) => format === request.to);
  if (!to) throw new UserError(`--to: expected ${formats.join(', ')}; got "${request.to}"`, 2);
  const { as } = request;
  if (as !== undefined && (to !== 'peft' || (as !== 'lora' && as !== 'deft'))) {
    throw new UserError(`--as: expected lora or deft, with --to peft; got "${as}"`, 2);
  }
  if (to !== 'peft' && !output.endsWith('.safetensors')) {
    throw new UserError(`${output}: expected a name that ends with .safetensors`, 2);
  }
  if (fs.existsSync(output)) throw new UserError(`${output}: is there already; give another name`, 2);
  await using base = request.base === undefined ? null : await openBase(request.base);
  const models = base ? shapesOf(base) : undefined;
  const adapter = await readNamedAdapter(input, models);
  const device = await openNamedDevice(request.device);
  const source: Source = { adapter, base, device };
  const hash = base ? await checkedBaseHash(adapter, base, device) : adapter.baseHash;
  if (to === 'peft') await writeFolder(output, source, as);
  else {
    const layers: WrittenLora[] = [];
    for (const layer of adapter.layers) layers.push(await asLora(layer, source));
    writeFileAtomically(output, writeLoraLayers(to, layers, models ?? ownShapes(adapter, to), hash));
  }
  console.log(`${output}: ${adapter.format} of ${adapter.layers.length} layers, for ${to}`);
}

interface Source {
  readonly adapter: StoredAdapter;
  readonly base: BaseFolder | null;
  readonly device: Device;
}

function ownShapes({ layers, name }: StoredAdapter, to: string): Parts<LayerShapes> {
  if (to === 'kohya')
    throw new UserError(`${name}: kohya's names of layers come from the whole model; give --base`, 2);
  const parts = [...new Set(layers.map(({ part }) => part))];
  return Object.fromEntries(
    parts.map((part) => {
      const own = layers.filter((layer) => layer.part === part);
      return [part, new Map(own.map(({ path, shape }) => [path, shape]))];
    }),
  );
}

/** The layer's weight. @throws {UserError} when there is no base */
async function weightOf({ part, path }: StoredLayer, { adapter, base }: Source): Promise<Tensor> {
  if (!base) {
    throw new UserError(`${adapter.name}: what it does depends on the base model's weights; give --base`, 2);
  }
  return readWeight(base.parts[part]!, path);
}

async function asLora(layer: StoredLayer, source: Source): Promise<WrittenLora> {
  const { device } = source;
  if (layer.method.name === 'lora') return loraAsItIs(layer, layer.method, layer.theta(null), device);
  const W0 = await weightOf(layer, source);
  const { change } = await changeOf(layer, W0, device);
  return loraOfChange(layer, change, W0, device);
}

async function writeFolder(output: string, source: Source, as: string | undefined): Promise<void> {
  const { layers, name } = source.adapter;
  const parts = [...new Set(layers.map(({ part }) => part))];
  if (parts.length !== 1) {
    throw new UserError(
      `${name}: a PEFT folder holds the adapter of one model; this one is for ${parts.join(', ')}`,
      2,
    );
  }
  const converted: { path: string; shape: readonly number[]; method: Method; theta: Theta }[] = [];
  for (const layer of layers) converted.push(await asMethod(layer, source, as));
  const { request } = layers[0]!;
  const own = as === undefined ? request : { ...request, method: converted[0]!.method };
  const { weights, config } = await writePeftLayers(own, converted);
  fs.mkdirSync(output, { recursive: true });
  writeFileAtomically(join(output, 'adapter_model.safetensors'), weights);
  writeFileAtomically(join(output, 'adapter_config.json'), config);
}

/** The layer as it is, or made LoRA or DEFT (projector qr) of the same change. */
async function asMethod(
  layer: StoredLayer,
  source: Source,
  as: string | undefined,
): Promise<{ path: string; shape: readonly number[]; method: Method; theta: Theta }> {
  const { path, shape, method } = layer;
  if (as === undefined || as === method.name) return { path, shape, method, theta: layer.theta(null) };
  const weight = await weightOf(layer, source);
  const { change } = await changeOf(layer, weight, source.device);
  const W0 = reshape(weight, matrixShape(shape));
  const { B, A } = factorsOf(change, W0);
  const rank = A.shape[0]!;
  if (as === 'lora') {
    const made = lora({ rank });
    const { lora_A, lora_B } = made.shapes(shape);
    return evaluated(
      { path, shape, method: made, theta: { lora_A: reshape(A, lora_A!), lora_B: reshape(B, lora_B!) } },
      source,
    );
  }
  // W0 + B A = W0 - Q Q^T W0 + Q R with Q = qr(B), R = Q^T (W0 + B A)
  const R = matmul(transpose(orthonormalBasis(B)), add(W0, matmul(B, A)));
  return evaluated(
    { path, shape, method: deft({ rank, projector: 'qr' }), theta: { deft_P: B, deft_R: R } },
    source,
  );
}

async function evaluated<L extends { readonly theta: Theta }>(layer: L, { device }: Source): Promise<L> {
  await evaluate(Object.values(layer.theta), device);
  return layer;
}
