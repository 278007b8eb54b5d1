/**
 * Derivatives checked against their definition, in float64 on the reference device.
 *
 * With directions v in the inputs and cotangents u of the results, three ways to one number are compared:
 *
 *     <u, (f(x + h v) - f(x - h v)) / 2h>   =   <u, J v>   =   <J^T u, v>                            (1)
 *     central difference, error O(h^2)          jvp            vjp
 *
 * An input of at most 64 elements is walked along every element and a result likewise, which compares the whole
 * Jacobian; a larger one along 8 random directions. For second derivatives, f is replaced by its own pullback, and
 * the Hessian of <u, f(x)> must be symmetric: <w, H v> = <v, H w>                                     (2)
 */
import {
  add,
  cast,
  DTypeError,
  decode,
  foldIn,
  isFloat,
  type Key,
  keyOf,
  mul,
  normalNumbers,
  numel,
  placeholder,
  read,
  referenceDevice,
  type Shape,
  sum,
  type Tensor,
  type Tree,
  treeLeaves,
  treeWith,
  zeros,
} from '@deftjs/tensor';
import { hvp, jvp, vjp } from './transforms.ts';

export interface GradcheckOptions {
  /** Largest error of a derivative, relative to the largest between the same result and input. Default 1e-6. */
  readonly tolerance?: number;
  /** h in equation (1), in units of the largest |x| that moves (at least 1). Default 1e-5. */
  readonly step?: number;
}

export interface GradcheckReport {
  /** Numbers compared. */
  readonly comparisons: number;
  /** The largest relative error among them. */
  readonly worst: number;
}

/** A derivative that is not what its definition gives; the message names the worst place. */
export class GradcheckError extends Error {
  override readonly name = 'GradcheckError';
}

/** Inputs up to this many elements are walked one by one. */
const fullJacobian = 64;
const randomDirections = 8;

/** jvp and vjp are the same numbers added in another order: equal far below the error of a difference. */
const roundingTolerance = 1e-10;

/** Values of a variable, unrounded. */
interface Point {
  readonly shape: Shape;
  readonly dtype: Tensor['dtype'];
  readonly values: Float64Array;
}

/** A vector that is zero but on one leaf. */
interface Direction {
  readonly leaf: number;
  readonly along: Float64Array;
  readonly place: string;
}

type Run = (values: readonly Float64Array[]) => Promise<Float64Array[]>;

/** A function that computes the outputs from values of the variables. */
async function compiled(variables: readonly Tensor[], outputs: readonly Tensor[]): Promise<Run> {
  const device = referenceDevice();
  const wide = outputs.map((y) => cast(y, 'f64'));
  const constants = constantsOf(wide, variables);
  const program = await device.prepare({
    inputs: [...variables, ...constants],
    outputs: wide,
    donations: new Map(),
  });
  // The reference device keeps float64 whatever the type says: as f64, nothing is rounded on the way in.
  const fixed = await Promise.all(
    constants.map(async (leaf) => device.upload('f64', Float64Array.from(await read(leaf)))),
  );
  return async (values) => {
    const results = program.run([...values.map((v) => device.upload('f64', v)), ...fixed]);
    return (await Promise.all(results.map((storage) => device.read(storage)))) as Float64Array[];
  };
}

function constantsOf(outputs: readonly Tensor[], variables: readonly Tensor[]): Tensor[] {
  const seen = new Set<Tensor>(outputs);
  for (const node of seen)
    if (node.source.kind === 'applied') for (const x of node.source.inputs) seen.add(x);
  return [...seen].filter((node) => node.source.kind !== 'applied' && !variables.includes(node));
}

function directionsIn(points: readonly Point[], what: string, key: Key): Direction[] {
  return points.flatMap(({ values: { length }, shape }, leaf) => {
    const one = length <= fullJacobian;
    return Array.from({ length: one ? length : randomDirections }, (_, i) => ({
      leaf,
      along: one ? basis(length, i) : normalNumbers(foldIn(foldIn(key, leaf), i), length),
      place: `${what} ${leaf} ${one ? `at [${indexOf(shape, i)}]` : `along random direction ${i}`}`,
    }));
  });
}

