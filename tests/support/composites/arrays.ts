/** Cases of the functions that make, move, order, fold and pick elements. */
import * as api from '@deftjs/tensor';
import { type DType, numel, type Shape, type Tensor, tensor } from '@deftjs/tensor';
import fc from 'fast-check';
import {
  at,
  distinct,
  floats,
  indices,
  type Range,
  type SampleTensor,
  shapes,
  tabulate,
  typesBut,
  valuesOf,
} from '../samples/sample.ts';
import { folded, someAxes } from '../samples/structural.ts';
import {
  type Case,
  type Composite,
  everywhere,
  made,
  nowhere,
  of,
  off,
  ofOne,
  one,
  total,
  withSpecials,
} from './case.ts';

type Axial = (x: Tensor, axis: number) => Tensor;

/** Shapes with at least one axis, and one of their axes. */
const withAxis = (
  options: Parameters<typeof shapes>[0] = {},
): fc.Arbitrary<{ readonly shape: Shape; readonly axis: number }> =>
  fc
    .tuple(shapes({ minRank: 1, ...options }), fc.nat())
    .map(([shape, n]) => ({ shape, axis: n % shape.length }));

/** The lines of x along an axis, and where each stands: what NumPy's apply_along_axis sees. */
function alongAxis(
  x: SampleTensor,
  axis: number,
  f: (line: readonly number[]) => readonly number[],
): number[] {
  const lines = new Map<string, readonly number[]>();
  let extent = x.shape[axis]!;
  for (const lead of indices(x.shape.with(axis, 1))) {
    const line = f(Array.from({ length: x.shape[axis]! }, (_, i) => at(x, lead.with(axis, i))));
    extent = line.length;
    lines.set(lead.join(), line);
  }
  return tabulate(
    x.shape.with(axis, extent),
    (place) => lines.get(place.with(axis, 0).join())![place[axis]!]!,
  );
}

/** A function along an axis, on any type that is not left out; smooth on floats without ties. */
function axial(
  f: Axial,
  expected: (line: readonly number[], dtype: DType) => readonly number[],
  options: { without?: readonly DType[]; empty?: boolean; smooth?: boolean; special?: boolean } = {},
): Composite {
  const { without = [], empty = true, smooth = true, special = false } = options;
  const cases = (most: number, drawn: (shape: Shape) => fc.Arbitrary<SampleTensor>, hollow: boolean) =>
    withAxis({ most, empty: hollow }).chain(({ shape, axis }) =>
      ofOne(
        drawn(shape),
        (x) => f(x, axis),
        (x) => alongAxis(x, axis, (line) => expected(line, x.dtype)),
        { axis },
      ),
    );
  const any = (shape: Shape) => typesBut(...without).chain((dtype) => valuesOf(shape, dtype));
  const valid = cases(60, special ? (shape) => fc.oneof(any(shape), withSpecials(shape)) : any, empty);
  return { valid, smooth: smooth ? cases(12, distinct, false) : null };
}

const wrapped = (dtype: DType, value: number): number =>
  dtype === 'i32' ? value | 0 : dtype === 'u32' ? value >>> 0 : value;

/** Positions in order: numbers rising, NaN last (sign 1) or the other way (-1); equal ones stay. */
const inOrder = (line: readonly number[], sign: number): number[] => {
  const compare = (a: number, b: number): number => {
    const [x, y] = [line[a]!, line[b]!];
    const order =
      Number.isNaN(x) || Number.isNaN(y)
        ? Number(Number.isNaN(x)) - Number(Number.isNaN(y))
        : Number(x > y) - Number(x < y);
    return order * sign || a - b;
  };
  return [...line.keys()].sort(compare);
};

/** A fold over axes, kept or not. */
function fold(
  f: (x: Tensor, axes: readonly number[], keep: boolean) => Tensor,
  expected: (group: readonly number[], dtype: DType) => number,
  types: readonly DType[],
  smooth: ((shape: Shape) => fc.Arbitrary<SampleTensor>) | null,
  empty = true,
  range?: Range,
): Composite {
  const cases = (most: number, drawn: (shape: Shape) => fc.Arbitrary<SampleTensor>, hollow: boolean) =>
    fc.tuple(shapes({ minRank: 1, most, empty: hollow }), fc.boolean()).chain(([shape, keep]) =>
      someAxes(shape).chain(({ axes }) =>
        ofOne(
          drawn(shape),
          (x) => f(x, axes, keep),
          (x) => folded(x, axes).map((group) => expected(group, x.dtype)),
          { axes, keep },
        ),
      ),
    );
  return {
    valid: cases(60, (shape) => one(...types).chain((dtype) => valuesOf(shape, dtype, range)), empty),
    smooth: smooth && cases(8, smooth, false),
  };
}

