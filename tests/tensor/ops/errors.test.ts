import { readdirSync } from 'node:fs';
import * as api from '@deftjs/tensor';
import { type DType, DTypeError, type Shape, ShapeError, type Tensor } from '@deftjs/tensor';
import { describe, expect, it } from 'vitest';

const x = (...shape: number[]): Tensor => api.placeholder(shape, 'f32');
const of = (dtype: DType, ...shape: number[]): Tensor => api.placeholder(shape, dtype);
const key = [1, 2] as const;

type Refusal = readonly [call: () => unknown, error: new (message?: string) => Error, message: string];

type Unary = (x: Tensor) => unknown;
type Binary = (a: Tensor | number, b: Tensor | number) => unknown;

const notFloat = (name: string, f: Unary): Refusal[] => [
  [() => f(of('i32', 2)), DTypeError, `${name}: expected float; got i32`],
];
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
];
const shifts = (name: string, f: Binary): Refusal[] => [
  [() => f(of('u32', 2), -1), DTypeError, `${name}: u32 does not hold -1`],
  [() => f(of('bool', 2), of('bool', 2)), DTypeError, `${name}: expected u32; got bool`],
];
/** `inner` is the primitive that names itself. */
const axisOf = (inner: string, f: (x: Tensor, axis: number) => unknown): Refusal[] => [
  [() => f(x(2, 3), 2), ShapeError, `${inner}: axis out of range; expected [-2, 1]; got 2`],
];
const extents = 'extents must be whole numbers >= 0; got';

/** What each function of the ops refuses; nothing for those of plain numbers. Composed ones may name the primitive that refuses. */
const refusals: Readonly<Record<string, readonly Refusal[]>> = {
  abs: noBools('abs', api.abs),
  add: pairwise('add', api.add),
  and: bits('and', api.and),
  arange: [
    [() => api.arange(-1), ShapeError, `arange: ${extents} [-1]`],
    [() => api.arange(2, 'bool'), DTypeError, 'iota: expected numbers; got bool'],
  ],
  argmax: [
    ...axisOf('argmax', api.argmax),
    [() => api.argmax(x(2, 0)), ShapeError, 'argmax: nothing to choose from along an empty axis; got [2, 0]'],
  ],
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
  averagePool: [
    [
      () => api.averagePool(x(1, 1, 3, 4)),
      ShapeError,
      'averagePool: expected [N, C, H, W] that divides by 2; got [1, 1, 3, 4]',
    ],
    [() => api.averagePool(x(4, 4)), ShapeError, 'averagePool: expected [N, C, H, W]; got [4, 4]'],
  ],
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
  ],
  div: pairwise('div', api.div),
  dropout: [
    [() => api.dropout(x(2), 1, key), RangeError, 'dropout: the probability must be in [0, 1); got 1'],
  ],
  equal: compared('equal', api.equal),
  erf: notFloat('erf', api.erf),
  exp: notFloat('exp', api.exp),
  expand: [
    [() => api.expand(x(2, 3), [2, 4]), ShapeError, 'expand: shapes do not broadcast; got [2, 3] and [2, 4]'],
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
  iota: [
    [() => api.iota([2], 1), ShapeError, 'iota: axis out of range; expected [-1, 0]; got 1'],
    [() => api.iota([]), ShapeError, 'iota: axis out of range; a scalar has no axes; got -1'],
  ],
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
  maximum: pairwise('maximum', api.maximum),
  mean: [
    ...axisOf('mean', api.mean),
    [() => api.mean(of('i32', 2)), DTypeError, 'mean: expected float; got i32'],
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
  normalNumbers: [],
  notEqual: compared('notEqual', api.notEqual),
  oneHot: [
    [() => api.oneHot(of('i32', 2), -1), ShapeError, `oneHot: ${extents} [2, -1]`],
    [() => api.oneHot(of('bool', 2), 2), DTypeError, 'oneHot: expected numbers; got bool'],
  ],
  ones: [[() => api.ones([-1]), ShapeError, `full: ${extents} [-1]`]],
  or: bits('or', api.or),
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
  randomNormal: [
    [() => api.randomNormal(key, [0.5]), ShapeError, `randomNormal: ${extents} [0.5]`],
    [() => api.randomNormal(key, [2], 'i32'), DTypeError, 'randomNormal: expected float; got i32'],
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
  rmsNorm: [[() => api.rmsNorm(x(2, 3), x(2)), ShapeError, 'rmsNorm: the weight must be [3]; got [2]']],
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
  sigmoid: [[() => api.sigmoid(of('i32', 2)), DTypeError, 'mul: i32 does not hold 0.5']],
  sign: noBools('sign', api.sign),
  silu: [[() => api.silu(of('i32', 2)), DTypeError, 'mul: i32 does not hold 0.5']],
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
  tanh: notFloat('tanh', api.tanh),
  threefryNumbers: [],
  threefry: [[() => api.threefry(1, 2, of('i32', 2)), DTypeError, 'threefry: keys and counter must be u32']],
  transpose: [
    [() => api.transpose(x(2)), ShapeError, 'transpose: axis out of range; expected [-1, 0]; got -2'],
  ],
  truncate: [[() => api.truncate(of('i32', 2)), DTypeError, 'floor: expected float; got i32']],
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
const takeAnything = ['alias', 'cast', 'onesLike', 'stopGradient', 'zerosLike'];

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

  it('refuse a tensor that was disposed', () => {
    const gone = api.tensor([1, 2]);
    gone.dispose();
    const shape: Shape = [2];
    expect(() => api.neg(gone)).toThrow(api.DisposedError);
    expect(() => api.neg(gone)).toThrow(`neg: a tensor of shape [${shape}] cannot be used: it was disposed`);
  });
});
