import { readdirSync } from 'node:fs';
import * as api from '@deftjs/tensor';
import { type DType, DTypeError, ShapeError, type Tensor } from '@deftjs/tensor';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { leaf, samplesOf } from '../../support/op-samples.ts';

const x = (...shape: number[]): Tensor => api.placeholder(shape, 'f32');
const of = (dtype: DType, ...shape: number[]): Tensor => api.placeholder(shape, dtype);
const key = [1, 2] as const;

type Refusal = readonly [call: () => unknown, error: new (message?: string) => Error, message: string];

type Unary = (x: Tensor) => unknown;
type Binary = (a: Tensor | number, b: Tensor | number) => unknown;

const notFloat = (name: string, f: Unary): Refusal[] =>
  (['i32', 'u32', 'bool'] as const).map((dtype) => [
    () => f(of(dtype, 2)),
    DTypeError,
    `${name}: expected float; got ${dtype}`,
  ]);
const noBools = (name: string, f: Unary): Refusal[] => [
  [() => f(of('bool', 2)), DTypeError, `${name}: expected numbers; got bool`],
];
const compared = (name: string, f: Binary): Refusal[] => [
  [() => f(x(2, 3), x(2)), ShapeError, `${name}: shapes do not broadcast; got [2, 3] and [2]`],
  [
    () => f(x(2), of('i32', 2)),
    DTypeError,
    `${name}: operands must have one dtype (use cast); got f32 and i32`,
  ],
  [() => f(of('i32', 2), 0.5), DTypeError, `${name}: i32 does not hold 0.5`],
  [() => f(1, 2), DTypeError, `${name}: at least one operand must be a tensor`],
];
const pairwise = (name: string, f: Binary): Refusal[] => [
  ...compared(name, f),
  [() => f(of('bool', 2), of('bool', 2)), DTypeError, `${name}: expected numbers; got bool`],
];
const bits = (name: string, f: Binary): Refusal[] => [
  [() => f(x(2), x(2)), DTypeError, `${name}: expected u32 or bool; got f32`],
  [() => f(of('i32', 2), of('i32', 2)), DTypeError, `${name}: expected u32 or bool; got i32`],
  [
    () => f(of('u32', 2), of('bool', 2)),
    DTypeError,
    `${name}: operands must have one dtype (use cast); got u32 and bool`,
  ],
  [
    () => f(of('u32', 2, 3), of('u32', 2)),
    ShapeError,
    `${name}: shapes do not broadcast; got [2, 3] and [2]`,
  ],
];
const shifts = (name: string, f: Binary): Refusal[] => [
  [() => f(of('u32', 2), -1), DTypeError, `${name}: u32 does not hold -1`],
  [() => f(x(2), 1), DTypeError, `${name}: expected u32; got f32`],
  [() => f(of('i32', 2), 1), DTypeError, `${name}: expected u32; got i32`],
  [() => f(of('bool', 2), of('bool', 2)), DTypeError, `${name}: expected u32; got bool`],
];
/** `inner` is the primitive that names itself. */
const axisOf = (inner: string, f: (x: Tensor, axis: number) => unknown): Refusal[] => [
  [() => f(x(2, 3), 2), ShapeError, `${inner}: axis out of range; expected [-2, 1]; got 2`],
  [() => f(x(2, 3), -3), ShapeError, `${inner}: axis out of range; expected [-2, 1]; got -3`],
  [() => f(x(2, 3), 0.5), ShapeError, `${inner}: axis out of range; expected [-2, 1]; got 0.5`],
];
const extents = 'extents must be whole numbers >= 0; got';