function basis(length: number, i: number): Float64Array {
  const vector = new Float64Array(length);
  vector[i] = 1;
  return vector;
}

function indexOf(shape: Shape, place: number): string {
  const index: number[] = [];
  for (let axis = shape.length - 1, rest = place; axis >= 0; axis -= 1) {
    index.unshift(rest % shape[axis]!);
    rest = Math.floor(rest / shape[axis]!);
  }
  return index.join(', ');
}

/** One value for each leaf: the direction's on its own, zeros on the others. */
function spread(points: readonly Point[], { leaf, along }: Direction): Float64Array[] {
  return points.map(({ values }, i) => (i === leaf ? along : new Float64Array(values.length)));
}

function dot(a: Float64Array, b: Float64Array): number {
  return a.reduce((total, value, i) => total + value * b[i]!, 0);
}

function largest(values: Float64Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

/** Two numbers that should be equal, what they are, and by how much they may differ whatever the tolerance. */
interface Comparison {
  readonly place: string;
  /** Comparisons between the same result and input share one scale. */
  readonly block: string;
  readonly got: number;
  readonly expected: number;
  readonly tolerance: number;
  /** Rounding of the expected value, absolute. */
  readonly noise: number;
  /** The same, measured: for the few comparisons that `noise` does not settle. */
  readonly measuredNoise?: () => Promise<number>;
}

/** @throws GradcheckError for the worst of the comparisons that fail */
async function judge(name: string, comparisons: readonly Comparison[]): Promise<GradcheckReport> {
  const scales = new Map<string, number>();
  for (const { block, got, expected } of comparisons) {
    const before = scales.get(block) ?? 0;
    scales.set(block, Math.max(before, Math.abs(got) || 0, Math.abs(expected) || 0));
  }
  let worst = 0;
  let failure: { comparison: Comparison; error: number; excess: number } | null = null;
  for (const comparison of comparisons) {
    const { block, got, expected, tolerance } = comparison;
    const scale = scales.get(block)!;
    const difference = got === expected ? 0 : Math.abs(got - expected);
    const error = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference / (scale || 1);
    worst = Math.max(worst, error);
    let allowed = tolerance * scale + comparison.noise;
    if (difference <= allowed) continue;
    if (comparison.measuredNoise) allowed = Math.max(allowed, await comparison.measuredNoise());
    if (difference <= allowed) continue;
    const excess = difference / allowed;
    if (failure === null || !(excess <= failure.excess)) failure = { comparison, error, excess };
  }
  if (failure !== null) {
    const { place, got, expected } = failure.comparison;
    throw new GradcheckError(
      `${name}, ${place}; expected ${expected}; got ${got}; relative error ${failure.error.toExponential(2)}`,
    );
  }
  return { comparisons: comparisons.length, worst };
}

/** Floats of a tree as points. */
async function pointsOf(leaves: readonly Tensor[]): Promise<Point[]> {
  return Promise.all(
    leaves.map(async (x) => {
      const host = x.source.kind === 'host' ? decode(x.dtype, x.source.values) : await read(x);
      return { shape: x.shape, dtype: x.dtype, values: Float64Array.from(host) };
    }),
  );
}

type Flat = (...x: readonly Tensor[]) => readonly Tensor[];

/** f as a function of its float leaves alone, to the float leaves of its result. */
function flattened<A extends readonly Tree[]>(f: (...inputs: A) => Tree, inputs: A): Flat {
  const leaves = treeLeaves(inputs);
  return (...floats) => {
    let next = 0;
    const given = leaves.map((leaf) => (isFloat(leaf.dtype) ? floats[next++]! : leaf));
    return treeLeaves(f(...(treeWith(inputs as Tree, given) as unknown as A))).filter((y) =>
      isFloat(y.dtype),
    );
  };
}

async function check(
  name: string,
  f: Flat,
  points: readonly Point[],
  { tolerance = 1e-6, step = 1e-5 }: GradcheckOptions,
): Promise<GradcheckReport> {
  const fresh = (like: readonly { shape: Shape; dtype: Tensor['dtype'] }[]): Tensor[] =>
    like.map(({ shape, dtype }) => placeholder(shape, dtype));
  const variables = fresh(points);
  const outputs = f(...variables);
  if (points.length === 0 || outputs.length === 0) {
    throw new DTypeError(
      `${name}: expected floats to differentiate; got ${points.length} inputs and ${outputs.length} results`,
    );
  }
  const [cotangents, tangents] = [fresh(outputs), fresh(points)];
  const value = await compiled(variables, outputs);
  const reverse = await compiled(
    [...variables, ...cotangents],
    vjp<readonly Tensor[], readonly Tensor[]>(f, ...variables).pullback(cotangents),
  );
  const forward = await compiled(
    [...variables, ...tangents],
    jvp<readonly Tensor[], readonly Tensor[]>(f, variables, tangents).tangent,
  );
  const x = points.map(({ values }) => values);
  const y = await value(x);
  const results = outputs.map(({ shape, dtype }, i): Point => ({ shape, dtype, values: y[i]! }));
  const us = directionsIn(results, 'output', keyOf(1));
  const gradients: Float64Array[][] = [];
  for (const u of us) gradients.push(await reverse([...x, ...spread(results, u)]));
  const [againstDifference, againstReverse]: [Comparison[], Comparison[]] = [[], []];
  for (const v of directionsIn(points, 'input', keyOf(2))) {
    const h = step * Math.max(1, largest(x[v.leaf]!.filter((_, i) => v.along[i] !== 0)));
    const moved = (by: number): Float64Array[] =>
      x.map((values, i) => (i === v.leaf ? values.map((at, j) => at + by * v.along[j]!) : values));
    const [ahead, behind] = [await value(moved(h)), await value(moved(-h))];
    const along = once(() => Promise.all(roundingSteps.map((k) => value(moved(k * h)))));
    const difference = ahead.map((to, i) => to.map((at, j) => (at - behind[i]![j]!) / (2 * h)));
    const tangent = await forward([...x, ...spread(points, v)]);
    us.forEach((u, i) => {
      const reversed = dot(gradients[i]![v.leaf]!, v.along); // <J^T u, v>
      const pair = { block: `${u.leaf} ${v.leaf}`, place: `${u.place} by ${v.place}` };
      againstDifference.push({
        ...pair,
        got: reversed,
        expected: dot(u.along, difference[u.leaf]!),
        tolerance,
        noise: noiseOf(u.along, y[u.leaf]!, h),
        measuredNoise: async () => {
          const rows = (await along()).map((row) => row[u.leaf]!);
          return measuredNoise(rows.map((row) => dot(u.along, row))) / h;
        },
      });
      againstReverse.push({
        ...pair,
        got: dot(u.along, tangent[u.leaf]!),
        expected: reversed,
        tolerance: roundingTolerance,
        noise: roundingTolerance,
      });
    });
  }
  return combined(
    await judge(`${name}: vjp against central differences`, againstDifference),
    await judge(`${name}: jvp against vjp`, againstReverse),
  );
}

function combined(a: GradcheckReport, b: GradcheckReport): GradcheckReport {
  return { comparisons: a.comparisons + b.comparisons, worst: Math.max(a.worst, b.worst) };
}

/** What rounding f(x) costs the quotient (1): a few units in the last place of each value, over h. */
function noiseOf(u: Float64Array, y: Float64Array, h: number): number {
  return (8 * Number.EPSILON * u.reduce((total, weight, i) => total + Math.abs(weight * y[i]!), 0)) / h;
}

/** Where `measuredNoise` looks, in steps h. */
const roundingSteps = [-4, -3, -2, -1, 0, 1, 2, 3, 4];

/** More than this many units in the last place of max(1, |f|) is no rounding but a step of f. */
const mostRounding = 1024;

/**
 * What rounding inside f costs a difference of two of its values, from values at equal steps: the third differences
 * of a smooth f vanish as h^3, which leaves the rounding, 20^(1/2) times that of one value.
 */
function measuredNoise(values: readonly number[]): number {
  const differences = (row: readonly number[]): number[] => row.slice(1).map((y, i) => y - row[i]!);
  const third = differences(differences(differences(values)));
  const most = mostRounding * Number.EPSILON * Math.max(1, ...values.map(Math.abs));
  return Math.min(most, Math.max(...third.map(Math.abs)) / 2);
}

function once<T>(compute: () => T): () => T {
  let result: { readonly value: T } | undefined;
  return () => {
    result ??= { value: compute() };
    return result.value;
  };
}

/**
 * Equation (1) for f at the inputs, every float leaf of them: how many numbers were compared, and the worst.
 * The inputs keep away from places without a derivative by more than the step. f is traced, not run: it must not
 * evaluate its arguments.
 * @throws GradcheckError naming the worst place, DTypeError when no input or no result is a float
 */
export async function gradcheck<A extends readonly Tree[]>(
  f: (...inputs: A) => Tree,
  inputs: A,
  options: GradcheckOptions = {},
): Promise<GradcheckReport> {
  const leaves = treeLeaves(inputs).filter((x) => isFloat(x.dtype));
  return check('gradcheck', flattened(f, inputs), await pointsOf(leaves), options);
}

/**
 * Second derivatives of f at the inputs: equation (1) for the pullback of f in the inputs and cotangents, and
 * equation (2).
 * @throws GradcheckError naming the worst place, DTypeError when no input or no result is a float
 */
export async function gradgradcheck<A extends readonly Tree[]>(
  f: (...inputs: A) => Tree,
  inputs: A,
  options: GradcheckOptions = {},
): Promise<GradcheckReport> {
  const flat = flattened(f, inputs);
  const points = await pointsOf(treeLeaves(inputs).filter((x) => isFloat(x.dtype)));
  const outputs = flat(...points.map(({ shape, dtype }) => placeholder(shape, dtype)));
  const weights = outputs.map(({ shape, dtype }, i): Point => {
    return { shape, dtype, values: normalNumbers(foldIn(keyOf(3), i), numel(shape)) };
  });
  const pullback: Flat = (...x) =>
    vjp<readonly Tensor[], readonly Tensor[]>(flat, ...x.slice(0, points.length)).pullback(
      x.slice(points.length),
    );
  const report = await check('gradgradcheck', pullback, [...points, ...weights], options);
  return combined(report, await hessianSymmetry(flat, points, weights));
}

/** Equation (2) along random directions through all inputs at once. */
async function hessianSymmetry(
  f: Flat,
  points: readonly Point[],
  weights: readonly Point[],
): Promise<GradcheckReport> {
  const fresh = (): Tensor[] => points.map(({ shape, dtype }) => placeholder(shape, dtype));
  const [variables, direction] = [fresh(), fresh()];
  const constants = weights.map(({ shape, dtype }) => placeholder(shape, dtype));
  const weighted = (x: readonly Tensor[]): Tensor =>
    f(...x)
      .map((y, i) => cast(sum(mul(y, constants[i]!)), 'f64'))
      .reduce((total, term) => add(total, term), zeros([], 'f64'));
  const product = await compiled(
    [...variables, ...direction, ...constants],
    hvp<readonly Tensor[]>(weighted, variables, direction),
  );
  const x = points.map(({ values }) => values);
  const u = weights.map(({ values }) => values);
  const vectors = Array.from({ length: 3 }, (_, i) =>
    points.map(({ values }, leaf) => normalNumbers(foldIn(foldIn(keyOf(4), i), leaf), values.length)),
  );
  const products: Float64Array[][] = [];
  for (const v of vectors) products.push(await product([...x, ...v, ...u]));
  const inner = (a: readonly Float64Array[], b: readonly Float64Array[]): number =>
    a.reduce((total, values, i) => total + dot(values, b[i]!), 0);
  const comparisons = vectors.flatMap((v, i) =>
    vectors.slice(0, i).map((w, j) => ({
      place: `random directions ${i} and ${j}`,
      block: '',
      got: inner(w, products[i]!),
      expected: inner(v, products[j]!),
      tolerance: roundingTolerance,
      noise: roundingTolerance,
    })),
  );
  return judge('gradgradcheck: symmetry of the Hessian', comparisons);
}
