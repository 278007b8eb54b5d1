/** A configuration file, checked against a schema, with overrides from the command line laid over it. */
import fs from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse, stringify } from 'yaml';
import type { z } from 'zod';
import { UserError } from '../userError.ts';
import { type CompareConfig, compareSchema } from './compare.ts';
import { nearestName } from './nearest.ts';
import { type PretrainConfig, pretrainSchema } from './pretrain.ts';
import { shippedModel } from './shipped.ts';
import { misplacedKey, type TrainConfig, trainFolders, trainSchema } from './train.ts';
import { type Path, readYaml, type YamlSource } from './yaml.ts';

/** More problems than this are counted, not listed. */
const maxProblems = 10;

/**
 * The job that a `deft train` file describes, with defaults filled in and folders made absolute: those in the file
 * are relative to it, those in overrides to the working directory.
 *
 * @param overrides "rank=8", "sampling.steps=10": keys from the root, values as YAML
 * @throws {UserError} exit status 2, one line for each problem with the place in the file
 */
export function readTrainConfig(path: string, overrides: readonly string[] = []): TrainConfig {
  return readConfig(path, overrides, {
    schema: trainSchema,
    models: ['base'],
    folders: trainFolders,
    misplaced: misplacedKey,
  });
}

/**
 * The job that a `deft pretrain` file describes, with defaults filled in.
 *
 * @param overrides as for {@link readTrainConfig}
 * @throws {UserError} exit status 2, one line for each problem with the place in the file
 */
export function readPretrainConfig(path: string, overrides: readonly string[] = []): PretrainConfig {
  return readConfig(path, overrides, {
    schema: pretrainSchema,
    models: ['start'],
    folders: [],
    misplaced: () => null,
  });
}

/**
 * The table that a `deft compare` file describes. The keys of its rows are checked where they are used.
 * @throws {UserError} exit status 2, one line for each problem with the place in the file
 */
export function readCompareConfig(path: string): CompareConfig {
  return readConfig(path, [], {
    schema: () => compareSchema,
    models: [],
    folders: [],
    misplaced: () => null,
  });
}

/** The configuration as YAML that reads back as the same configuration. */
export function writeConfig(config: TrainConfig | PretrainConfig): string {
  return stringify(config, { lineWidth: 110, aliasDuplicateObjects: false });
}

/**
 * The keys, such as "sampling.steps", whose values differ between a configuration that {@link writeConfig} wrote and
 * another; sorted. A section that only one of them has counts as one key.
 */
export function configChanges(earlier: string, config: TrainConfig | PretrainConfig): string[] {
  const before = leaves(parse(earlier), '');
  const after = leaves(config, '');
  const keys = new Set([...before.keys(), ...after.keys()]);
  const changed = [...keys].filter((key) => before.get(key) !== after.get(key)).sort();
  return changed.filter((key) => !changed.some((section) => key.startsWith(`${section}.`)));
}

/** Each value that is not a mapping, as JSON, under its dotted key. */
function leaves(value: unknown, key: string): Map<string, string> {
  if (!isMapping(value)) return new Map([[key, JSON.stringify(value)]]);
  return new Map(
    Object.entries(value).flatMap(([name, inner]) => [
      ...leaves(inner, key === '' ? name : `${key}.${name}`),
    ]),
  );
}

/** A kind of configuration. */
interface Kind<C> {
  /** The schema for a file, which may depend on what is written there. */
  readonly schema: (written: Mapping) => z.ZodType<C>;
  /** Keys that name models: shipped ones by their names, others by their folders. */
  readonly models: readonly string[];
  /** Keys that name other folders. */
  readonly folders: readonly string[];
  /** What to say of a key that the file's schema does not know and another does; null for any other. */
  readonly misplaced: (key: string, written: Mapping) => string | null;
}

function readConfig<C>(path: string, overrides: readonly string[], kind: Kind<C>): C {
  const yaml = readYaml(readFile(path), path);
  if (!isMapping(yaml.value)) {
    throw new UserError(`${path}:1:1: expected keys and values at the top of the file`, 2);
  }
  const config = structuredClone(yaml.value);
  const set = overrides.map(parseOverride);
  for (const { keys, value, written } of set) override(config, keys, value, written);

  const result = kind.schema(config).safeParse(config);
  if (!result.success) {
    const lines = problems(result.error.issues, config, kind, path, yaml, set);
    throw new UserError(lines.join('\n'), 2);
  }
  for (const key of [...kind.models, ...kind.folders]) {
    const isOverride = set.some((one) => one.keys.join('.') === key);
    const from = isOverride ? process.cwd() : dirname(path);
    const find = kind.models.includes(key) ? shippedModel : () => null;
    resolveFolder(result.data, key.split('.'), (written) => find(written) ?? resolve(from, written));
  }
  return result.data;
}