const spread = (group: readonly number[], correction: number): number => {
  const mean = total(group) / group.length;
  return total(group.map((v) => (v - mean) ** 2)) / Math.max(0, group.length - correction);
};

/** Product modulo 2^32 in the type's range. */
const productOf = (group: readonly number[], dtype: DType): number =>
  dtype === 'f32'
    ? group.reduce((product, v) => product * v, 1)
    : Number(
        BigInt[dtype === 'i32' ? 'asIntN' : 'asUintN'](
          32,
          group.reduce((product, v) => product * BigInt(v), 1n),
        ),
      );

/** A movement: where each place of the result reads. */
function moved(
  drawn: fc.Arbitrary<{
    shape: Shape;
    f: (x: Tensor) => Tensor;
    to: Shape;
    from: (place: readonly number[]) => readonly number[];
    options?: unknown;
  }>,
): Composite {
  const cases = (dtypes: fc.Arbitrary<DType>) =>
    fc.tuple(drawn, dtypes).chain(([{ shape, f, to, from, options }, dtype]) =>
      ofOne(valuesOf(shape, dtype), f, (x) => tabulate(to, (place) => at(x, from(place))), {
        shape,
        ...(options as object),
      }),
    );
  return { valid: cases(typesBut()), smooth: cases(fc.constant('f32')) };
}

const anyAxis = (
  f: Axial,
  from: (place: readonly number[], axis: number, shape: Shape) => readonly number[],
  to = (shape: Shape, _axis: number): Shape => shape,
) =>
  moved(
    withAxis({ most: 24 }).map(({ shape, axis }) => ({
      shape,
      f: (x: Tensor) => f(x, axis),
      to: to(shape, axis),
      from: (place: readonly number[]) => from(place, axis, shape),
      options: { axis },
    })),
  );

/** [x, f] over matrices with leading axes. */
const matrices = fc
  .tuple(shapes({ maxRank: 1, most: 2 }), one(0, 1, 2, 3, 4), one(1, 2, 3, 0), one(-3, -1, 0, 1, 2, 5))
  .map(([lead, rows, columns, offset]) => ({ shape: [...lead, rows, columns], offset }));

const triangle = (f: (x: Tensor, offset: number) => Tensor, stays: (below: number) => boolean): Composite => {
  const cases = (dtype: fc.Arbitrary<DType>) =>
    fc.tuple(matrices, dtype).chain(([{ shape, offset }, type]) =>
      ofOne(
        valuesOf(shape, type),
        (x) => f(x, offset),
        (x) => tabulate(shape, (place) => (stays(place.at(-1)! - place.at(-2)! - offset) ? at(x, place) : 0)),
        { offset },
      ),
    );
  return { valid: cases(typesBut('bool')), smooth: cases(fc.constant('f32')) };
};

const diagonals = matrices.map(({ shape, offset }) => {
  const [rows, columns] = shape.slice(-2) as [number, number];
  const start: [number, number] = [Math.max(0, -offset), Math.max(0, offset)];
  const length = Math.max(0, Math.min(rows - start[0], columns - start[1]));
  return {
    shape,
    f: (x: Tensor) => api.diagonal(x, offset),
    to: [...shape.slice(0, -2), length],
    from: (place: readonly number[]) => [
      ...place.slice(0, -1),
      place.at(-1)! + start[0],
      place.at(-1)! + start[1],
    ],
    options: { offset },
  };
});

