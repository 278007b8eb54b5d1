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
} from '@deftjs/tensor';
import type { AdapterRequest } from '../adapter.ts';
import { deft } from '../parametrizations/deft.ts';
import type { Method } from '../parametrizations/index.ts';
import { lora } from '../parametrizations/lora.ts';
import { type ProjectorName, projectorOf, projectors } from '../parametrizations/projectors.ts';
import { pathPattern } from '../pathPattern.ts';
import type { Targets } from '../targets.ts';

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

/** What a config says: the adapter, and dropout on the injection path, which matters to training alone. */
export interface PeftConfig extends AdapterRequest {
  readonly dropout: number;
  /** The method for a layer of `outputs` outputs: PEFT lowers a rank above them to their number. */
  methodFor(outputs: number): Method;
}

const fieldsWithoutMeaning = {
  layers_pattern: null,
  layers_to_transform: null,
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
  };
  const read = type === 'DEFT' ? readDeft(config) : readLora(config, json);
  return { ...requested, ...read };
}

type Read = Pick<PeftConfig, 'method' | 'dropout' | 'methodFor'>;

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
  });
  return {
    method,
    methodFor: (outputs) => (outputs < rank ? deft({ ...method.options, rank: outputs }) : method),
    dropout: config.number('deft_dropout', 0),
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
  for (const key of ['rank_pattern', 'alpha_pattern', 'loftq_config']) {
    const value = json[key] ?? {};
    if (typeof value !== 'object' || Object.keys(value).length > 0) {
      config.refuse(key, 'not supported; expected nothing in it');
    }
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
  });
  return { method, methodFor: () => method, dropout: config.number('lora_dropout', 0) };
}

function readRank(config: ConfigReader): number {
  const rank = config.count('r', 8);
  if (rank < 1) config.refuse('r', 'expected a whole number >= 1');
  return rank;
}

function readTargets(config: ConfigReader, json: JsonConfig, key: string): Targets | null {
  const value = json[key] ?? null;
  if (typeof value === 'string' && value !== 'all-linear') {
    try {
      pathPattern(value);
    } catch (error) {
      return config.refuse(key, (error as Error).message);
    }
  }
  if (value === null || typeof value === 'string') return value;
  if (Array.isArray(value) && value.every((name) => typeof name === 'string')) return value as string[];
  return config.refuse(key, 'expected a list of names, a regular expression or null');
}

/**
 * The text of the config: every field of PEFT's own, keys sorted. A projector that PEFT does not know is written by
 * its name here; PEFT refuses such a file.
 */
export function writePeftConfig(
  { method, targetModules, excludeModules }: AdapterRequest,
  base: BaseModel,
): string {
  const shared = {
    auto_mapping: base.autoMapping && {
      base_model_class: base.autoMapping.baseModelClass,
      parent_library: base.autoMapping.parentLibrary,
    },
    base_model_name_or_path: base.nameOrPath,
    ...fieldsWithoutMeaning,
    exclude_modules: excludeModules,
    inference_mode: true,
    peft_version: peftVersion,
    r: method.rank,
    revision: null,
    target_modules: targetModules,
    task_type: null,
  };
  const fields: Record<string, JsonValue> = { ...shared, ...ownFields(method) };
  const sorted = Object.fromEntries(
    Object.keys(fields)
      .sort()
      .map((key) => [key, fields[key]]),
  );
  return `${JSON.stringify(sorted, null, 2)}\n`;
}

function ownFields(method: Method): Record<string, JsonValue> {
  if (method.name === 'deft') {
    const { alpha, projector, scaling, initScale, start, para } = method.options;
    return {
      ...(scaling === 'faithful' ? {} : { scaling }),
      peft_type: 'DEFT',
      alpha,
      decomposition_method: projector,
      deft_dropout: 0,
      init_scale: initScale,
      init_weights: start === 'identity',
      para,
    };
  }
  if (method.name !== 'lora') throw new Error(`writePeft: PEFT has no format for the method ${method.name}`);
  const { alpha, start, rsLora } = method.options;
  return {
    peft_type: 'LORA',
    alora_invocation_tokens: null,
    alpha_pattern: {},
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
    lora_dropout: 0,
    lora_ga_config: null,
    megatron_config: null,
    megatron_core: 'megatron.core',
    monteclora_config: null,
    qalora_group_size: 16,
    rank_pattern: {},
    target_parameters: null,
    trainable_token_indices: null,
    use_bdlora: null,
    use_dora: false,
    use_qalora: false,
    use_rslora: rsLora,
    velora_config: null,
  };
}
