/** What an optimizer is: pure functions from parameters, gradients and a state to new parameters and a new state. */
import {
  cast,
  formatShape,
  isFloat,
  mul,
  type Operand,
  ShapeError,
  sameShape,
  sub,
  Tensor,
  type Tree,
  treeLeaves,
  visitLeaves,
  zeros,
} from '@deftjs/tensor';
import { matchesPath, type PathTest } from '../path.ts';

export interface UpdateOptions {
  /** A scalar tensor, so that a compiled step takes a new one each time; a number is built into the step. */
  readonly learningRate: Tensor | number;
  /** A tree like the parameters: what weight decay pulls towards (Li et al. 2018, L2-SP). Default: zero. */
  readonly decayTowards?: Tree;
}

/** Builds graphs and computes nothing; what it needs from step to step is all in the state. */
export interface Optimizer<S extends Tree> {
  /** The state before the first step: zeros. */
  init(parameters: Tree): S;
  /** One step. @throws ShapeError when gradients or state do not fit the parameters */
  update<P extends Tree>(
    parameters: P,
    gradients: P,
    state: S,
    options: UpdateOptions,
  ): { parameters: P; state: S };
}

/** Parameters with settings of their own. The first group that matches a path counts. */
export interface ParameterGroup {
  /** Which paths ("blocks.0.norm.weight") belong to it. */
  readonly match: PathTest;
  /** Times the learning rate; default 1. */
  readonly learningRateFactor?: number;
  /** Default: that of the optimizer. */
  readonly weightDecay?: number;
}

/** Settings of one parameter. */
export interface Settings {
  readonly learningRateFactor: number;
  readonly weightDecay: number;
}

/** The settings of every parameter, in tree order. */
export function settingsOf(
  parameters: Tree,
  groups: readonly ParameterGroup[],
  weightDecay: number,
): Settings[] {
  return pathsOf(parameters).map((path) => {
    const group = groups.find(({ match }) => matchesPath(match, path));
    return {
      learningRateFactor: group?.learningRateFactor ?? 1,
      weightDecay: group?.weightDecay ?? weightDecay,
    };
  });
}

function pathsOf(tree: Tree): string[] {
  const paths: string[] = [];
  visitLeaves(tree, (leaf, path) => {
    if (leaf instanceof Tensor) paths.push(path);
  });
  return paths;
}

/** The type that an optimizer computes a parameter in and keeps its moments in: never less than f32. */
function workingType({ dtype }: Tensor): Tensor['dtype'] {
  return dtype === 'f16' ? 'f32' : dtype;
}

/** The parameter in the type that it is computed in. */
export function inWorkingType(x: Tensor): Tensor {
  return cast(x, workingType(x));
}

/** `x` in the type of a moment. */
export function inTypeOf(like: Tensor, x: Tensor): Tensor {
  return cast(x, like.dtype);
}

/** A zero for every parameter. */
export function zeroMoments(parameters: Tree): Tensor[] {
  return treeLeaves(parameters).map((x) => zeros(x.shape, workingType(x)));
}

/** a * factor, without a product by 1. */
export const times = (a: Operand, factor: number): Operand =>
  factor === 1 ? a : a instanceof Tensor ? mul(a, factor) : a * factor;

/** 1 - a. */
export const minus = (a: Operand): Operand => (a instanceof Tensor ? sub(1, a) : 1 - a);

/** How far parameter i is from what decay pulls towards: p, or p - reference. @throws ShapeError */
export function awayFrom(
  op: string,
  parameters: Tree,
  reference: Tree | undefined,
): (p: Tensor, i: number) => Tensor {
  if (reference === undefined) return (p) => p;
  const [leaves] = leavesAlike(op, parameters, { decayTowards: reference }) as [Tensor[]];
  return (p, i) => sub(p, inTypeOf(p, leaves[i]!));
}

/** Parameter i after decay by an amount: (1 - amount) p, or p - amount (p - reference). @throws ShapeError */
export function decayedBy(
  op: string,
  parameters: Tree,
  reference: Tree | undefined,
): (p: Tensor, i: number, amount: Operand) => Tensor {
  const away = awayFrom(op, parameters, reference);
  return (p, i, amount) => (reference ? sub(p, mul(away(p, i), amount)) : mul(p, minus(amount)));
}

/**
 * The leaves of each tree, which must fit those of the first.
 * @throws ShapeError naming the tree and the parameter
 */
export function leavesAlike(
  op: string,
  parameters: Tree,
  trees: { readonly [name: string]: Tree },
): Tensor[][] {
  const expected = treeLeaves(parameters);
  const paths = pathsOf(parameters);
  return Object.entries(trees).map(([name, tree]) => {
    const leaves = treeLeaves(tree);
    if (leaves.length !== expected.length) {
      throw new ShapeError(`${op}: expected ${name} for ${expected.length} parameters; got ${leaves.length}`);
    }
    leaves.forEach((leaf, i) => {
      const { shape } = expected[i]!;
      if (sameShape(leaf.shape, shape) && isFloat(leaf.dtype)) return;
      throw new ShapeError(
        `${op}: ${name} do not fit "${paths[i]}"; expected ${formatShape(shape)}; got ${leaf.dtype} ${formatShape(leaf.shape)}`,
      );
    });
    return leaves;
  });
}

/** @throws RangeError unless low <= value < high */
export function expectRange(op: string, name: string, value: number, low: number, high: number): void {
  if (!(value >= low && value < high)) {
    throw new RangeError(`${op}: ${name} must be in [${low}, ${high}); got ${value}`);
  }
}
