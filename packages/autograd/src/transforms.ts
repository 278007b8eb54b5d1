/**
 * Derivatives of functions of trees of tensors. All of them build graphs and compute nothing; they nest in any order.
 *
 * A function is called once, with fresh variables in place of its arguments. Integer and boolean leaves stay as they
 * are; an argument that does not influence the result has derivative zero.
 */
import {
  alias,
  type CompiledFunction,
  compile,
  DTypeError,
  formatShape,
  isFloat,
  onesLike,
  ShapeError,
  sameShape,
  Tensor,
  type Tree,
  treeLeaves,
  treeMap,
  treeWith,
  zerosLike,
} from '@deftjs/tensor';
import type { Pullback } from './engine.ts';
import { cotangentsAt, pullBack, pushTangents } from './graph.ts';

/** The tree with a fresh variable for each float tensor. */
function variablesFor<T extends Tree>(tree: T): T {
  return treeMap((x) => (isFloat(x.dtype) ? alias(x) : x), tree);
}

function expectLike(op: string, given: readonly Tensor[], like: readonly Tensor[]): void {
  const fits = (x: Tensor, i: number): boolean =>
    like[i] !== undefined && sameShape(x.shape, like[i].shape) && x.dtype === like[i].dtype;
  if (given.length !== like.length || !given.every(fits)) {
    const list = (tensors: readonly Tensor[]): string =>
      tensors.map((x) => `${x.dtype} ${formatShape(x.shape)}`).join(', ');
    throw new ShapeError(`${op}: expected ${list(like)}; got ${list(given)}`);
  }
}

/**
 * The value of f(...primals) and its pullback: cotangents of the value to cotangents of the primals, one tree each.
 * Integer leaves of the primals come back as zeros.
 */
export function vjp<A extends readonly Tree[], R extends Tree>(
  f: (...primals: A) => R,
  ...primals: A
): { value: R; pullback: (cotangent: R) => A } {
  const variables = variablesFor(primals);
  const value = f(...variables);
  const results = treeLeaves(value);
  const pullback = (cotangent: R): A => {
    const seeds = treeLeaves(cotangent);
    expectLike('vjp', seeds, results);
    const leaves = treeLeaves(variables).filter((x) => isFloat(x.dtype));
    const cotangents = pullBack(leaves, seedMap(results, seeds));
    return treeMap((x) => cotangents.get(x) ?? zerosLike(x), variables);
  };
  return { value, pullback };
}

// A tensor that stands twice in the value gets the sum of its cotangents: alias makes the two places differ.
function seedMap(results: readonly Tensor[], seeds: readonly Tensor[]): Map<Tensor, Tensor> {
  const map = new Map<Tensor, Tensor>();
  results.forEach((y, i) => {
    map.set(map.has(y) ? alias(y) : y, seeds[i]!);
  });
  return map;
}

/** The value of f(...primals) and its derivative along the tangents, which are trees like the primals. */
export function jvp<A extends readonly Tree[], R extends Tree>(
  f: (...primals: A) => R,
  primals: A,
  tangents: A,
): { value: R; tangent: R } {
  const variables = variablesFor(primals);
  const [leaves, directions] = [treeLeaves(variables), treeLeaves(tangents)];
  expectLike('jvp', directions, leaves);
  const value = f(...variables);
  const seeds = new Map(leaves.flatMap((x, i) => (isFloat(x.dtype) ? [[x, directions[i]!] as const] : [])));
  const arrived = pushTangents(seeds, treeLeaves(value));
  return { value, tangent: treeMap((y) => arrived.get(y) ?? zerosLike(y), value) };
}

/** What a function to differentiate returns: the scalar, or the scalar and other results beside it. */
export type Loss = Tensor | readonly [Tensor, ...Tree[]];

/** A function of parameters and other arguments, compiled. */
type Compiled<P extends Tree, A extends readonly Tree[], R extends Tree> = CompiledFunction<[P, ...A], R>;

