import { customVjp, vjp } from '@deftjs/autograd';
import { GradcheckError, gradcheck } from '@deftjs/autograd/gradcheck';
import { orthonormalBasis } from '@deftjs/autograd/linalg';
import {
  add,
  attention,
  cast,
  conv2d,
  div,
  exp,
  flip,
  gelu,
  geluTanh,
  iota,
  keyOf,
  layerNorm,
  linear,
  matmul,
  max,
  mean,
  meanSquaredError,
  mul,
  narrow,
  normalNumbers,
  notEqual,
  numel,
  pad,
  rsqrt,
  type Shape,
  sigmoid,
  silu,
  slice,
  softmax,
  square,
  stopGradient,
  sub,
  sum,
  type Tensor,
  tensor,
  transpose,
} from '@deftjs/tensor';
import { describe, expect, it } from 'vitest';

/**
 * Wrong gradients that training survives, so that only a check finds them. Each is a function and another one whose
 * pullback is taken for its own, or an op whose rule is wrong while the check runs.
 */
interface Fault {
  readonly name: string;
  readonly inputs: readonly Tensor[];
  readonly f: (...x: readonly Tensor[]) => Tensor;
  /** f with the fault in its pullback. */
  readonly wrong: (...x: readonly Tensor[]) => Tensor;
}

/** f, with the pullback of g. */
function planted(f: Fault['f'], g: Fault['f']): Fault['f'] {
  return customVjp(f, (dy, _y, ...x) => vjp<readonly Tensor[], Tensor>(g, ...x).pullback(dy));
}

/** f, with `change` applied to the cotangents that its own pullback gives. */
function damaged(f: Fault['f'], change: (dx: Tensor, i: number) => Tensor): Fault['f'] {
  return customVjp(f, (dy, _y, ...x) =>
    vjp<readonly Tensor[], Tensor>(f, ...x)
      .pullback(dy)
      .map(change),
  );
}

/** Standard normal numbers in float64, scaled. */
function normal(seed: number, shape: Shape, scale = 1): Tensor {
  return tensor(
    normalNumbers(keyOf(seed), numel(shape)).map((value) => value * scale),
    shape,
  );
}

/** Zeros in place of the last `count` elements of a vector. */
const cutTail = (dx: Tensor, count: number): Tensor => pad(narrow(dx, 0, 0, dx.size - count), [[0, count]]);

const halfSquare = (x: Tensor): Tensor => mul(square(x), 0.5);
const meanOf = (d: Tensor, count: number): Tensor => div(sum(square(d)), count);

/** Layer normalisation that takes a part of itself as constant, or divides the squares by another count. */
const norm =
  (constants: readonly ('mean' | 'variance')[], eps = 1e-5, degrees = 0) =>
  (x: Tensor): Tensor => {
    const held = (name: 'mean' | 'variance', y: Tensor): Tensor =>
      constants.includes(name) ? stopGradient(y) : y;
    const centred = sub(x, held('mean', mean(x, -1, true)));
    const variance = div(sum(square(centred), -1, true), x.shape.at(-1)! - degrees);
    return mul(centred, rsqrt(add(held('variance', variance), eps)));
  };

const silently = {
  /** silu'(x) = s + x s (1 - s), without its second term. */
  silu: (x: Tensor): Tensor => mul(x, stopGradient(sigmoid(x))),
  softmax: (x: Tensor): Tensor => {
    const e = exp(sub(x, stopGradient(max(x, -1, true))));
    return div(e, stopGradient(sum(e, -1, true)));
  },
};

const scores = (scale: number) => (q: Tensor, k: Tensor, v: Tensor) => attention(q, k, v, { scale });

/** PaRa: the weight without what lies in the span of P's columns. */
const para =
  (left: (P: Tensor) => Tensor, right: (P: Tensor) => Tensor) =>
  (W: Tensor, P: Tensor): Tensor =>
    sub(W, matmul(left(P), matmul(transpose(right(P)), W)));

const fixed = (P: Tensor): Tensor => stopGradient(orthonormalBasis(P));
const paraInputs = [normal(11, [6, 4]), normal(12, [6, 2])];
const rowsAt = (scale: number): Tensor[] => [normal(1, [8, 32], scale)];
const long = 65_536;
const [x3, w3] = [normal(2, [1, 2, 5, 4]), normal(3, [3, 2, 3, 3])];
const conv = (x: Tensor, w: Tensor): Tensor => conv2d(x, w, null, { padding: 1 });

