/** What an optimizer is: pure functions from parameters, gradients and a state to new parameters and a new state. */
import {
  cast,
  formatShape,
  isFloat,
  ShapeError,
  sameShape,
  Tensor,
  type Tree,
  treeLeaves,
  visitLeaves,
  zeros,
} from '@deftjs/tensor';

export interface UpdateOptions {
  /** A scalar tensor, so that a compiled step takes a new one each time; a number is built into the step. */
  readonly learningRate: Tensor | number;
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
  readonly match: RegExp | ((path: string) => boolean);
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
    const group = groups.find(({ match }) =>
      match instanceof RegExp ? path.search(match) >= 0 : match(path),
    );
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

/** `x` in the type of a moment. */
export function inTypeOf(like: Tensor, x: Tensor): Tensor {
  return cast(x, like.dtype);
}

/** A zero for every parameter. */
export function zeroMoments(parameters: Tree): Tensor[] {
  return treeLeaves(parameters).map((x) => zeros(x.shape, workingType(x)));
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
