/** Which layers of a module tree an adapter goes to: PEFT's target_modules and exclude_modules. */
import { type Module, namedModules } from '@deftjs/autograd/nn';
import type { Shape } from '@deftjs/tensor';
import { type AdaptedLayer, isAdaptable } from './linearMap.ts';
import { pathPattern } from './pathPattern.ts';

/**
 * Names of layers: a list names whole paths or their last parts ("to_q", "to_out.0"); a string is a regular expression
 * that the whole path matches, or "all-linear".
 */
export type Targets = readonly string[] | string;

/** Whether the name is the path, or its last parts. */
export function endsWith(path: string, name: string): boolean {
  return path === name || path.endsWith(`.${name}`);
}

/** The test whether a layer is meant. @throws SyntaxError for a bad pattern */
export function targetTest(targets: Targets): (path: string, weight: Shape) => boolean {
  if (targets === 'all-linear') return (_path, weight) => weight.length === 2;
  if (typeof targets === 'string') return pathPattern(targets);
  return (path) => targets.some((name) => endsWith(path, name));
}

/** Every Linear and Conv2d of the tree by path; one that is reachable by several paths has the first. */
export function adaptableLayers(module: Module): Map<string, AdaptedLayer> {
  const layers = new Map<string, AdaptedLayer>();
  const seen = new Set<Module>();
  for (const [path, m] of namedModules(module)) {
    if (isAdaptable(m) && !seen.has(m)) layers.set(path, m);
    seen.add(m);
  }
  return layers;
}

/**
 * The layers that are meant, by path.
 * @throws Error when there are none, or an entry of the list matches none, with the nearest names there are
 */
export function findTargets(
  module: Module,
  targets: Targets,
  excluded: Targets = [],
): ReadonlyMap<string, AdaptedLayer> {
  const layers = adaptableLayers(module);
  const [meant, spared] = [targetTest(targets), targetTest(excluded)];
  const useless =
    typeof targets === 'string'
      ? []
      : targets.filter((name) => ![...layers.keys()].some((path) => endsWith(path, name)));
  const hits = new Map(
    [...layers].filter(([path, { weight }]) => meant(path, weight.shape) && !spared(path, weight.shape)),
  );
  if (useless.length > 0 || hits.size === 0) {
    const names = useless.length > 0 ? useless : typeof targets === 'string' ? [targets] : targets;
    const near = nearestNames(names.join(' '), [...layers.keys()].map(shortName));
    throw new Error(
      `attach: no Linear or Conv2d layer for targetModules ${names.map((name) => JSON.stringify(name)).join(', ')}` +
        `${useless.length === 0 && excluded.length > 0 ? ' beside excludeModules' : ''}; ` +
        (near.length > 0 ? `nearest names: ${near.join(', ')}` : 'the module has no such layer at all'),
    );
  }
  return hits;
}

/** The last part of a path, with the part before it where it is only a number: "to_q", "to_out.0". */
function shortName(path: string): string {
  return /(?:^|\.)([^.]+(?:\.\d+)*)$/.exec(path)?.[1] ?? path;
}

/** Up to five of the names, those that share most pairs of letters with `written` first (Dice's coefficient). */
export function nearestNames(written: string, names: readonly string[]): string[] {
  const pairs = (name: string): Set<string> =>
    new Set(Array.from({ length: Math.max(0, name.length - 1) }, (_, i) => name.slice(i, i + 2)));
  const asked = pairs(written);
  const likeness = (name: string): number => {
    const own = pairs(name);
    return (2 * [...own].filter((pair) => asked.has(pair)).length) / Math.max(1, own.size + asked.size);
  };
  return [...new Set(names)].sort((a, b) => likeness(b) - likeness(a)).slice(0, 5);
}
