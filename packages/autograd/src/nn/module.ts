/**
 * Modules: objects whose fields are parameters, modules, and lists of modules. A parameter's path is the names of the
 * fields that lead to it ("down_blocks.0.resnets.1.conv1.weight"): the state-dict key of PyTorch, so model files name
 * their fields as the checkpoints do.
 */
import { foldIn, formatShape, type Key, keyOf, sameShape, type Tensor } from '@deftjs/tensor';
import { matchesPath, type PathTest } from '../path.ts';
import { Parameter } from './parameter.ts';

/** A part of a model. Subclasses add fields and methods; `forward` by convention computes. */
export abstract class Module {
  /** False in evaluation: dropout passes everything. */
  training = true;
}

type Visit = {
  readonly parameter: (path: string, p: Parameter) => void;
  readonly module: (path: string, m: Module) => void;
};

function walk(module: Module, prefix: string, visit: Visit): void {
  visit.module(prefix, module);
  for (const [name, field] of Object.entries(module)) {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    if (field instanceof Parameter) visit.parameter(path, field);
    else if (field instanceof Module) walk(field, path, visit);
    else if (Array.isArray(field) || isPlainRecord(field)) {
      for (const [key, item] of Object.entries(field)) {
        if (item instanceof Module) walk(item, `${path}.${key}`, visit);
        else if (item instanceof Parameter) visit.parameter(`${path}.${key}`, item);
      }
    }
  }
}

function isPlainRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

/** All parameters by path, or those whose path is meant, in the order of the fields. */
export function namedParameters(module: Module, which: PathTest = () => true): Map<string, Parameter> {
  const parameters = new Map<string, Parameter>();
  const parameter = (path: string, p: Parameter): void => {
    if (matchesPath(which, path)) parameters.set(path, p);
  };
  walk(module, '', { parameter, module: () => {} });
  return parameters;
}

/** The module and all modules within, by path; the module itself has the empty path. */
export function namedModules(module: Module): Map<string, Module> {
  const modules = new Map<string, Module>();
  walk(module, '', { parameter: () => {}, module: (path, m) => modules.set(path, m) });
  return modules;
}

/** Sets every module within to training or evaluation. */
export function setTraining(module: Module, training: boolean): void {
  for (const m of namedModules(module).values()) m.training = training;
}

/** Makes exactly the parameters whose path is meant trainable, freezing the others; returns how many elements they hold. */
export function setTrainable(module: Module, which: PathTest): number {
  let elements = 0;
  for (const [path, parameter] of namedParameters(module)) {
    parameter.trainable = matchesPath(which, path);
    if (parameter.trainable) elements += parameter.shape.reduce((product, extent) => product * extent, 1);
  }
  return elements;
}

/** FNV-1a of a path: the stream of random numbers that belongs to it. */
function hashOf(path: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < path.length; i += 1) hash = Math.imul(hash ^ path.charCodeAt(i), 0x01000193) >>> 0;
  return hash;
}

/** Gives every parameter that has no value its initial one: a pure function of (seed, path). */
export function initialize(module: Module, seed: number): void {
  const key: Key = keyOf(seed);
  for (const [path, parameter] of namedParameters(module)) {
    if (!parameter.hasValue)
      parameter.value = parameter.initializer(parameter.shape, foldIn(key, hashOf(path)));
  }
}

/** The values of all parameters (or of those that pass the test) by path. */
export function stateOf(
  module: Module,
  test: (path: string, p: Parameter) => boolean = () => true,
): Record<string, Tensor> {
  const state: Record<string, Tensor> = {};
  for (const [path, parameter] of namedParameters(module))
    if (test(path, parameter)) state[path] = parameter.value;
  return state;
}

/** The values of the trainable parameters by path. */
export function trainableState(module: Module): Record<string, Tensor> {
  return stateOf(module, (_path, parameter) => parameter.trainable);
}

function listed(names: readonly string[]): string {
  const more = names.length > 10 ? ` and ${names.length - 10} more` : '';
  return names.slice(0, 10).join(', ') + more;
}

/**
 * Puts values into the parameters of the same path.
 * @param partial whether parameters may stay as they are
 * @throws Error listing unknown, missing and mis-shaped names (ten of each and how many more); nothing is changed then
 */
export function loadState(module: Module, state: Readonly<Record<string, Tensor>>, partial = false): void {
  const parameters = namedParameters(module);
  const unknown = Object.keys(state).filter((path) => !parameters.has(path));
  const missing = partial ? [] : [...parameters.keys()].filter((path) => !(path in state));
  const misshaped = Object.entries(state).flatMap(([path, value]) => {
    const expected = parameters.get(path)?.shape;
    if (expected === undefined || sameShape(expected, value.shape)) return [];
    return [`${path} (expected ${formatShape(expected)}, got ${formatShape(value.shape)})`];
  });
  const problems = Object.entries({ unknown, missing, 'wrong shape': misshaped }).filter(
    ([, names]) => names.length > 0,
  );
  if (problems.length > 0) {
    throw new Error(`loadState: ${problems.map(([what, names]) => `${what}: ${listed(names)}`).join('; ')}`);
  }
  for (const [path, value] of Object.entries(state)) parameters.get(path)!.value = value;
}

/** The result of `run` while the parameters at the given paths have other values: how transforms see a module. */
export function withState<R>(module: Module, state: Readonly<Record<string, Tensor>>, run: () => R): R {
  const parameters = namedParameters(module);
  const before = new Map(
    Object.keys(state).map((path) => {
      const parameter = parameters.get(path);
      if (parameter === undefined) throw new Error(`withState: no parameter has the path "${path}"`);
      return [parameter, parameter.value] as const;
    }),
  );
  try {
    for (const [path, value] of Object.entries(state)) parameters.get(path)!.value = value;
    return run();
  } finally {
    for (const [parameter, value] of before) parameter.value = value;
  }
}