const pooled = (name: string, f: typeof api.averagePool): Refusal[] => [
  [() => f(x(4, 4)), ShapeError, `${name}: expected [N, C, H, W]; got [4, 4]`],
  [
    () => f(x(1, 1, 4, 4), 0),
    ShapeError,
    `${name}: kernel and stride must be whole numbers >= 1; got [0, 0] and [0, 0]`,
  ],
  [
    () => f(x(1, 1, 4, 4), 2, { padding: [0, 2] }),
    ShapeError,
    `${name}: the padding must be whole and at most half the kernel; got [0, 2] and [2, 2]`,
  ],
  [
    () => f(x(1, 1, 1, 4), [2, 1]),
    ShapeError,
    `${name}: the kernel is larger than the image; got [1, 1, 1, 4] and [2, 1]`,
  ],
];
const truth = (name: string, f: (x: Tensor, axes?: number) => unknown): Refusal[] => [
  [() => f(x(2)), DTypeError, `${name}: expected bool (compare first); got f32`],
  [() => f(of('u32', 2)), DTypeError, `${name}: expected bool (compare first); got u32`],
  [() => f(of('bool', 2), 1), ShapeError, 'sum: axis out of range; expected [-1, 0]; got 1'],
];
const ordered = (name: string, f: (x: Tensor, axis: number) => unknown): Refusal[] => [
  ...axisOf(name, f),
  [() => f(of('bool', 2), 0), DTypeError, `${name}: expected numbers; got bool`],
];
const onMatrices = (name: string, f: (x: Tensor, offset: number) => unknown): Refusal[] => [
  [() => f(x(3), 0), ShapeError, `${name}: expected at least two axes; got [3]`],
  [() => f(x(2, 3), 0.5), ShapeError, `${name}: the offset must be whole; got 0.5`],
];
const resized = (name: string, f: (x: Tensor, size: [number, number]) => unknown): Refusal[] => [
  [() => f(x(2, 2), [1, 1]), ShapeError, `${name}: expected [N, C, H, W]; got [2, 2]`],
  [
    () => f(x(1, 1, 2, 2), [0, 2]),
    ShapeError,
    `${name}: expected extents >= 1 before and after; got [1, 1, 2, 2] and [0, 2]`,
  ],
  [
    () => f(x(1, 1, 2, 2), [1, 1.5]),
    ShapeError,
    `${name}: expected extents >= 1 before and after; got [1, 1, 2, 2] and [1, 1.5]`,
  ],
  [
    () => f(x(1, 1, 0, 2), [2, 2]),
    ShapeError,
    `${name}: expected extents >= 1 before and after; got [1, 1, 0, 2] and [2, 2]`,
  ],
];
const overAxes = (inner: string, f: (x: Tensor, axes: number | number[]) => unknown): Refusal[] => [
  ...axisOf(inner, f),
  [() => f(x(2, 3), [0, -2]), ShapeError, `${inner}: an axis is named twice; got [0, -2]`],
];