/** Equations with the shapes they take; '...' is spelled out in the second, which the sum runs over. */
const equations: readonly (readonly [equation: string, plain: string, ...shapes: Shape[]])[] = [
  ['ij,jk->ik', 'ij,jk->ik', [2, 3], [3, 2]],
  ['bij,bkj->bik', 'bij,bkj->bik', [2, 2, 3], [2, 1, 3]],
  ['bhqd,bhkd->bhqk', 'bhqd,bhkd->bhqk', [1, 2, 2, 3], [1, 2, 3, 3]],
  ['i,j->ji', 'i,j->ji', [2], [3]],
  ['ij->ji', 'ij->ji', [2, 3]],
  ['ij', 'ij->ij', [2, 3]],
  ['ba', 'ba->ab', [2, 3]],
  ['ii->i', 'ii->i', [3, 3]],
  ['ii', 'ii->', [3, 3]],
  ['iij,j->ij', 'iij,j->ij', [2, 2, 3], [3]],
  ['ij,ij->', 'ij,ij->', [2, 3], [2, 3]],
  ['ij,k->i', 'ij,k->i', [2, 3], [2]],
  ['ij,jk,kl->il', 'ij,jk,kl->il', [2, 2], [2, 3], [3, 2]],
  ['i,i,i->i', 'i,i,i->i', [3], [3], [3]],
  ['...ij,...jk->...ik', 'abij,bjk->abik', [2, 2, 1, 3], [2, 3, 2]],
  ['...i,...i', 'abi,bi->ab', [2, 3, 2], [1, 2]],
  ['i...->...', 'iab->ab', [2, 3, 2]],
  ['...i->i', 'abi->i', [2, 2, 3]],
  ['ij,jk->ik', 'ij,jk->ik', [2, 0], [0, 3]],
  [' i j , j -> i ', 'ij,j->i', [3, 2], [2]],
];

/** The sum over every letter that the result has not, one product at a time; extent 1 stretches. */
function einsumByLoops(plain: string, operands: readonly SampleTensor[]): number[] {
  const [left, output] = plain.split('->') as [string, string];
  const terms = left.split(',');
  const extents = new Map<string, number>();
  terms.forEach((term, i) => {
    [...term].forEach((letter, axis) => {
      const extent = operands[i]!.shape[axis]!;
      extents.set(letter, extent === 1 ? (extents.get(letter) ?? 1) : extent);
    });
  });
  const letters = [...extents.keys()];
  const shape = [...output].map((letter) => extents.get(letter)!);
  const out = new Map(indices(shape).map((index) => [index.join(), 0]));
  for (const assignment of indices([...extents.values()])) {
    const value = (letter: string): number => assignment[letters.indexOf(letter)]!;
    const product = operands.reduce(
      (partial, x, i) =>
        partial *
        at(
          x,
          [...terms[i]!].map((letter, axis) => Math.min(value(letter), x.shape[axis]! - 1)),
        ),
      1,
    );
    const place = [...output].map(value).join();
    out.set(place, out.get(place)! + product);
  }
  return [...out.values()];
}

const i32 = (values: api.Nested): Tensor => tensor(values, undefined, 'i32');
const [P, Q] = [
  [0, 2],
  [1, 3],
];
const table = [
  [0, -1],
  [2, 1],
];

/** x[parts] for x [3, 4, 5]: the result's shape and where it reads, from NumPy's rules by hand. */
const indexings: readonly (readonly [
  parts: readonly api.IndexPart[],
  to: Shape,
  from: (...place: number[]) => number[],
])[] = [
  [[], [3, 4, 5], (a, b, c) => [a!, b!, c!]],
  [[1], [4, 5], (b, c) => [1, b!, c!]],
  [[-1, '...', 2], [4], (b) => [2, b!, 2]],
  [[0, 1, 2], [], () => [0, 1, 2]],
  [[null, [null, null, -2], '...', null], [1, 2, 4, 5, 1], (_, a, b, c) => [2 - 2 * a!, b!, c!]],
  [['...', [3, 0, -2]], [3, 4, 2], (a, b, c) => [a!, b!, 3 - 2 * c!]],
  [['...', [-4, -1, 2]], [3, 4, 2], (a, b, c) => [a!, b!, 1 + 2 * c!]],
  [
    [
      [1, 99],
      [null, -9],
    ],
    [2, 0, 5],
    (a, b, c) => [1 + a!, b!, c!],
  ],
  [[i32([2, 0])], [2, 4, 5], (i, b, c) => [[2, 0][i!]!, b!, c!]],
  [[[null, null], i32(table)], [3, 2, 2, 5], (a, i, j, c) => [a!, (table[i!]![j!]! + 4) % 4, c!]],
  [[i32(P), i32(Q)], [2, 5], (i, c) => [P[i!]!, Q[i!]!, c!]],
  [[i32([[0], [2]]), i32(Q)], [2, 2, 5], (i, j, c) => [P[i!]!, Q[j!]!, c!]],
  [[i32(P), '...', i32(Q)], [2, 4], (i, b) => [P[i!]!, b!, Q[i!]!]],
  [[0, [null, null], i32(Q)], [2, 4], (i, b) => [0, b!, Q[i!]!]],
  [[[null, null], i32(P), null, i32(Q)], [2, 3, 1], (i, a) => [a!, P[i!]!, Q[i!]!]],
  [[[null, null], 1, i32(Q)], [3, 2], (a, i) => [a!, 1, Q[i!]!]],
  [[[null, null, -1], null, i32(Q), [1, 3]], [3, 1, 2, 2], (a, _, i, c) => [2 - a!, Q[i!]!, 1 + c!]],
];

