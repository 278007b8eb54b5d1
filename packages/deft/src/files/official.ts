/**
 * Checkpoints of the DEFT authors' code: a dict of tensors by `<path of the layer>.<name>` and, for each layer, how it was
 * configured. What the code computes, row vectors x (its lora_A and lora_B are PEFT's B and A):
 *
 *     knowledge injection   W = W0 - K W0 + g Q R_new     Q = qr(P) or the U of its SVD, K = Q Q^T; for "None" Q = P and
 *                                                         K = P relu(P)^T; g = sigmoid(gate) or 1
 *     additive update       W = W0 + g (alpha / r) lora_A lora_B
 *     PaRa                  y = y0 - x W0^T K, that is W = W0 - K^T W0
 *
 * Where the file has Q_P_cached, that is the Q of training: P may have moved since it was computed, or never was used.
 */
import {
  ConfigError,
  configReader,
  formatShape,
  type JsonConfig,
  type JsonValue,
  mul,
  SafetensorsError,
  type Shape,
  sameShape,
  sigmoid,
  type Tensor,
  type TensorSource,
  type TorchValue,
  tensor,
  transpose,
} from '@deftjs/tensor';
import type { AdapterRequest } from '../adapter.ts';
import type { Theta } from '../parametrization.ts';
import { deft } from '../parametrizations/deft.ts';
import type { Method } from '../parametrizations/index.ts';
import { lora } from '../parametrizations/lora.ts';
import {
  type LayerShapes,
  nearest,
  readValues,
  type StoredAdapter,
  type StoredLayer,
} from './storedAdapter.ts';

/** A checkpoint: its tensors, and the config as JSON or in the form of torch.save. */
export interface OfficialFiles {
  readonly kind: 'injection' | 'para';
  readonly state: TensorSource;
  readonly config: JsonConfig | TorchValue;
}

export interface ReadOfficialOptions {
  /** The part of a pipeline that it is for. */
  readonly part: string;
  /** The layers of the model; absent: those that the file has. */
  readonly layers?: LayerShapes;
}

/** A layer's method and theta. */
type Imported = { readonly method: Method; readonly theta: Theta };

/** A tensor of the layer, of the shape where one is expected; null where the file has none and it need not. */
type Take = {
  (name: string, shape: Shape): Tensor;
  (name: string, shape: Shape, optional: true): Tensor | null;
};

/**
 * The adapter in the checkpoint.
 * @throws ConfigError, SafetensorsError naming the layer, field or tensor: unknown, missing, of another shape, not finite
 */
export async function readOfficial(
  files: OfficialFiles,
  { part, layers: known }: ReadOfficialOptions,
): Promise<StoredAdapter> {
  const { source } = files.state;
  const values = await readValues(files.state);
  const configs = asConfig(source, plainValue(source, files.config as TorchValue)).layer_configs ?? null;
  const layers: Omit<StoredLayer, 'request'>[] = [];
  for (const [written, json] of Object.entries(asConfig(`${source}: layer_configs`, configs))) {
    const config = asConfig(`${source}: ${written}`, json);
    const { path, shape } = place(source, written, config, known);
    const take = ((name: string, expected: Shape, optional?: true): Tensor | null => {
      const key = `${written}.${name}`;
      const found = values.get(key);
      values.delete(key);
      if (!found && optional) return null;
      if (!found) throw new SafetensorsError(source, 'it is missing', key);
      if (!sameShape(found.shape, expected)) {
        const shapes = `expected ${formatShape(expected)}; got ${formatShape(found.shape)}`;
        throw new SafetensorsError(source, `its shape does not fit the layer and config; ${shapes}`, key);
      }
      return tensor(found.data, expected);
    }) as Take;
    const read = files.kind === 'injection' ? readInjection : readPara;
    const { method, theta } = read(`${source}: ${written}`, config, shape, take);
    layers.push({ part, path, shape, method, theta: () => theta });
  }
  const [unused] = values.keys();
  if (unused !== undefined) throw new SafetensorsError(source, 'no layer of the config has it', unused);
  if (layers.length === 0) throw new SafetensorsError(source, 'its config has no layers');
  const request: AdapterRequest = {
    method: layers[0]!.method,
    targetModules: layers.map(({ path }) => path),
    excludeModules: null,
  };
  const format = files.kind === 'injection' ? "the authors' DEFT" : "the authors' PaRa";
  return { format, name: source, layers: layers.map((layer) => ({ ...layer, request })), baseHash: null };
}