/** What each function of the ops refuses; nothing for those of plain numbers. Composed ones may name the primitive that refuses. */
const refusals: Readonly<Record<string, readonly Refusal[]>> = {
  abs: noBools('abs', api.abs),
  add: pairwise('add', api.add),
  all: truth('all', api.all),
  and: bits('and', api.and),
  any: truth('any', api.any),
  arange: [
    [() => api.arange(-1), ShapeError, `arange: ${extents} [-1]`],
    [() => api.arange(2, 'bool'), DTypeError, 'iota: expected numbers; got bool'],
  ],
  argmax: [
    ...axisOf('argmax', api.argmax),
    [() => api.argmax(x(2, 0)), ShapeError, 'argmax: nothing to choose from along an empty axis; got [2, 0]'],
  ],
  argmin: [
    ...ordered('argmin', api.argmin),
    [() => api.argmin(x(0), 0), ShapeError, 'argmax: nothing to choose from along an empty axis; got [0]'],
  ],
  argsort: ordered('argsort', (y, axis) => api.argsort(y, { axis })),
  attention: [
    [
      () => api.attention(x(2, 4), x(1, 2, 4), x(1, 2, 4)),
      ShapeError,
      'attention: query, key and value must have equally many axes, at least two',
    ],
    [
      () => api.attention(x(2, 4), x(3, 5), x(3, 4)),
      ShapeError,
      'attention: expected [..., Lq, D], [..., Lk, D] and [..., Lk, E]; got [2, 4] and [3, 5] and [3, 4]',
    ],
    [
      () => api.attention(x(2, 4), x(3, 4), x(2, 4)),
      ShapeError,
      'attention: expected [..., Lq, D], [..., Lk, D] and [..., Lk, E]; got [2, 4] and [3, 4] and [2, 4]',
    ],
  ],
  averagePool: pooled('averagePool', api.averagePool),
  binaryCrossEntropy: [
    [
      () => api.binaryCrossEntropy(x(2), x(1)),
      ShapeError,
      'binaryCrossEntropy: prediction and target differ in shape; got [2] and [1]',
    ],
    [() => api.binaryCrossEntropy(of('i32', 2), 1), DTypeError, 'exp: expected float; got i32'],
  ],
  bits: notFloat('bits', api.bits),
  ceil: notFloat('ceil', api.ceil),
  clamp: [[() => api.clamp(x(2), 1, 0), RangeError, 'clamp: expected low <= high; got 1 and 0']],
  concat: [
    [() => api.concat([]), ShapeError, 'concat: expected at least one tensor'],
    [() => api.concat([x(2), x(2)], 1), ShapeError, 'concat: axis out of range; expected [-1, 0]; got 1'],
    [
      () => api.concat([x(2, 2), x(2)]),
      ShapeError,
      'concat: shapes differ outside axis 0; got [2, 2] and [2]',
    ],
  ],
  conv2d: [
    [
      () => api.conv2d(x(1, 2, 4, 4), x(3, 3, 1, 1)),
      ShapeError,
      'conv2d: channels do not fit 1 group(s); got [1, 2, 4, 4] and [3, 3, 1, 1]',
    ],
    [
      () => api.conv2d(x(1, 2, 4, 4), x(3, 2, 1, 1), x(1)),
      ShapeError,
      'conv2d: the bias must be [3]; got [1]',
    ],
    [
      () => api.conv2d(x(1, 2, 4, 4), x(3, 2, 1, 1), null, { padding: -1 }),
      ShapeError,
      'conv2d: stride, dilation and groups must be whole numbers >= 1, padding >= 0',
    ],
  ],
  convTranspose2d: [
    [
      () => api.convTranspose2d(x(1, 2, 4, 4), x(3, 2, 1, 1)),
      ShapeError,
      'convTranspose2d: channels differ; got [1, 2, 4, 4] and [3, 2, 1, 1]',
    ],
    [
      () => api.convTranspose2d(x(1, 2, 1, 1), x(2, 1, 1, 1), null, { padding: 1 }),
      ShapeError,
      'convTranspose2d: no pixels left; got [-1, -1]',
    ],
    [
      () => api.convTranspose2d(x(1, 2, 1, 1), x(2, 3, 1, 1), x(2)),
      ShapeError,
      'convTranspose2d: the bias must be [3]; got [2]',
    ],
    [
      () => api.convTranspose2d(x(2, 1, 1), x(2, 3, 1, 1)),
      ShapeError,
      'convTranspose2d: expected four axes (N, C, H, W) and (Co, Ci, KH, KW); got [2, 1, 1] and [2, 3, 1, 1]',
    ],
  ],
  cos: notFloat('cos', api.cos),
  crossEntropy: [
    [
      () => api.crossEntropy(x(2, 3), of('i32', 1)),
      ShapeError,
      'crossEntropy: expected logits [..., C] and labels [...]; got [2, 3] and [1]',
    ],
    [
      () => api.crossEntropy(x(), of('i32')),
      ShapeError,
      'crossEntropy: expected logits [..., C] and labels [...]; got [] and []',
    ],
    [() => api.crossEntropy(x(2, 3), x(2)), DTypeError, 'crossEntropy: labels must be i32; got f32'],
    [
      () => api.crossEntropy(x(2, 3), of('i32', 2), { labelSmoothing: 1 }),
      RangeError,
      'crossEntropy: labelSmoothing must be in [0, 1); got 1',
    ],
  ],
  cumsum: ordered('cumsum', api.cumsum),
  diagonal: onMatrices('diagonal', api.diagonal),
  div: pairwise('div', api.div),
  dot: [
    [() => api.dot(x(2), x(3)), ShapeError, 'dot: expected two vectors of one length; got [2] and [3]'],
    [() => api.dot(x(2, 2), x(2)), ShapeError, 'dot: expected two vectors of one length; got [2, 2] and [2]'],
    [
      () => api.dot(x(2), of('i32', 2)),
      DTypeError,
      'mul: operands must have one dtype (use cast); got f32 and i32',
    ],
  ],
  dropout: [
    [() => api.dropout(x(2), 1, key), RangeError, 'dropout: the probability must be in [0, 1); got 1'],
  ],
  einsum: [
    [() => api.einsum('ij'), ShapeError, 'einsum: expected one term for each of 0 operands; got "ij"'],
    [
      () => api.einsum('i,i->', x(2)),
      ShapeError,
      'einsum: expected one term for each of 1 operands; got "i,i->"',
    ],
    [() => api.einsum('ij', x(2)), ShapeError, 'einsum: "ij" names 2 axes; got [2] in "ij"'],
    [() => api.einsum('i', x(2, 3)), ShapeError, 'einsum: "i" names 1 axes; got [2, 3] in "i"'],
    [
      () => api.einsum('i,i->', x(2), x(3)),
      ShapeError,
      'einsum: "i" has two extents in "i,i->"; got [2] and [3]',
    ],
    [() => api.einsum('ii', x(2, 3)), ShapeError, 'einsum: "i" has two extents in "ii"; got [2, 3]'],
    [
      () => api.einsum('i->j', x(2)),
      ShapeError,
      'einsum: the result names "j", which must stand once in it and in a term; got "i->j"',
    ],
    [
      () => api.einsum('i->ii', x(2)),
      ShapeError,
      'einsum: the result names "i", which must stand once in it and in a term; got "i->ii"',
    ],
    [
      () => api.einsum('i1', x(2, 2)),
      ShapeError,
      'einsum: expected letters and at most one "..." in "i1"; got "i1"',
    ],
    [
      () => api.einsum('ij,jk', of('i32', 2, 2), of('i32', 2, 2)),
      DTypeError,
      'matmul: expected floats; got i32',
    ],
  ],
  equal: compared('equal', api.equal),
  erf: notFloat('erf', api.erf),
  exp: notFloat('exp', api.exp),
  expand: [
    [() => api.expand(x(2, 3), [2, 4]), ShapeError, 'expand: shapes do not broadcast; got [2, 3] and [2, 4]'],
  ],
  eye: [
    [() => api.eye(-1), ShapeError, `eye: ${extents} [-1, -1]`],
    [() => api.eye(2, 0.5), ShapeError, `eye: ${extents} [2, 0.5]`],
  ],
  flip: [[() => api.flip(x(2), 1), ShapeError, 'flip: axis out of range; expected [-1, 0]; got 1']],
  floor: notFloat('floor', api.floor),
  foldIn: [],
  full: [
    [() => api.full([1.5], 0), ShapeError, `full: ${extents} [1.5]`],
    [() => api.full([2], 0.5, 'i32'), DTypeError, 'full: i32 does not hold 0.5'],
    [() => api.full([2], Number.NaN, 'u32'), DTypeError, 'full: u32 does not hold NaN'],
    [() => api.full([2], 2, 'bool'), DTypeError, 'full: bool does not hold 2'],
  ],
  gather: [[() => api.gather(x(2), x(2)), DTypeError, 'gather: the index must be i32; got f32']],
  gelu: [[() => api.gelu(of('i32', 2)), DTypeError, 'mul: i32 does not hold 0.5']],
  geluTanh: [[() => api.geluTanh(of('bool', 2)), DTypeError, 'mul: bool does not hold 0.7978845608028654']],
  greater: [[() => api.greater(x(2), x(3)), ShapeError, 'less: shapes do not broadcast; got [3] and [2]']],
  greaterEqual: [
    [() => api.greaterEqual(x(2), x(3)), ShapeError, 'lessEqual: shapes do not broadcast; got [3] and [2]'],
  ],
  groupNorm: [
    [
      () => api.groupNorm(x(1, 4, 2), 3),
      ShapeError,
      'groupNorm: 4 channels do not divide into 3 groups; got [1, 4, 2]',
    ],
    [() => api.groupNorm(x(1, 4, 2), 2, x(2)), ShapeError, 'groupNorm: the weight must be [4]; got [2]'],
    [() => api.groupNorm(x(4), 2), ShapeError, 'groupNorm: expected at least two axes; got [4]'],
  ],
  huberLoss: [
    [
      () => api.huberLoss(x(2), x(1)),
      ShapeError,
      'huberLoss: prediction and target differ in shape; got [2] and [1]',
    ],
    [() => api.huberLoss(x(2), 0, 0), RangeError, 'huberLoss: delta must be > 0; got 0'],
  ],
  index: [
    [
      () => api.index(x(2, 3), 2),
      ShapeError,
      'index: position out of range; expected [-2, 1] along axis 0; got 2',
    ],
    [
      () => api.index(x(2), 0, 0),
      ShapeError,
      'index: expected at most one "..." and 1 parts that read an axis; got 0 and 2',
    ],
    [
      () => api.index(x(2), '...', '...'),
      ShapeError,
      'index: expected at most one "..." and 1 parts that read an axis; got 2 and 0',
    ],
    [
      () => api.index(x(2), [0, 1, 0]),
      ShapeError,
      'index: a range is of whole numbers, its step not 0; got [0, 1, 0]',
    ],
    [() => api.index(x(2), of('bool', 2)), DTypeError, 'index: positions must be i32; got bool'],
    [
      () => api.index(x(2, 2), of('i32', 2), of('i32', 3)),
      ShapeError,
      'index: shapes do not broadcast; got [2] and [3]',
    ],
  ],
  interpolateBilinear: resized('interpolateBilinear', api.interpolateBilinear),
  interpolateNearest: resized('interpolateNearest', api.interpolateNearest),
  iota: [
    [() => api.iota([2], 1), ShapeError, 'iota: axis out of range; expected [-1, 0]; got 1'],
    [() => api.iota([]), ShapeError, 'iota: axis out of range; a scalar has no axes; got -1'],
  ],
  isfinite: notFloat('bits', api.isfinite),
  isinf: notFloat('bits', api.isinf),
  isnan: notFloat('bits', api.isnan),
  keyOf: [[() => api.keyOf(-1), RangeError, 'keyOf: the seed must be a whole number in [0, 2^53); got -1']],
  layerNorm: [
    [() => api.layerNorm(x(2, 3), x(1)), ShapeError, 'layerNorm: the weight must be [3]; got [1]'],
    [() => api.layerNorm(x(2, 3), null, x(2, 3)), ShapeError, 'layerNorm: the bias must be [3]; got [2, 3]'],
    [() => api.layerNorm(x()), ShapeError, 'layerNorm: expected at least one axis; got []'],
  ],
  less: pairwise('less', api.less),
  lessEqual: pairwise('lessEqual', api.lessEqual),
  linear: [
    [
      () => api.linear(x(2, 3), x(4, 5)),
      ShapeError,
      'linear: expected x [..., in] and a weight [out, in]; got [2, 3] and [4, 5]',
    ],
    [
      () => api.linear(x(3), x(4, 3)),
      ShapeError,
      'linear: expected x [..., in] and a weight [out, in]; got [3] and [4, 3]',
    ],
    [() => api.linear(x(2, 3), x(4, 3), x(1)), ShapeError, 'linear: the bias must be [4]; got [1]'],
  ],
  linspace: [
    [() => api.linspace(0, 1, -1), ShapeError, `linspace: ${extents} [-1]`],
    [() => api.linspace(0, 1, 2, 'i32'), DTypeError, 'linspace: expected float; got i32'],
  ],
  log: notFloat('log', api.log),
  logSoftmax: axisOf('max', api.logSoftmax),
  logSumExp: axisOf('max', api.logSumExp),
  logicalNot: [[() => api.logicalNot(x(2)), DTypeError, 'not: expected bool; got f32']],
  matmul: [
    [
      () => api.matmul(x(2, 3), x(2, 3)),
      ShapeError,
      'matmul: inner extents must be equal; got [2, 3] and [2, 3]',
    ],
    [
      () => api.matmul(x(5, 2, 3), x(4, 3)),
      ShapeError,
      'matmul: inner extents must be equal; got [5, 2, 3] and [5, 4, 3]',
    ],
    [() => api.matmul(x(3), x(3, 2)), ShapeError, 'matmul: expected at least two axes; got [3] and [3, 2]'],
    [
      () => api.matmul(x(2, 1, 3), x(3, 3, 2)),
      ShapeError,
      'matmul: shapes do not broadcast; got [2] and [3]',
    ],
    [() => api.matmul(of('i32', 2, 2), of('i32', 2, 2)), DTypeError, 'matmul: expected floats; got i32'],
  ],
  max: [
    ...axisOf('max', api.max),
    [() => api.max(x(2, 3), [0, -2]), ShapeError, 'max: an axis is named twice; got [0, -2]'],
  ],
  maxPool: pooled('maxPool', api.maxPool),
  maximum: pairwise('maximum', api.maximum),
  mean: [
    ...axisOf('mean', api.mean),
    [() => api.mean(of('i32', 2)), DTypeError, 'mean: expected float; got i32'],
  ],
  meanAbsoluteError: [
    [
      () => api.meanAbsoluteError(x(2, 1), x(2)),
      ShapeError,
      'meanAbsoluteError: prediction and target differ in shape; got [2, 1] and [2]',
    ],
  ],
  meanSquaredError: [
    [
      () => api.meanSquaredError(x(2, 1), x(2)),
      ShapeError,
      'meanSquaredError: prediction and target differ in shape; got [2, 1] and [2]',
    ],
  ],
  min: axisOf('max', api.min),
  minimum: pairwise('minimum', api.minimum),
  mod: pairwise('mod', api.mod),
  mul: pairwise('mul', api.mul),
  narrow: [
    [() => api.narrow(x(2, 3), 1, 2, 2), ShapeError, 'narrow: [2, 4) reaches past axis 1 of [2, 3]'],
    [() => api.narrow(x(3), 0, 0.5, 1), ShapeError, 'narrow: expected whole numbers; got [0.5, 1]'],
  ],
  neg: noBools('neg', api.neg),
  norm: [
    ...overAxes('sum', api.norm),
    [() => api.norm(of('i32', 2)), DTypeError, 'sqrt: expected float; got i32'],
    [() => api.norm(of('bool', 2)), DTypeError, 'mul: expected numbers; got bool'],
  ],
  normalNumbers: [],
  notEqual: compared('notEqual', api.notEqual),
  oneHot: [
    [() => api.oneHot(of('i32', 2), -1), ShapeError, `oneHot: ${extents} [2, -1]`],
    [() => api.oneHot(of('bool', 2), 2), DTypeError, 'oneHot: expected numbers; got bool'],
  ],
  ones: [[() => api.ones([-1]), ShapeError, `full: ${extents} [-1]`]],
  or: bits('or', api.or),
  outer: [
    [() => api.outer(x(2), x(2, 2)), ShapeError, 'outer: expected two vectors; got [2] and [2, 2]'],
    [
      () => api.outer(x(2), of('i32', 2)),
      DTypeError,
      'mul: operands must have one dtype (use cast); got f32 and i32',
    ],
  ],
  pad: [
    [() => api.pad(x(2), [[0, -1]]), ShapeError, 'pad: expected [before, after] >= 0 for each of 1 axes'],
    [() => api.pad(x(2), []), ShapeError, 'pad: expected [before, after] >= 0 for each of 1 axes'],
    [() => api.pad(x(2), [[0.5, 0.5]]), ShapeError, 'pad: expected whole numbers; got [0.5, 0.5]'],
  ],
  permute: [
    [() => api.permute(x(2, 3), [0]), ShapeError, 'permute: expected each of 2 axes once; got [0]'],
    [() => api.permute(x(2, 3), [0, -2]), ShapeError, 'permute: expected each of 2 axes once; got [0, -2]'],
  ],
  pixelShuffle: [
    [
      () => api.pixelShuffle(x(1, 3, 2, 2), 2),
      ShapeError,
      'pixelShuffle: 3 channels do not divide by 4; got [1, 3, 2, 2]',
    ],
    [
      () => api.pixelShuffle(x(1, 9, 2, 2), 1.5),
      ShapeError,
      'pixelShuffle: the factor must be a whole number >= 1; got 1.5',
    ],
  ],
  pixelUnshuffle: [
    [
      () => api.pixelUnshuffle(x(1, 3, 3, 2), 2),
      ShapeError,
      'pixelUnshuffle: expected [N, C, H, W] that divides by 2; got [1, 3, 3, 2]',
    ],
  ],
  pow: [[() => api.pow(of('i32', 2), 2), DTypeError, 'pow: expected float; got i32']],
  prod: [
    ...overAxes('prod', api.prod),
    [() => api.prod(of('bool', 2)), DTypeError, 'prod: expected numbers; got bool'],
  ],
  quickGelu: [[() => api.quickGelu(of('i32', 2)), DTypeError, 'mul: i32 does not hold 1.702']],
  randomBernoulli: [
    [
      () => api.randomBernoulli(key, [2], 1.5),
      RangeError,
      'randomBernoulli: the probability must be in [0, 1]; got 1.5',
    ],
  ],
  randomBits: [
    [() => api.randomBits(key, [-1]), ShapeError, `randomBits: ${extents} [-1]`],
    [
      () => api.randomBits(of('u32', 3), [2]),
      DTypeError,
      'randomBits: a key tensor must be u32 [2]; got u32 [3]',
    ],
  ],
  randomInteger: [
    [
      () => api.randomInteger(key, [2], 1, 1),
      RangeError,
      'randomInteger: expected whole numbers low < high of i32; got 1 and 1',
    ],
    [
      () => api.randomInteger(key, [2], 0, 2.5),
      RangeError,
      'randomInteger: expected whole numbers low < high of i32; got 0 and 2.5',
    ],
    [
      () => api.randomInteger(key, [2], 0, 2 ** 33),
      RangeError,
      'randomInteger: expected whole numbers low < high of i32; got 0 and 8589934592',
    ],
    [() => api.randomInteger(key, [-1], 0, 2), ShapeError, `randomBits: ${extents} [-1]`],
  ],
  randomNormal: [
    [() => api.randomNormal(key, [0.5]), ShapeError, `randomNormal: ${extents} [0.5]`],
    [() => api.randomNormal(key, [2], 'i32'), DTypeError, 'randomNormal: expected float; got i32'],
  ],
  randomPermutation: [
    [() => api.randomPermutation(key, -1), ShapeError, `randomPermutation: ${extents} [-1]`],
    [() => api.randomPermutation(key, 1.5), ShapeError, `randomPermutation: ${extents} [1.5]`],
  ],
  randomTruncatedNormal: [
    [() => api.randomTruncatedNormal(key, [-1]), ShapeError, `randomTruncatedNormal: ${extents} [-1]`],
    [
      () => api.randomTruncatedNormal(key, [1], {}, 'i32'),
      DTypeError,
      'randomTruncatedNormal: expected float; got i32',
    ],
    [
      () => api.randomTruncatedNormal(key, [1], { low: 2, high: 2 }),
      RangeError,
      'randomTruncatedNormal: [2, 2] must hold at least 0.01 of the normal distribution; it holds 0',
    ],
  ],
  randomUniform: [[() => api.randomUniform(key, [-1]), ShapeError, `randomBits: ${extents} [-1]`]],
  reciprocal: notFloat('reciprocal', api.reciprocal),
  relu: [[() => api.relu(of('bool', 2)), DTypeError, 'less: expected numbers; got bool']],
  reshape: [
    [
      () => api.reshape(x(2, 3), [4]),
      ShapeError,
      'reshape: the number of elements changes; got [2, 3] and [4]',
    ],
    [
      () => api.reshape(x(2, 3), [-1, 4]),
      ShapeError,
      'reshape: -1 has no whole value; got [2, 3] and [-1, 4]',
    ],
    [() => api.reshape(x(6), [-1, -1]), ShapeError, `reshape: ${extents} [-6, -1]`],
  ],
  repeat: [
    ...axisOf('repeat', (y, axis) => api.repeat(y, 2, axis)),
    [() => api.repeat(x(2), -1), ShapeError, 'repeat: counts must be whole numbers >= 0; got [-1]'],
  ],
  rmsNorm: [[() => api.rmsNorm(x(2, 3), x(2)), ShapeError, 'rmsNorm: the weight must be [3]; got [2]']],
  roll: [
    ...axisOf('roll', (y, axis) => api.roll(y, 1, axis)),
    [() => api.roll(x(2), 0.5), ShapeError, 'roll: the shift must be whole; got 0.5'],
  ],
  rope: [
    [
      () => api.rope(x(2, 3), { cos: x(2, 1), sin: x(2, 1) }, { pairs: 'halves' }),
      ShapeError,
      'rope: expected an even number of channels [..., D]; got [2, 3]',
    ],
    [
      () => api.rope(x(2, 4), { cos: x(2, 4), sin: x(2, 4) }, { pairs: 'halves' }),
      ShapeError,
      'rope: cos and sin must broadcast to [2, 2]; got [2, 4] and [2, 4]',
    ],
    [
      () => api.rope(x(2, 4), { cos: x(2, 2), sin: x(1, 2) }, { pairs: 'halves' }),
      ShapeError,
      'rope: cos and sin must broadcast to [2, 2]; got [2, 2] and [1, 2]',
    ],
    [
      () => api.rope(of('f16', 2, 4), { cos: x(2, 2), sin: x(2, 2) }, { pairs: 'interleaved' }),
      DTypeError,
      'mul: operands must have one dtype (use cast); got f16 and f32',
    ],
  ],
  rotaryTable: [
    [() => api.rotaryTable([0], 3), ShapeError, 'rotaryTable: the width must be even; got 3'],
    [() => api.rotaryTable([0], -2), ShapeError, `rotaryTable: ${extents} [-2]`],
    [() => api.rotaryTable([0], 2, 0), RangeError, 'rotaryTable: the base must be > 0; got 0'],
  ],
  round: notFloat('round', api.round),
  rsqrt: notFloat('rsqrt', api.rsqrt),
  scatterAdd: [
    [
      () => api.scatterAdd(x(2), of('i32', 2), -1),
      ShapeError,
      'scatterAdd: the extent must be a whole number >= 0; got [-1]',
    ],
    [
      () => api.scatterAdd(x(2), of('i32', 3), 1),
      ShapeError,
      'scatterAdd: expected one index for each of 2 places; got [2] and [3]',
    ],
  ],
  shiftLeft: shifts('shiftLeft', api.shiftLeft),
  shiftRight: shifts('shiftRight', api.shiftRight),
  sigmoid: [[() => api.sigmoid(of('i32', 2)), DTypeError, 'exp: expected float; got i32']],
  sign: noBools('sign', api.sign),
  silu: [[() => api.silu(of('i32', 2)), DTypeError, 'exp: expected float; got i32']],
  sin: notFloat('sin', api.sin),
  slice: [
    [
      () => api.slice(x(3), [0], [2], [0]),
      ShapeError,
      'slice: expected a start, a stop and a step >= 1 for each of 1 axes',
    ],
    [
      () => api.slice(x(3), [0, 0], [2]),
      ShapeError,
      'slice: expected a start, a stop and a step >= 1 for each of 1 axes',
    ],
    [() => api.slice(x(3), [0.5], [2]), ShapeError, 'slice: expected whole numbers; got [0.5, 2, 1]'],
  ],
  softmax: [
    ...axisOf('max', api.softmax),
    [() => api.softmax(of('i32', 2)), DTypeError, 'exp: expected float; got i32'],
  ],
  sort: ordered('sort', (y, axis) => api.sort(y, { axis })),
  softplus: [[() => api.softplus(of('i32', 2)), DTypeError, 'exp: expected float; got i32']],
  split: [
    [() => api.split(x(5), 2), ShapeError, 'split: axis 0 of [5] does not divide into 2'],
    [() => api.split(x(5), -1), ShapeError, 'split: axis 0 of [5] does not divide into -1'],
  ],
  sqrt: notFloat('sqrt', api.sqrt),
  square: [[() => api.square(of('bool', 2)), DTypeError, 'mul: expected numbers; got bool']],
  squeeze: [[() => api.squeeze(x(2, 1), 0), ShapeError, 'squeeze: axis 0 has extent 2, expected 1']],
  stack: [
    [
      () => api.stack([x(2), x(3)]),
      ShapeError,
      'concat: shapes differ outside axis 0; got [1, 2] and [1, 3]',
    ],
  ],
  standardDeviation: overAxes('variance', api.standardDeviation),
  standardize: [
    [() => api.standardize(x(2), 1, 1e-5), ShapeError, 'mean: axis out of range; expected [-1, 0]; got 1'],
  ],
  sub: pairwise('sub', api.sub),
  sum: [
    ...axisOf('sum', api.sum),
    [() => api.sum(of('bool', 2)), DTypeError, 'sum: expected numbers; got bool'],
  ],
  sumTo: [
    [() => api.sumTo(x(2, 3), [4]), ShapeError, 'sumTo: shapes do not broadcast; got [4] and [2, 3]'],
    [
      () => api.sumTo(x(1), [3]),
      ShapeError,
      'sumTo: the shape does not stretch to the other; got [3] and [1]',
    ],
  ],
  takeAlongAxis: [
    ...axisOf('takeAlongAxis', (y, axis) => api.takeAlongAxis(y, of('i32', 2, 3), axis)),
    [() => api.takeAlongAxis(x(2), x(2)), DTypeError, 'takeAlongAxis: the index must be i32; got f32'],
    [
      () => api.takeAlongAxis(x(2, 3), of('i32', 2)),
      ShapeError,
      'takeAlongAxis: shapes differ outside axis 1; got [2, 3] and [2]',
    ],
    [
      () => api.takeAlongAxis(x(2, 3), of('i32', 1, 3)),
      ShapeError,
      'takeAlongAxis: shapes differ outside axis 1; got [2, 3] and [1, 3]',
    ],
  ],
  tanh: notFloat('tanh', api.tanh),
  threefryNumbers: [],
  threefry: [[() => api.threefry(1, 2, of('i32', 2)), DTypeError, 'threefry: keys and counter must be u32']],
  tile: [
    [() => api.tile(x(2), [-1]), ShapeError, 'tile: counts must be whole numbers >= 0; got [-1]'],
    [() => api.tile(x(2), [0.5]), ShapeError, 'tile: counts must be whole numbers >= 0; got [0.5]'],
  ],
  topk: [
    ...ordered('topk', (y, axis) => api.topk(y, 1, axis)),
    [() => api.topk(x(2), 3), ShapeError, 'topk: expected a count in [0, 2]; got [3]'],
    [() => api.topk(x(2), 0.5), ShapeError, 'topk: expected a count in [0, 2]; got [0.5]'],
  ],
  trace: onMatrices('trace', api.trace).slice(0, 1),
  transpose: [
    [() => api.transpose(x(2)), ShapeError, 'transpose: axis out of range; expected [-1, 0]; got -2'],
  ],
  tril: onMatrices('tril', api.tril),
  triu: onMatrices('triu', api.triu),
  truncate: [[() => api.truncate(of('i32', 2)), DTypeError, 'floor: expected float; got i32']],
  unfold: [
    ...axisOf('unfold', (y, axis) => api.unfold(y, axis, 1)),
    [
      () => api.unfold(x(2), 0, 0),
      ShapeError,
      'unfold: size, step and dilation must be whole numbers >= 1; got [0, 1, 1]',
    ],
    [
      () => api.unfold(x(2, 3), 1, 2, { dilation: 3 }),
      ShapeError,
      'unfold: a window of 4 is longer than axis 1 of [2, 3]',
    ],
    [
      () => api.unfold(x(2), 0, 1, { step: 0.5 }),
      ShapeError,
      'unfold: size, step and dilation must be whole numbers >= 1; got [1, 0.5, 1]',
    ],
  ],
  unsqueeze: [
    [() => api.unsqueeze(x(2), 2), ShapeError, 'unsqueeze: axis out of range; expected [-2, 1]; got 2'],
  ],
  upsampleNearest: [
    [() => api.upsampleNearest(x(2, 2)), ShapeError, 'upsampleNearest: expected [N, C, H, W]; got [2, 2]'],
    [
      () => api.upsampleNearest(x(1, 1, 2, 2), 0),
      ShapeError,
      'upsampleNearest: the factor must be a whole number >= 1; got 0',
    ],
  ],
  variance: [
    ...overAxes('variance', api.variance),
    [() => api.variance(of('i32', 2)), DTypeError, 'mean: expected float; got i32'],
  ],
  where: [
    [() => api.where(x(2), x(2), x(2)), DTypeError, 'where: the condition must be bool; got f32'],
    [
      () => api.where(of('bool', 2), x(2), x(3)),
      ShapeError,
      'where: shapes do not broadcast; got [2] and [2] and [3]',
    ],
    [() => api.where(of('bool', 2), of('i32', 2), 0.5), DTypeError, 'where: i32 does not hold 0.5'],
    [
      () => api.where(of('bool', 2), of('i32', 2), x(2)),
      DTypeError,
      'where: operands must have one dtype (use cast); got i32 and f32',
    ],
  ],
  xor: bits('xor', api.xor),
  zeros: [
    [
      () => api.zeros([2 ** 30, 2 ** 30]),
      ShapeError,
      'full: more elements than 2^53; got [1073741824, 1073741824]',
    ],
  ],
};