const bit = (f: (x: Tensor) => Tensor, holds: (x: number) => boolean): Composite =>
  nowhere(
    shapes().chain((shape) => ofOne(withSpecials(shape), f, (x) => x.values.map((v) => Number(holds(v))))),
  );

const filled = (f: (shape: Shape, dtype: DType) => Tensor, value: number): Composite =>
  nowhere(
    fc
      .tuple(shapes(), typesBut())
      .map(([shape, dtype]) => made(() => f(shape, dtype), new Array<number>(numel(shape)).fill(value))),
  );
const filledLike = (f: (x: Tensor) => Tensor, value: number): Composite =>
  nowhere(
    fc
      .tuple(shapes(), typesBut())
      .chain(([shape, dtype]) => ofOne(valuesOf(shape, dtype), f, (x) => x.values.map(() => value))),
  );

const compared = (f: (a: Tensor, b: Tensor) => Tensor, holds: (a: number, b: number) => boolean): Composite =>
  nowhere(
    fc
      .tuple(shapes(), typesBut('bool'))
      .chain(([shape, dtype]) =>
        of(fc.tuple(valuesOf(shape, dtype), valuesOf(shape, dtype)), f as Case['f'], (a, b) =>
          a!.values.map((v, i) => Number(holds(v, b!.values[i]!))),
        ),
      ),
  );

const picking: Composite = (() => {
  const cases = (most: number, dtypes: fc.Arbitrary<DType>, outside: boolean) =>
    fc
      .tuple(withAxis({ most, maxRank: 3, empty: false }), dtypes, one(1, 2, 3, 0))
      .chain(([{ shape, axis }, dtype, count]) => {
        const extent = shape[axis]!;
        const range = { min: outside ? -1 : 0, max: outside ? extent : extent - 1 };
        const places = shape.with(axis, count);
        const index = fc
          .array(fc.integer(range), { minLength: numel(places), maxLength: numel(places) })
          .map((values): SampleTensor => ({ shape: places, dtype: 'i32', values }));
        return of(
          fc.tuple(valuesOf(shape, dtype), index),
          (x, k) => api.takeAlongAxis(x!, k!, axis),
          (x, k) =>
            tabulate(places, (place) => {
              const from = at(k!, place);
              if (from < 0 || from >= extent) return x!.dtype === 'f32' ? Number.NaN : 0;
              return at(x!, place.with(axis, from));
            }),
          { axis },
        );
      });
  return { valid: cases(60, typesBut(), true), smooth: cases(10, fc.constant('f32'), false) };
})();

const vectors = (
  f: (a: Tensor, b: Tensor) => Tensor,
  expected: (a: SampleTensor, b: SampleTensor) => number[],
  same: boolean,
) =>
  everywhere(
    fc
      .tuple(one<number>(1, 3, 0, 5), one<number>(1, 2, 4))
      .chain(([m, n]) =>
        of(fc.tuple(floats([m]), floats([same ? m : n])), f as Case['f'], (a, b) => expected(a!, b!)),
      ),
  );