function readFile(path: string): Uint8Array {
  try {
    return fs.readFileSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why =
      code === 'ENOENT'
        ? 'no such file'
        : code === 'EISDIR'
          ? 'a folder, not a file'
          : `cannot read it (${code})`;
    throw new UserError(`${path}: ${why}; expected a configuration such as examples/personalize.yaml`, 2);
  }
}

type Mapping = Record<string, unknown>;

function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** One `--set KEY=VALUE`. */
interface Override {
  readonly written: string;
  readonly keys: readonly string[];
  readonly value: unknown;
}

function parseOverride(written: string): Override {
  const [, key, text] = /^([^=]*)=(.*)$/s.exec(written) ?? [];
  if (key === undefined || text === undefined || !/^\w+(\.\w+)*$/.test(key) || key.includes('__proto__')) {
    throw new UserError(`--set ${written}: expected KEY=VALUE, such as sampling.steps=10`, 2);
  }
  // Under a key of its own, because a document may not be empty or a lone scalar.
  const { value } = readYaml(new TextEncoder().encode(`value: ${text}`), `--set ${written}`);
  return { written, keys: key.split('.'), value: (value as Mapping).value };
}

function override(config: Mapping, keys: readonly string[], value: unknown, written: string): void {
  let section = config;
  for (const key of keys.slice(0, -1)) {
    const inner = (Object.hasOwn(section, key) ? section[key] : null) ?? {};
    if (!isMapping(inner)) throw new UserError(`--set ${written}: ${key} is not a section`, 2);
    section[key] = inner;
    section = inner;
  }
  section[keys.at(-1)!] = value;
}

function resolveFolder(
  config: unknown,
  keys: readonly string[],
  resolved: (written: string) => string,
): void {
  const section = valueAt(config, keys.slice(0, -1)) as Mapping | null;
  const key = keys.at(-1)!;
  const written = section?.[key] as string | null | undefined;
  if (!section || typeof written !== 'string') return; // an optional one that is not given
  section[key] = resolved(written);
}

/** One line for each thing that is wrong, in the order of the schema. */
function problems(
  issues: readonly z.core.$ZodIssue[],
  config: Mapping,
  kind: Pick<Kind<unknown>, 'schema' | 'misplaced'>,
  file: string,
  yaml: YamlSource,
  set: readonly Override[],
): string[] {
  const schema = kind.schema(config);
  const lines = new Set<string>();
  for (const issue of issues) {
    const at = issue.path as Path;
    if (issue.code === 'unrecognized_keys') {
      for (const key of issue.keys) {
        const misplaced = at.length === 0 ? kind.misplaced(key, config) : null;
        const near = nearestName(key, keysAt(schema, at));
        const advice = near ? `did you mean ${near}?` : `expected one of ${keysAt(schema, at).join(', ')}`;
        lines.add(line([...at, key], 'key', misplaced ?? `unknown key; ${advice}`));
      }
      continue;
    }
    const got = valueAt(config, at);
    const near =
      issue.code === 'invalid_value' && typeof got === 'string'
        ? nearestName(got, issue.values.map(String))
        : null;
    const advice = near === null ? '' : `; did you mean ${near}?`;
    lines.add(
      got === undefined
        ? line(at, 'key', `this key is missing; ${issue.message}`)
        : line(at, 'value', `${issue.message}; got ${show(got)}${advice}`),
    );
  }
  const all = [...lines];
  return all.length <= maxProblems
    ? all
    : [...all.slice(0, maxProblems), `${file}: and ${all.length - maxProblems} more problems`];

  function line(path: Path, part: 'key' | 'value', problem: string): string {
    const inFile = valueAt(yaml.value, path) !== undefined;
    const own = set.findLast(({ keys }) =>
      // What an override wrote, or a section that only an override opened.
      (inFile ? keys : keys.slice(0, path.length)).every((key, i) => path[i] === key),
    );
    const place = own ? `--set ${own.written}` : `${file}:${yaml.locate(path, part)}`;
    return `${place}: ${path.join('.')}: ${problem}`;
  }
}

function valueAt(root: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (value, key) =>
      value === null || value === undefined ? undefined : (value as Record<string | number, unknown>)[key],
    root,
  );
}

/** The keys that a schema knows at a path. */
function keysAt(schema: z.ZodType, path: Path): string[] {
  let at = unwrap(schema);
  for (const key of path) at = unwrap((at as z.ZodObject).shape[key] as z.ZodType);
  return Object.keys((at as z.ZodObject).shape);
}

/** The schema inside defaults and nullables. */
function unwrap(schema: z.ZodType): z.ZodType {
  const { innerType } = schema.def as { innerType?: z.ZodType };
  return innerType === undefined ? schema : unwrap(innerType);
}

/** A value as messages print it: short, on one line. */
function show(value: unknown): string {
  if (typeof value === 'number') return String(value);
  const written = JSON.stringify(value) ?? String(value);
  return written.length > 60 ? `${written.slice(0, 57)}...` : written;
}