/** @internal f's value and the gradient of its scalar in the parameters, by a rule for each step back. */
export function differentiated<P extends Tree, A extends readonly Tree[], L extends Loss>(
  f: (parameters: P, ...rest: A) => L,
  parameters: P,
  rest: A,
  through: Pullback<Tensor> = cotangentsAt,
): { value: L; gradient: P } {
  const variables = variablesFor(parameters);
  const value = f(variables, ...rest);
  const scalar = (Array.isArray(value) ? value[0] : value) as Tensor;
  if (!(scalar instanceof Tensor)) {
    throw new TypeError(`grad: the function must return a tensor at once; got ${describe(scalar)}`);
  }
  if (scalar.rank !== 0) {
    throw new ShapeError(`grad: the function must return a scalar; got ${formatShape(scalar.shape)}`);
  }
  if (!isFloat(scalar.dtype))
    throw new DTypeError(`grad: the function must return a float; got ${scalar.dtype}`);
  const leaves = treeLeaves(variables);
  const wrong = leaves.find((x) => !isFloat(x.dtype));
  if (wrong)
    throw new DTypeError(`grad: there is no gradient in ${wrong.dtype}; pass it as another argument`);
  const cotangents = pullBack(leaves, new Map([[scalar, onesLike(scalar)]]), through);
  const gradients = leaves.map((x) => cotangents.get(x) ?? zerosLike(x));
  return { value, gradient: treeWith(parameters, gradients) };
}

function describe(value: unknown): string {
  return typeof value === 'object' && value !== null ? value.constructor.name : String(value);
}

/**
 * The function that returns f's value and the gradient of its scalar in the first argument, a tree like it. That of a
 * compiled function is compiled, for the same device.
 * @throws ShapeError when the scalar has axes, DTypeError when it is not a float or the gradient would be of integers
 */
export function valueAndGrad<P extends Tree, A extends readonly Tree[], L extends Loss>(
  f: Compiled<P, A, L>,
): Compiled<P, A, { value: L; gradient: P }>;
export function valueAndGrad<P extends Tree, A extends readonly Tree[], L extends Loss>(
  f: (parameters: P, ...rest: A) => L,
): (parameters: P, ...rest: A) => { value: L; gradient: P };
export function valueAndGrad<P extends Tree, A extends readonly Tree[], L extends Loss>(
  f: Compiled<P, A, L> | ((parameters: P, ...rest: A) => L),
): unknown {
  const plain = 'fn' in f ? (f.fn as (parameters: P, ...rest: A) => L) : f;
  const both = (parameters: P, ...rest: A) => differentiated(plain, parameters, rest);
  return 'fn' in f ? compile(both, f.options) : both;
}

/**
 * The function that returns the gradient of f's scalar in the first argument; that of a compiled function is compiled.
 * @throws as `valueAndGrad`
 */
export function grad<P extends Tree, A extends readonly Tree[], L extends Loss>(
  f: Compiled<P, A, L>,
): Compiled<P, A, P>;
export function grad<P extends Tree, A extends readonly Tree[]>(
  f: (parameters: P, ...rest: A) => Loss,
): (parameters: P, ...rest: A) => P;
export function grad<P extends Tree, A extends readonly Tree[]>(
  f: Compiled<P, A, Loss> | ((parameters: P, ...rest: A) => Loss),
): unknown {
  const plain = 'fn' in f ? (f.fn as (parameters: P, ...rest: A) => Loss) : f;
  const gradient = (parameters: P, ...rest: A) => differentiated(plain, parameters, rest).gradient;
  return 'fn' in f ? compile(gradient, f.options) : gradient;
}

/** The Hessian of the scalar function f at x, times v: forward over reverse. */
export function hvp<P extends Tree>(f: (x: P) => Tensor, x: P, v: P): P {
  return jvp((y: P) => grad(f)(y), [x], [v]).tangent;
}