export const arrayComposites = {
  all: fold(api.all, (group) => Number(group.every((v) => v !== 0)), ['bool'], null),
  any: fold(api.any, (group) => Number(group.some((v) => v !== 0)), ['bool'], null),
  arange: nowhere(
    fc
      .tuple(one(0, 1, 2, 7), one<DType>('f32', 'i32', 'u32'))
      .map(([n, dtype]) => made(() => api.arange(n, dtype), [...Array(n).keys()])),
  ),
  argmin: nowhere(
    withAxis({ empty: false }).chain(({ shape, axis }) =>
      typesBut('bool').chain((dtype) =>
        ofOne(
          valuesOf(shape, dtype),
          (x) => api.argmin(x, axis),
          (x) => folded(x, [axis]).map((group) => group.indexOf(Math.min(...group))),
          { axis },
        ),
      ),
    ),
  ),
  argsort: axial(
    (x, axis) => api.argsort(x, { axis }),
    (line) => inOrder(line, 1),
    { without: ['bool'], smooth: false, special: true },
  ),
  cumsum: axial(
    (x, axis) => api.cumsum(x, axis),
    (line, dtype) => line.map((_, i) => wrapped(dtype, total(line.slice(0, i + 1)))),
    { without: ['bool'] },
  ),
  diagonal: moved(diagonals),
  dot: vectors(api.dot, (a, b) => [total(a.values.map((v, i) => v * b.values[i]!))], true),
  einsum: everywhere(
    one(...equations).chain(([equation, plain, ...of_]) =>
      of(
        fc.tuple(...of_.map((shape) => floats(shape))),
        (...x) => api.einsum(equation, ...x),
        (...x) => einsumByLoops(plain, x),
        equation,
      ),
    ),
  ),
  eye: nowhere(
    fc.tuple(one(0, 1, 3), one(1, 2, 4), typesBut()).map(([rows, columns, dtype]) =>
      made(
        () => api.eye(rows, columns, dtype),
        tabulate([rows, columns], ([i, j]) => Number(i === j)),
      ),
    ),
  ),
  flip: anyAxis(api.flip, (place, axis, shape) => place.with(axis, shape[axis]! - 1 - place[axis]!)),
  greater: compared(api.greater, (a, b) => a > b),
  greaterEqual: compared(api.greaterEqual, (a, b) => a >= b),
  index: moved(
    one(...indexings).map(([parts, to, from]) => ({
      shape: [3, 4, 5],
      f: (x: Tensor) => api.index(x, ...parts),
      to,
      from: (place: readonly number[]) => from(...place),
      options: { to },
    })),
  ),
  isfinite: bit(api.isfinite, Number.isFinite),
  isinf: bit(api.isinf, (x) => Math.abs(x) === Number.POSITIVE_INFINITY),
  isnan: bit(api.isnan, Number.isNaN),
  linspace: nowhere(
    one<[number, number, number]>([0, 1, 5], [2, -2, 3], [7, 9, 1], [7, 9, 0]).map(([a, b, n]) =>
      made(
        () => api.linspace(a, b, n),
        Array.from({ length: n }, (_, i) => a + ((b - a) * i) / Math.max(1, n - 1)),
      ),
    ),
  ),
  logicalNot: nowhere(
    shapes().chain((shape) =>
      ofOne(valuesOf(shape, 'bool'), api.logicalNot, (x) => x.values.map((v) => 1 - v)),
    ),
  ),
  mean: fold(api.mean, (group) => total(group) / group.length, ['f32'], floats),
  min: fold(api.min, (group) => Math.min(...group), ['f32', 'i32', 'u32'], distinct, false),
  narrow: anyAxis(
    (x, axis) => api.narrow(x, axis, Math.min(1, x.shape[axis]!), Math.max(0, x.shape[axis]! - 1)),
    (place, axis) => place.with(axis, place[axis]! + 1),
    (shape, axis) => shape.with(axis, Math.max(0, shape[axis]! - 1)),
  ),
  norm: fold(api.norm, (group) => Math.sqrt(total(group.map((v) => v * v))), ['f32'], off),
  ones: filled(api.ones, 1),
  onesLike: filledLike(api.onesLike, 1),
  outer: vectors(api.outer, (a, b) => a.values.flatMap((v) => b.values.map((w) => v * w)), false),
  prod: fold(api.prod, productOf, ['f32', 'i32', 'u32'], floats, true, { low: -1, high: 1 }),
  repeat: anyAxis(
    (x, axis) => api.repeat(x, 3, axis),
    (place, axis) => place.with(axis, Math.floor(place[axis]! / 3)),
    (shape, axis) => shape.with(axis, shape[axis]! * 3),
  ),
  roll: anyAxis(
    (x, axis) => api.roll(x, axis - 1 - 7 * (axis % 2), axis),
    (place, axis, shape) => {
      const n = shape[axis]!;
      return place.with(axis, (((place[axis]! - (axis - 1 - 7 * (axis % 2))) % n) + n) % n);
    },
  ),
  sort: axial(
    (x, axis) => api.sort(x, { axis, descending: true }).values,
    (line) => inOrder(line, -1).map((i) => line[i]!),
    {
      without: ['bool'],
      special: true,
    },
  ),
  split: anyAxis(
    (x, axis) => api.split(x, Math.max(1, x.shape[axis]!), axis).at(-1)!,
    (place, axis, shape) => place.with(axis, shape[axis]! - 1),
    (shape, axis) => shape.with(axis, Math.min(1, shape[axis]!)),
  ),
  square: everywhere(
    shapes({ most: 12 }).chain((shape) =>
      ofOne(floats(shape), api.square, (x) => x.values.map((v) => v * v)),
    ),
  ),
  squeeze: anyAxis(
    (x, axis) => api.squeeze(api.unsqueeze(x, axis), axis),
    (place) => place,
  ),
  stack: everywhere(
    shapes({ maxRank: 2, most: 8 }).chain((shape) =>
      of(
        fc.tuple(floats(shape), floats(shape)),
        (a, b) => api.stack([a!, b!]),
        (a, b) => [...a!.values, ...b!.values],
      ),
    ),
  ),
  standardDeviation: fold(
    (x, axes, keep) => api.standardDeviation(x, axes, keep),
    (group) => Math.sqrt(spread(group, 0)),
    ['f32'],
    // The root has no derivative where a group has one element only.
    (shape) => distinct(shape.map(() => 2)),
  ),
  sumTo: everywhere(
    shapes({ most: 12 }).chain((shape) =>
      ofOne(
        floats(shape),
        (x) => api.sumTo(api.expand(x, [3, ...shape]), shape),
        (x) => x.values.map((v) => 3 * v),
      ),
    ),
  ),
  takeAlongAxis: picking,
  tile: anyAxis(
    (x, axis) => api.tile(x, [2, ...x.shape.map((_, i) => (i === axis ? 3 : 1))]),
    (place, axis, shape) => place.slice(1).with(axis, place[axis + 1]! % shape[axis]!),
    (shape, axis) => [2, ...shape.with(axis, shape[axis]! * 3)],
  ),
  topk: axial(
    (x, axis) => api.topk(x, Math.ceil(x.shape[axis]! / 2), axis).values,
    (line) =>
      inOrder(line, -1)
        .map((i) => line[i]!)
        .slice(0, Math.ceil(line.length / 2)),
    { without: ['bool'], special: true },
  ),
  trace: everywhere(
    matrices.chain(({ shape }) =>
      ofOne(floats(shape), api.trace, (x) =>
        tabulate(shape.slice(0, -2), (lead) =>
          total(
            Array.from({ length: Math.min(shape.at(-1)!, shape.at(-2)!) }, (_, i) => at(x, [...lead, i, i])),
          ),
        ),
      ),
    ),
  ),
  transpose: anyAxis(
    (x, axis) => api.transpose(x, axis, 0),
    (place, axis) => place.with(axis, place[0]!).with(0, place[axis]!),
    (shape, axis) => shape.with(axis, shape[0]!).with(0, shape[axis]!),
  ),
  tril: triangle(api.tril, (above) => above <= 0),
  triu: triangle(api.triu, (above) => above >= 0),
  truncate: nowhere(
    shapes().chain((shape) =>
      ofOne(floats(shape), api.truncate, (x) => x.values.map((v) => Math.trunc(v) + 0)),
    ),
  ),
  unsqueeze: anyAxis(
    (x, axis) => api.unsqueeze(x, axis),
    (place, axis) => place.toSpliced(axis, 1),
    (shape, axis) => shape.toSpliced(axis, 0, 1),
  ),
  variance: fold(
    (x, axes, keep) => api.variance(x, axes, keep, { correction: 1 / 2 }),
    (group) => spread(group, 1 / 2),
    ['f32'],
    floats,
  ),
  zeros: filled(api.zeros, 0),
  zerosLike: filledLike(api.zerosLike, 0),
} satisfies Readonly<Record<string, Composite>>;
