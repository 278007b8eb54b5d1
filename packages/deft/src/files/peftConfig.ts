/**
 * adapter_config.json as PEFT 0.21 writes it for DEFT (and PaRa, which is DEFT with "para": true) and LoRA.
 *
 * A field that would change what the adapter computes and is not supported is refused by name. Unknown fields are
 * ignored, as PEFT asks of its readers: newer versions add fields whose defaults change nothing.
 */
import {
  type ConfigReader,
  configReader,
  type JsonConfig,
  type JsonValue,
  parseConfig,
  type Shape,
} from '@deftjs/tensor';
import type { AdapterRequest, BlockChoice } from '../adapter.ts';
import { deft } from '../parametrizations/deft.ts';
import type { Method } from '../parametrizations/index.ts';
import { lora } from '../parametrizations/lora.ts';
import { type ProjectorName, projectorOf, projectors } from '../parametrizations/projectors.ts';
import { pathPattern } from '../pathPattern.ts';
import { type Targets, targetTest } from '../targets.ts';

/** The version of the format written here. */
const peftVersion = '0.21.0';

/** Where the base model comes from, for PEFT to find it again. */
export interface BaseModel {
  /** A hub name or a path; null where there is none. */
  readonly nameOrPath: string | null;
  /** The Python class and the module that defines it. */
  readonly autoMapping: { readonly baseModelClass: string; readonly parentLibrary: string } | null;
}

/** Projectors that a config can name: PEFT knows relu and qr, and refuses a file of any other. */
const storedProjectors = Object.keys(projectors) as [ProjectorName];

/** What a config says. */
export interface PeftConfig extends AdapterRequest {
  /** Whether the layer at the path, with a weight of the shape, is to have the adapter; null: the config leaves it open. */
  readonly isTarget: ((path: string, weight: Shape) => boolean) | null;
  /** The method for a layer: a pattern may give it a rank and alpha, and PEFT lowers DEFT's rank to its outputs. */
  methodFor(path: string, weight: Shape): Method;
}

const fieldsWithoutMeaning = {
  modules_to_save: null,
  bias: 'none',
  fan_in_fan_out: false,
} as const;

/**
 * The config that the text holds.
 * @param name what messages call the file
 * @throws ConfigError naming the field that is malformed or asks for something unsupported
 */
export function readPeftConfig(name: string, text: string): PeftConfig {
  const json = parseConfig(name, text);
  const config = configReader(name, json);
  config.only(fieldsWithoutMeaning);
  const type = config.choice('peft_type', ['DEFT', 'LORA']);
  const requested = {
    targetModules: readTargets(config, json, 'target_modules'),
    excludeModules: readTargets(config, json, 'exclude_modules'),
    ...readBlocks(config, json),
  };
  const read = type === 'DEFT' ? readDeft(config) : readLora(config, json);
  return { ...requested, ...read, isTarget: targetsOf(requested) };
}

type Read = Pick<PeftConfig, 'method' | 'methodFor'>;

function readDeft(config: ConfigReader): Read {
  const rank = readRank(config);
  const alpha = config.number('alpha', 0);
  const initialised = config.boolean('init_weights', true);
  const projector = config.choice('decomposition_method', storedProjectors, 'relu');
  const para = config.boolean('para', false);
  const scaling = config.choice('scaling', ['faithful', 'projector'], 'faithful');
  if (alpha < 0) config.refuse('alpha', 'expected null or a number >= 0');
  if (!Object.hasOwn(projectors[projector], scaling)) {
    config.refuse('scaling', `decomposition_method "${projector}" has no such scaling`);
  }
  if (!projectorOf(projector, scaling).restorable && initialised && !para) {
    config.refuse('init_weights', `expected false with decomposition_method "${projector}"`);
  }
  const method = deft({
    rank,
    projector,
    scaling,
    para,
    alpha: alpha === 0 ? null : alpha, // PEFT takes 0 for null
    start: initialised ? 'identity' : 'random',
    initScale: config.number('init_scale', 1),
    dropout: readDropout(config, 'deft_dropout'),
  });
  const variants = new Map<number, Method>([[rank, method]]);
  return {
    method,
    methodFor(_path, [outputs]) {
      const own = Math.min(rank, outputs!);
      const found = variants.get(own) ?? deft({ ...method.options, rank: own });
      variants.set(own, found);
      return found;
    },
  };
}