/** Functions that take every tensor. */
const takeAnything = ['after', 'alias', 'cast', 'onesLike', 'stopGradient', 'zerosLike'];

const opsFolder = new URL('../../../packages/tensor/src/ops/', import.meta.url);

describe('functions of tensors', () => {
  it('are all listed here', async () => {
    const modules = await Promise.all(
      readdirSync(opsFolder).map((file) => import(new URL(file, opsFolder).href) as Promise<object>),
    );
    const inOps = new Set(modules.flatMap((module) => Object.values(module)));
    const exported = Object.entries(api).filter(
      ([, value]) => typeof value === 'function' && inOps.has(value),
    );
    expect(Object.keys(refusals).concat(takeAnything).sort()).toEqual(exported.map(([name]) => name).sort());
  });

  it.each(Object.entries(refusals).filter(([, calls]) => calls.length > 0))(
    '%s refuses, saying what is wrong',
    (_name, calls) => {
      for (const [call, error, message] of calls) {
        let thrown: unknown = null;
        try {
          call();
        } catch (caught) {
          thrown = caught;
        }
        expect(thrown, message).toBeInstanceOf(error);
        expect((thrown as Error).message).toBe(message);
      }
    },
  );

  it.each(api.ops.map((op) => [op.name, op] as const))(
    '%s refuses a tensor that was disposed',
    (name, op) => {
      const { inputs, attrs } = fc.sample(samplesOf(op).valid, { numRuns: 1, seed: 1 })[0]!;
      inputs.forEach((_, i) => {
        const leaves = inputs.map(leaf);
        leaves[i]!.dispose();
        const shape = `[${leaves[i]!.shape.join(', ')}]`;
        expect(() => api.apply(op, leaves, attrs as never)).toThrow(
          new api.DisposedError(`${name}: a tensor of shape ${shape} cannot be used: it was disposed`),
        );
      });
    },
  );
});