const pairs: readonly [
  name: string,
  inputs: readonly Tensor[],
  f: (...x: Tensor[]) => Tensor,
  g: (...x: Tensor[]) => Tensor,
][] = [
  ['layer norm: eps 1e-6 for 1e-5 at unit variance', rowsAt(1), (x) => layerNorm(x), norm([], 1e-6)],
  ['layer norm: eps 1e-6 for 1e-5 at deviation 0.05', rowsAt(0.05), (x) => layerNorm(x), norm([], 1e-6)],
  ['layer norm: variance divided by n - 1', rowsAt(1), (x) => layerNorm(x), norm([], 1e-5, 1)],
  ['layer norm: no term from the mean', rowsAt(1), (x) => layerNorm(x), norm(['mean'])],
  ['layer norm: no term from the variance', rowsAt(1), (x) => layerNorm(x), norm(['variance'])],
  [
    'mean squared error: divided by n - 1',
    [normal(4, [long]), normal(5, [long])],
    meanSquaredError,
    (a, b) => meanOf(sub(a, b), long - 1),
  ],
  [
    'mean squared error: factor 2 missing',
    [normal(4, [64]), normal(5, [64])],
    meanSquaredError,
    (a, b) => mean(halfSquare(sub(a, b))),
  ],
  ['GELU: gradient of erf for that of tanh', [normal(6, [64])], geluTanh, gelu],
  ['GELU: gradient of x sigmoid(1.702 x)', [normal(6, [64])], gelu, (x) => mul(x, sigmoid(mul(x, 1.702)))],
  ['SiLU: second term missing', [normal(6, [64])], silu, silently.silu],
  ['softmax: sum term missing', [normal(7, [4, 8])], (x) => softmax(x), silently.softmax],
  [
    'attention: 1/d for 1/sqrt(d)',
    [normal(8, [1, 2, 3, 4]), normal(9, [1, 2, 3, 4]), normal(10, [1, 2, 3, 4])],
    (q, k, v) => attention(q, k, v),
    scores(1 / 4),
  ],
  [
    'linear: mean of the bias gradient for its sum',
    [normal(13, [5, 3]), normal(14, [2, 3]), normal(15, [2])],
    linear,
    (x, w, b) => add(linear(x, w), mul(b, 1 / 5)),
  ],
  ['convolution: kernel flipped', [x3, w3], conv, (x, w) => conv(x, flip(w, [2, 3]))],
  [
    'PaRa: Q constant on one side',
    paraInputs,
    para(orthonormalBasis, orthonormalBasis),
    para(orthonormalBasis, fixed),
  ],
  [
    'PaRa: backward through QR skipped',
    paraInputs,
    para(orthonormalBasis, orthonormalBasis),
    para(fixed, fixed),
  ],
];

const scaled = (x: Tensor): Tensor => mul(silu(x), 3);

const faults: readonly Fault[] = [
  ...pairs.map(([name, inputs, f, g]) => ({
    name,
    inputs,
    f: f as Fault['f'],
    wrong: planted(f as Fault['f'], g as Fault['f']),
  })),
  {
    name: 'last of 65,536 elements unwritten',
    inputs: [normal(16, [long])],
    f: scaled as Fault['f'],
    wrong: damaged(scaled as Fault['f'], (dx) => cutTail(dx, 1)),
  },
  {
    name: 'last 64 of 65,536 elements unwritten',
    inputs: [normal(16, [long])],
    f: scaled as Fault['f'],
    wrong: damaged(scaled as Fault['f'], (dx) => cutTail(dx, 64)),
  },
  {
    name: 'one of 4,096 elements zero',
    inputs: [normal(17, [4096])],
    f: scaled as Fault['f'],
    wrong: damaged(scaled as Fault['f'], (dx) => mul(dx, cast(notEqual(iota([4096]), 1234), dx.dtype))),
  },
  {
    name: 'convolution: a border row of dx missing',
    inputs: [x3, w3],
    f: conv as Fault['f'],
    wrong: damaged(conv as Fault['f'], (dx, i) =>
      i === 0
        ? pad(slice(dx, [0, 0, 1, 0], dx.shape), [
            [0, 0],
            [0, 0],
            [1, 0],
            [0, 0],
          ])
        : dx,
    ),
  },
];

describe('gradcheck', () => {
  it('knows the twenty faults of the reliability study', () => {
    expect(faults.length).toBe(20);
  });

  it.each(faults.map((fault) => [fault.name, fault] as const))(
    'finds: %s',
    async (_name, { inputs, f, wrong }) => {
      await gradcheck(f, inputs);
      await expect(gradcheck(wrong, inputs)).rejects.toThrow(GradcheckError);
    },
  );
});