function asConfig(name: string, value: JsonValue): JsonConfig {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new ConfigError(`${name}: expected an object with layer_configs`);
  }
  return value as JsonConfig;
}

/** A value of torch.save as JSON has it. */
function plainValue(source: string, value: TorchValue | JsonConfig): JsonValue {
  if (value instanceof Map) {
    const members = Array.from(value, ([key, member]) => [String(key), plainValue(source, member)] as const);
    if (members.some(([key]) => key === '__proto__')) {
      throw new ConfigError(`${source}: a key cannot be named __proto__`);
    }
    return Object.fromEntries(members);
  }
  if (Array.isArray(value)) return value.map((item: TorchValue) => plainValue(source, item));
  if (value !== null && typeof value === 'object' && Object.getPrototypeOf(value) !== Object.prototype) {
    throw new ConfigError(`${source}: a config holds no tensors and no bytes`);
  }
  return value as JsonValue;
}

/** Where the layer is in the model: the code calls OmniGen's transformer `llm`, which some models are themselves. */
function place(
  source: string,
  written: string,
  json: JsonConfig,
  known: LayerShapes | undefined,
): { path: string; shape: Shape } {
  const config = configReader(`${source}: ${written}`, json);
  const shape = [config.count('out_features'), config.count('in_features')];
  const path = known && !known.has(written) ? written.replace(/^llm\./, '') : written;
  if (!known) return { path, shape };
  const weight = known.get(path);
  if (!weight) {
    throw new ConfigError(
      `${source}: the model has no Linear or Conv2d layer ${JSON.stringify(written)}; ${nearest(written, known.keys())}`,
    );
  }
  if (sameShape(weight, shape)) return { path, shape };
  const shapes = `expected ${formatShape(weight)}; got ${formatShape(shape)}`;
  throw new ConfigError(
    `${source}: ${written}: out_features and in_features do not fit the layer; ${shapes}`,
  );
}

function readInjection(name: string, json: JsonConfig, [m, n]: Shape, take: Take): Imported {
  const config = configReader(name, json);
  const rank = config.count('r');
  const kind = config.choice('injection_method', [
    'project_replace',
    'residual_projection',
    'additive_update',
  ]);
  const P = take('P', [m!, rank]);
  const R = take('R_new', [rank, n!]);
  const cached = take('Q_P_cached', [m!, rank], true);
  const gate = config.boolean('use_gating', false) ? take('gate', [1]) : null;
  if (kind === 'additive_update') {
    const [left, right] = [take('lora_A', [m!, rank]), take('lora_B', [rank, n!])];
    const method = lora({ rank, alpha: config.number('lora_alpha', 8) });
    return { method, theta: { lora_A: gate ? mul(right, sigmoid(gate)) : right, lora_B: left } };
  }
  const decomposition = config.choice('decomposition_method', ['qr', 'svd', 'None']);
  if (decomposition === 'svd' && !cached) {
    config.refuse(
      'decomposition_method',
      'the file has no Q_P_cached, without which nobody knows the signs of the singular vectors',
    );
  }
  // A cached Q is taken as it is: K = Q Q^T and Q R are what the projector "none" makes of P = Q.
  const projector = decomposition === 'None' ? 'relu' : cached ? 'none' : 'qr';
  const method = deft({ rank, projector, start: 'random', gate: gate ? 0 : null });
  const basis = decomposition === 'None' ? P : (cached ?? P);
  return { method, theta: { deft_P: basis, deft_R: R, ...(gate ? { deft_gate: gate } : {}) } };
}

function readPara(name: string, json: JsonConfig, [m]: Shape, take: Take): Imported {
  const config = configReader(name, json);
  config.only({ adaptive_rank: false });
  const rank = config.count('r');
  const projector = config.choice('decomposition_method', ['qr', 'tsvd', 'lrmf', 'eigen', 'nmf'], 'qr');
  const method = deft({ rank, projector, para: true });
  const dense = take('B_dense', [m!, rank], true);
  const B = dense ? mul(dense, take('sparse_mask', [m!, rank])) : take('B', [m!, rank]);
  if (projector !== 'nmf') return { method, theta: { deft_P: B } };
  // K^T = relu(H)^T relu(W)^T; the other K are symmetric.
  const [W, H] = [take('W', [m!, rank]), take('H', [rank, m!])];
  return { method, theta: { deft_W: transpose(H), deft_H: transpose(W) } };
}
