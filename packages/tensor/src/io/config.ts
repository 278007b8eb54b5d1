/**
 * config.json files of diffusers and transformers, read by hand-checked readers.
 *
 * A config is a list of promises about the computation. A value that this implementation does not compute is refused
 * by name, never skipped: weights would load and the pictures would be subtly wrong.
 */
import { JsonError, parseJson, pythonNumbers } from './json.ts';

/** A config that is malformed, or asks for something that is not implemented. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** A parsed JSON value. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonConfig;

export type JsonConfig = { readonly [key: string]: JsonValue };

/**
 * The JSON object that the text holds; NaN, Infinity and -Infinity are read as Python writes them.
 * @param name what messages call the file
 * @throws ConfigError on malformed text, duplicate keys, a key named __proto__ or anything but an object
 */
export function parseConfig(name: string, text: string): JsonConfig {
  try {
    const root = parseJson(text, { maxDepth: 16, maxMembers: 1_000_000, ...pythonNumbers });
    if (root instanceof Map) return plain(name, root) as JsonConfig;
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    const before = text.slice(0, error.at).split('\n');
    throw new ConfigError(
      `${name}: ${error.message} (line ${before.length}, column ${before.at(-1)!.length + 1})`,
    );
  }
  throw new ConfigError(`${name}: expected a JSON object`);
}

function plain(name: string, value: unknown): JsonValue {
  if (Array.isArray(value)) return value.map((item) => plain(name, item));
  if (!(value instanceof Map)) return value as JsonValue;
  if (value.has('__proto__')) throw new ConfigError(`${name}: a key cannot be named __proto__`);
  return Object.fromEntries(Array.from(value, ([key, member]) => [key, plain(name, member)]));
}

/** Reads the fields of one config. A missing field and, unless said otherwise, null take the default. */
export interface ConfigReader {
  /** A finite number. */
  number(key: string, byDefault?: number): number;
  /** A whole number >= 0. */
  count(key: string, byDefault?: number): number;
  boolean(key: string, byDefault: boolean): boolean;
  /** A list of that many finite numbers, or undefined where there is none. */
  numbers(key: string, length: number): readonly number[] | undefined;
  /** One of the words that are implemented. */
  choice<const Choice extends string>(key: string, choices: readonly Choice[], byDefault?: Choice): Choice;
  /** One number for each of `length` places: a list of that many, or one number for all. */
  counts(key: string, length: number, byDefault?: number): number[];
  /** A list of words that are implemented. */
  choices<const Choice extends string>(key: string, choices: readonly Choice[]): Choice[];
  /** The fields must be absent, null or the value given: everything else is not implemented. */
  only(fields: Readonly<Record<string, null | boolean | number | string>>): void;
  /** Whether the field is there and not null. */
  has(key: string): boolean;
  /**
   * Every field that is not null, was not read and is not named here is refused: its meaning is unknown.
   * Fields that begin with an underscore are the library's notes to itself.
   */
  nothingBut(ignored: readonly string[]): void;
  /** @throws ConfigError naming the field and its value */
  refuse(key: string, problem: string): never;
}

/**
 * A reader of the config's fields, each of which throws a ConfigError that names the field and the value.
 * @param name what messages call the config: "UNet2DConditionModel"
 */
export function configReader(name: string, config: JsonConfig): ConfigReader {
  function refuse(key: string, problem: string): never {
    throw new ConfigError(`${name}: ${key}: ${problem}; got ${JSON.stringify(config[key])}`);
  }
  const known = new Set<string>();
  function field<T>(
    key: string,
    byDefault: T | undefined,
    expected: string,
    accepts: (value: JsonValue) => unknown,
  ): T {
    known.add(key);
    const value = Object.hasOwn(config, key) ? config[key]! : null;
    if (value === null) {
      if (byDefault === undefined) throw new ConfigError(`${name}: ${key} is missing; expected ${expected}`);
      return byDefault;
    }
    if (!accepts(value)) refuse(key, `expected ${expected}`);
    return value as T;
  }
  function has(key: string): boolean {
    known.add(key);
    return Object.hasOwn(config, key) && config[key] !== null;
  }
  const isCount = (value: JsonValue) => Number.isSafeInteger(value) && (value as number) >= 0;
  return {
    number: (key, byDefault) => field(key, byDefault, 'a finite number', Number.isFinite),
    count: (key, byDefault) => field(key, byDefault, 'a whole number >= 0', isCount),
    numbers(key, length) {
      const accepts = (value: JsonValue) =>
        Array.isArray(value) && value.length === length && value.every(Number.isFinite);
      return has(key)
        ? field<readonly number[]>(key, undefined, `a list of ${length} numbers`, accepts)
        : undefined;
    },
    boolean: (key, byDefault) =>
      field(key, byDefault, 'true or false', (value) => typeof value === 'boolean'),
    choice: (key, choices, byDefault) =>
      field(key, byDefault, `one of ${choices.join(', ')}`, (value) =>
        (choices as readonly JsonValue[]).includes(value),
      ),
    counts(key, length, byDefault) {
      const expected = `a whole number >= 0, or a list of ${length} of them`;
      const value = field<number | readonly number[]>(key, byDefault, expected, (given) =>
        Array.isArray(given) ? given.length === length && given.every(isCount) : isCount(given),
      );
      return typeof value === 'number' ? new Array<number>(length).fill(value) : [...value];
    },
    choices(key, choices) {
      const words = field<readonly JsonValue[]>(
        key,
        undefined,
        `a list of ${choices.join(', ')}`,
        Array.isArray,
      );
      for (const word of words) {
        if (!(choices as readonly JsonValue[]).includes(word))
          refuse(key, `expected a list of ${choices.join(', ')}`);
      }
      return [...words] as (typeof choices)[number][];
    },
    only(fields) {
      for (const [key, value] of Object.entries(fields)) {
        if (has(key) && config[key] !== value)
          refuse(key, `not supported; expected ${JSON.stringify(value)}`);
      }
    },
    has,
    nothingBut(ignored) {
      for (const key of Object.keys(config)) {
        const harmless =
          key.startsWith('_') || known.has(key) || ignored.includes(key) || config[key] === null;
        if (!harmless) refuse(key, 'unknown field');
      }
    },
    refuse,
  };
}