function readLora(config: ConfigReader, json: JsonConfig): Read {
  config.only({
    alora_invocation_tokens: null,
    arrow_config: null,
    corda_config: null,
    ensure_weight_tying: false,
    eva_config: null,
    kasa_config: null,
    layer_replication: null,
    lora_bias: false,
    lora_ga_config: null,
    megatron_config: null,
    monteclora_config: null,
    target_parameters: null,
    trainable_token_indices: null,
    use_bdlora: null,
    use_dora: false,
    use_qalora: false,
    velora_config: null,
  });
  const quantised = json.loftq_config ?? {};
  if (typeof quantised !== 'object' || Object.keys(quantised).length > 0) {
    config.refuse('loftq_config', 'not supported; expected nothing in it');
  }
  // false starts from random A and B, which a trained file overwrites; other words change the base weights too.
  const start = json.init_lora_weights ?? true;
  if (typeof start !== 'boolean' && start !== 'gaussian') {
    config.refuse('init_lora_weights', 'not supported; expected true, false or "gaussian"');
  }
  const alpha = config.number('lora_alpha', 8);
  if (alpha <= 0) config.refuse('lora_alpha', 'expected a number > 0');
  const method = lora({
    rank: readRank(config),
    alpha,
    start: start === 'gaussian' ? 'gaussian' : 'kaiming',
    rsLora: config.boolean('use_rslora', false),
    dropout: readDropout(config, 'lora_dropout'),
  });
  const isRank = (value: JsonValue) => Number.isSafeInteger(value) && (value as number) >= 1;
  const isAlpha = (value: JsonValue) => Number.isFinite(value) && (value as number) > 0;
  const rankOf = readPattern(config, json, 'rank_pattern', 'whole numbers >= 1', isRank);
  const alphaOf = readPattern(config, json, 'alpha_pattern', 'numbers > 0', isAlpha);
  const variants = new Map<string, Method>();
  return {
    method,
    methodFor(path) {
      const own = { rank: rankOf(path) ?? method.rank!, alpha: alphaOf(path) ?? alpha };
      if (own.rank === method.rank && own.alpha === alpha) return method;
      const key = JSON.stringify(own);
      const found = variants.get(key) ?? lora({ ...method.options, ...own });
      variants.set(key, found);
      return found;
    },
  };
}

/**
 * The number that the first matching name gives a path: PEFT's rank_pattern and alpha_pattern, whose names are regular
 * expressions of a path or of its end.
 */
function readPattern(
  config: ConfigReader,
  json: JsonConfig,
  key: string,
  expected: string,
  accepts: (value: JsonValue) => boolean,
): (path: string) => number | undefined {
  const given = json[key] ?? {};
  if (
    typeof given !== 'object' ||
    Array.isArray(given) ||
    !Object.values(given as JsonConfig).every(accepts)
  ) {
    config.refuse(key, `expected names with ${expected}`);
  }
  const tests = Object.entries(given as JsonConfig).map(([name, value]) => {
    const whole = name.startsWith('^') ? name.slice(1) : String.raw`(.*\.)?(${name})`;
    return [checkedPattern(config, key, whole), value as number] as const;
  });
  return (path) => tests.find(([matches]) => matches(path))?.[1];
}

function checkedPattern(config: ConfigReader, key: string, pattern: string): (path: string) => boolean {
  try {
    return pathPattern(pattern);
  } catch (error) {
    return config.refuse(key, (error as Error).message);
  }
}

function readBlocks(config: ConfigReader, json: JsonConfig): Pick<AdapterRequest, 'blocks'> {
  const [numbers, lists] = [json.layers_to_transform ?? null, json.layers_pattern ?? null];
  const isNumber = (value: JsonValue) => Number.isSafeInteger(value) && (value as number) >= 0;
  const isName = (value: JsonValue) => typeof value === 'string' && /^\w+$/.test(value);
  if (numbers !== null && !isNumber(numbers) && !(Array.isArray(numbers) && numbers.every(isNumber))) {
    config.refuse('layers_to_transform', 'expected a number of a block or a list of them');
  }
  if (lists !== null && !isName(lists) && !(Array.isArray(lists) && lists.every(isName))) {
    config.refuse('layers_pattern', 'expected a name of a list of blocks or a list of names');
  }
  if (numbers === null && lists !== null) {
    config.refuse('layers_pattern', 'expected layers_to_transform beside it');
  }
  if (numbers !== null && !Array.isArray(json.target_modules)) {
    config.refuse('layers_to_transform', 'expected a list of target_modules beside it');
  }
  return numbers === null ? {} : { blocks: { numbers, lists } as BlockChoice };
}

/** Which layers a config means, as PEFT decides it: a name that is a whole path is meant in any block. */
function targetsOf({
  targetModules,
  excludeModules,
  blocks,
}: Omit<AdapterRequest, 'method'>): PeftConfig['isTarget'] {
  if (targetModules === null) return null;
  const [meant, spared] = [targetTest(targetModules), targetTest(excludeModules ?? [])];
  if (!blocks) return (path, weight) => meant(path, weight) && !spared(path, weight);
  const numbers = [blocks.numbers].flat();
  const lists = [blocks.lists ?? []].flat();
  const names = lists.length === 0 ? ['[^.]*'] : lists;
  const places = names.map((name) => new RegExp(String.raw`^.*\.${name}\.(\d+)\.`));
  return (path, weight) => {
    if (!meant(path, weight) || spared(path, weight)) return false;
    if (targetModules.includes(path) || numbers.length === 0) return true;
    const place = places.map((pattern) => pattern.exec(path)).find((found) => found !== null);
    return place !== undefined && numbers.includes(Number(place[1]));
  };
}

function readDropout(config: ConfigReader, key: string): number {
  const dropout = config.number(key, 0);
  if (!(dropout >= 0 && dropout < 1)) config.refuse(key, 'expected a number in [0, 1)');
  return dropout;
}

function readRank(config: ConfigReader): number {
  const rank = config.count('r', 8);
  if (rank < 1) config.refuse('r', 'expected a whole number >= 1');
  return rank;
}

function readTargets(config: ConfigReader, json: JsonConfig, key: string): Targets | null {
  const value = json[key] ?? null;
  if (typeof value === 'string' && value !== 'all-linear') checkedPattern(config, key, value);
  if (value === null || typeof value === 'string') return value;
  if (Array.isArray(value) && value.every((name) => typeof name === 'string')) return value as string[];
  return config.refuse(key, 'expected a list of names, a regular expression or null');
}

/** A layer with the method that its adapter has. */
export interface ConfiguredLayer {
  readonly path: string;
  /** Of its weight. */
  readonly shape: Shape;
  readonly method: Method;
}

/**
 * The text of the config of an adapter on these layers: every field of PEFT's own, keys sorted. A projector that PEFT
 * does not know is written by its name here; PEFT refuses such a file.
 * @throws Error for a method, or ranks that differ by layer, that PEFT has no format for
 */
export function writePeftConfig(
  request: AdapterRequest,
  layers: readonly ConfiguredLayer[],
  base: BaseModel,
): string {
  const { method, targetModules, excludeModules, blocks } = request;
  const shared = {
    auto_mapping: base.autoMapping && {
      base_model_class: base.autoMapping.baseModelClass,
      parent_library: base.autoMapping.parentLibrary,
    },
    base_model_name_or_path: base.nameOrPath,
    ...fieldsWithoutMeaning,
    exclude_modules: excludeModules,
    inference_mode: true,
    layers_pattern: blocks?.lists ?? null,
    layers_to_transform: blocks?.numbers ?? null,
    peft_version: peftVersion,
    r: method.rank,
    revision: null,
    target_modules: targetModules,
    task_type: null,
  };
  const fields: Record<string, JsonValue> = {
    ...shared,
    ...ownFields(method),
    ...patternsOf(method, layers),
  };
  const sorted = Object.fromEntries(
    Object.keys(fields)
      .sort()
      .map((key) => [key, fields[key]]),
  );
  return `${JSON.stringify(sorted, null, 2)}\n`;
}

/** What of single layers differs from the whole: LoRA's rank and alpha may, DEFT's rank only by the layer's outputs. */
function patternsOf(method: Method, layers: readonly ConfiguredLayer[]): Record<string, JsonValue> {
  if (method.name === 'deft') {
    for (const { path, shape, method: own } of layers) {
      const rank = Math.min(method.rank!, shape[0]!);
      if (own.rank === rank && own.name === 'deft' && own.options.alpha === method.options.alpha) continue;
      throw new Error(
        `writePeft: PEFT has one rank and alpha for all layers of DEFT, here ${rank} and ${method.options.alpha}; ${path} has others`,
      );
    }
    return {};
  }
  const [ranks, alphas]: Record<string, number>[] = [{}, {}];
  for (const { path, method: own } of layers) {
    if (method.name !== 'lora' || own.name !== 'lora') continue;
    // A name means every path that ends with it, so one that other paths end with says that it is whole.
    const name = layers.some((other) => other.path.endsWith(`.${path}`)) ? `^${path}` : path;
    if (own.rank !== method.rank) ranks![name] = own.rank!;
    if (own.options.alpha !== method.options.alpha) alphas![name] = own.options.alpha;
  }
  return { rank_pattern: ranks!, alpha_pattern: alphas! };
}

function ownFields(method: Method): Record<string, JsonValue> {
  if (method.name === 'deft') {
    const { alpha, projector, scaling, initScale, start, para, dropout } = method.options;
    return {
      ...(scaling === 'faithful' ? {} : { scaling }),
      peft_type: 'DEFT',
      alpha,
      decomposition_method: projector,
      deft_dropout: dropout,
      init_scale: initScale,
      init_weights: start === 'identity',
      para,
    };
  }
  if (method.name !== 'lora') throw new Error(`writePeft: PEFT has no format for the method ${method.name}`);
  const { alpha, start, rsLora, dropout } = method.options;
  return {
    peft_type: 'LORA',
    alora_invocation_tokens: null,
    arrow_config: null,
    corda_config: null,
    ensure_weight_tying: false,
    eva_config: null,
    init_lora_weights: start === 'gaussian' ? 'gaussian' : true,
    kasa_config: null,
    layer_replication: null,
    loftq_config: {},
    lora_alpha: alpha,
    lora_bias: false,
    lora_dropout: dropout,
    lora_ga_config: null,
    megatron_config: null,
    megatron_core: 'megatron.core',
    monteclora_config: null,
    qalora_group_size: 16,
    target_parameters: null,
    trainable_token_indices: null,
    use_bdlora: null,
    use_dora: false,
    use_qalora: false,
    use_rslora: rsLora,
    velora_config: null,
  };
}
