/**
 * What is measured: rows of the table, each with its inputs, the same for all contenders, and the part of its result
 * that is compared with the float64 reference before anything is timed.
 */

/** How a contender runs a row. */
export type Mode =
  /** The function of the inputs, compiled where the contender can, until its results are on the device. */
  | 'compiled'
  /** The same without compiling: each call builds and runs what it needs. */
  | 'eager'
  /** Eager, until the result is on the host. */
  | 'readback'
  /** A step of Adam on the loss of the inputs' parameters and data. */
  | 'train';

export interface Input {
  readonly shape: readonly number[];
  /** Normal numbers of mean `mean` (default 0) and deviation `scale` (default 1). */
  readonly scale?: number;
  readonly mean?: number;
  /** For training: whether it is data, not a parameter. */
  readonly data?: boolean;
}

/** The last `count` along an axis. */
export interface Last {
  readonly axis: number;
  readonly count: number;
}

export interface Row {
  readonly name: string;
  readonly mode: Mode;
  /** The entry of a contender's table. */
  readonly computes: string;
  readonly inputs: { readonly [name: string]: Input };
  /**
   * Which part of some inputs the checked part of the result depends on, and which part of the result that is;
   * default: everything of everything.
   */
  readonly sample?: {
    readonly inputs: { readonly [name: string]: readonly Last[] };
    readonly outputs: readonly Last[];
  };
  /** Largest |got - want| / max |want| of a right result. */
  readonly tolerance: number;
  /** Floating-point operations of one run, where they are what costs. */
  readonly flops?: number;
}

/** Steps of training whose losses are compared. */
export const checkedSteps = 3;

/** f32 sums of up to some thousand products, whatever their order, and functions good to about 1e-6. */
const ROUNDED = 1e-4;
/** Naive f32 sums of millions of numbers, and losses after steps whose gradients are such sums. */
const ACCUMULATED = 1e-3;

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

function matmul(n: number): Row {
  return {
    name: `matmul ${n}`,
    mode: 'compiled',
    computes: 'matmul',
    inputs: { a: { shape: [n, n] }, b: { shape: [n, n] } },
    sample: { inputs: { a: [{ axis: 0, count: 8 }] }, outputs: [{ axis: 0, count: 8 }] },
    tolerance: ROUNDED,
    flops: 2 * n ** 3,
  };
}

function batchedMatmul(batch: number, n: number): Row {
  const last = [{ axis: 0, count: 1 }];
  return {
    name: `batched matmul ${batch} x ${n}`,
    mode: 'compiled',
    computes: 'matmul',
    inputs: { a: { shape: [batch, n, n] }, b: { shape: [batch, n, n] } },
    sample: { inputs: { a: last, b: last }, outputs: last },
    tolerance: ROUNDED,
    flops: 2 * batch * n ** 3,
  };
}

function conv(n: number, channels: number, side: number): Row {
  const image = { axis: 0, count: 1 };
  return {
    name: `conv 3x3 N${n} C${channels} ${side}x${side}`,
    mode: 'compiled',
    computes: 'conv2d',
    inputs: { x: { shape: [n, channels, side, side] }, w: { shape: [channels, channels, 3, 3] } },
    sample: {
      inputs: { x: [image], w: [{ axis: 0, count: 2 }] },
      outputs: [image, { axis: 1, count: 2 }],
    },
    tolerance: ROUNDED,
    flops: 2 * n * side ** 2 * channels ** 2 * 9,
  };
}

/** A row over [rows, columns] whose rows are independent; `vectors` are further inputs of one number a column. */
function rowwise(computes: string, name: string, shape: readonly [number, number], vectors: string[]): Row {
  const last = [{ axis: 0, count: 16 }];
  const vector: Input = { shape: [shape[1]], mean: 1, scale: 0.5 };
  return {
    name: `${name} ${shape.join('x')}`,
    mode: 'compiled',
    computes,
    inputs: { x: { shape }, ...Object.fromEntries(vectors.map((vector_) => [vector_, vector])) },
    sample: { inputs: { x: last }, outputs: last },
    tolerance: ROUNDED,
  };
}

function groupNorm(shape: readonly [number, number, number, number]): Row {
  const last = [{ axis: 0, count: 1 }];
  const vector: Input = { shape: [shape[1]], mean: 1, scale: 0.5 };
  return {
    name: `group norm ${shape.join('x')}`,
    mode: 'compiled',
    computes: 'groupNorm',
    inputs: { x: { shape }, weight: vector, bias: vector },
    sample: { inputs: { x: last }, outputs: last },
    tolerance: ROUNDED,
  };
}

function sum(count: number): Row {
  return {
    name: `sum ${count}`,
    mode: 'compiled',
    computes: 'sum',
    inputs: { x: { shape: [count], mean: 1 } },
    tolerance: ACCUMULATED,
  };
}

function attention(shape: readonly [number, number, number, number], backward: boolean): Row {
  const head = [0, 1].map((axis) => ({ axis, count: 1 }));
  const names = backward ? ['q', 'k', 'v', 'g'] : ['q', 'k', 'v'];
  const [batch, heads, length, width] = shape;
  const forward = 4 * batch * heads * length ** 2 * width;
  return {
    name: `attention ${shape.join('x')}${backward ? ' forward+backward' : ''}`,
    mode: 'compiled',
    computes: backward ? 'attentionGradient' : 'attention',
    inputs: Object.fromEntries(names.map((name) => [name, { shape }])),
    sample: { inputs: Object.fromEntries(names.map((name) => [name, head])), outputs: head },
    tolerance: ROUNDED,
    flops: forward * (backward ? 3.5 : 1),
  };
}

type Parameters = { readonly [name: string]: readonly number[] };

/** Inputs of a training row: weights scaled to keep variances, and biases, near 0 and, for norms, near 1. */
function training(parameters: Parameters, data: Parameters): { readonly [name: string]: Input } {
  const parameter = (name: string, shape: readonly number[]): Input => {
    if (shape.length > 1)
      return { shape, scale: 1 / Math.sqrt(shape.length === 2 ? shape[0]! : product(shape.slice(1))) };
    return { shape, scale: 0.1, mean: /^norm\d?Weight/.test(name) ? 1 : 0 };
  };
  return {
    ...Object.fromEntries(Object.entries(parameters).map(([name, shape]) => [name, parameter(name, shape)])),
    ...Object.fromEntries(Object.entries(data).map(([name, shape]) => [name, { shape, data: true }])),
  };
}

/** Weights are [in, out]; the target is a row of logits, whose softmax is the distribution to learn. */
function mlp(widths: readonly [number, number, number, number], batch: number): Row {
  const [i, h1, h2, o] = widths;
  const parameters = { w1: [i, h1], b1: [h1], w2: [h1, h2], b2: [h2], w3: [h2, o], b3: [o] };
  return {
    name: `train MLP ${widths.join('-')}, batch ${batch}`,
    mode: 'train',
    computes: 'mlp',
    inputs: training(parameters, { x: [batch, i], target: [batch, o] }),
    tolerance: ACCUMULATED,
    flops: 6 * batch * (i * h1 + h1 * h2 + h2 * o) - 2 * batch * i * h1,
  };
}

/** Heads of a transformer row. */
export const headWidth = 64;

function transformer(width: number, length: number, batch: number): Row {
  const [tokens, inner] = [batch * length, 4 * width];
  const parameters = {
    norm1Weight: [width],
    norm1Bias: [width],
    q: [width, width],
    k: [width, width],
    v: [width, width],
    o: [width, width],
    oBias: [width],
    norm2Weight: [width],
    norm2Bias: [width],
    w1: [width, inner],
    b1: [inner],
    w2: [inner, width],
    b2: [width],
  };
  return {
    name: `train transformer block d${width} L${length}, batch ${batch}`,
    mode: 'train',
    computes: 'transformer',
    inputs: training(parameters, { x: [batch, length, width], target: [batch, length, width] }),
    tolerance: ACCUMULATED,
    flops: 6 * tokens * 12 * width ** 2 + 3.5 * 4 * tokens * length * width,
  };
}

/** Channels in a group of a group norm, everywhere. */
export const groupCount = (channels: number): number => Math.min(32, channels / 2);

function resBlock(channels: number, side: number, batch: number): Row {
  const parameters = {
    norm1Weight: [channels],
    norm1Bias: [channels],
    conv1: [channels, channels, 3, 3],
    conv1Bias: [channels],
    norm2Weight: [channels],
    norm2Bias: [channels],
    conv2: [channels, channels, 3, 3],
    conv2Bias: [channels],
  };
  const image = [batch, channels, side, side];
  return {
    name: `train conv block C${channels} ${side}x${side}, batch ${batch}`,
    mode: 'train',
    computes: 'resBlock',
    inputs: training(parameters, { x: image, target: image }),
    tolerance: ACCUMULATED,
    flops: 3 * 2 * 2 * batch * side ** 2 * channels ** 2 * 9,
  };
}

/** Ops in a row of the row of that name. */
export const chainLength = 200;

const tiny = { x: { shape: [16, 16] } };

const chain: Row = {
  name: `${chainLength} tiny ops in a row`,
  mode: 'eager',
  computes: 'chain',
  inputs: tiny,
  tolerance: ROUNDED,
};

const readback: Row = {
  name: 'one tiny op, read back',
  mode: 'readback',
  computes: 'increment',
  inputs: tiny,
  tolerance: ROUNDED,
};

/** The table. */
export const rows: readonly Row[] = [
  ...[256, 512, 1024, 2048].map(matmul),
  batchedMatmul(16, 128),
  conv(4, 64, 32),
  conv(1, 320, 32),
  rowwise('softmax', 'softmax', [4096, 1024], []),
  rowwise('layerNorm', 'layer norm', [4096, 768], ['weight', 'bias']),
  groupNorm([4, 128, 32, 32]),
  rowwise('geluChain', 'gelu(x*a+b)+x', [4096, 1024], ['a', 'b']),
  sum(2 ** 24),
  attention([2, 8, 1024, 64], false),
  attention([2, 8, 1024, 64], true),
  mlp([784, 1024, 1024, 10], 256),
  transformer(384, 256, 4),
  resBlock(64, 32, 8),
  chain,
  readback,
];

/** The same kinds of rows, small: to try the harness and the correctness of every contender. */
export const quickRows: readonly Row[] = [
  matmul(64),
  batchedMatmul(2, 32),
  conv(2, 8, 8),
  rowwise('softmax', 'softmax', [32, 64], []),
  rowwise('layerNorm', 'layer norm', [32, 64], ['weight', 'bias']),
  groupNorm([2, 8, 8, 8]),
  rowwise('geluChain', 'gelu(x*a+b)+x', [32, 64], ['a', 'b']),
  sum(2 ** 12),
  attention([1, 2, 32, 64], false),
  attention([1, 2, 32, 64], true),
  mlp([20, 32, 32, 10], 16),
  transformer(128, 16, 2),
  resBlock(8, 8, 2),
  chain,
  readback,
];

/** Values of an array of the given shape. */
export interface HostTensor {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export type HostTensors = { readonly [name: string]: HostTensor };

/** The row's inputs: the same numbers in every process. */
export function inputsOf(row: Row): HostTensors {
  return Object.fromEntries(
    Object.entries(row.inputs).map(([name, { shape, scale = 1, mean = 0 }], i) => [
      name,
      { shape, values: normalNumbers(1 + i, product(shape), mean, scale) },
    ]),
  );
}

/** Normal numbers by Box and Muller, from 32-bit uniforms by splitmix. */
function normalNumbers(seed: number, count: number, mean: number, scale: number): Float32Array {
  let state = seed * 0x9e3779b9;
  const uniform = (): number => {
    state = (state + 0x9e3779b9) | 0;
    let z = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = scale * Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    values[i] = mean + radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = mean + radius * Math.sin(angle);
  }
  return values;
}

/** The last `count` along the axis. */
export function takeLast({ shape, values }: HostTensor, { axis, count }: Last): HostTensor {
  const [extent, inner] = [shape[axis]!, product(shape.slice(axis + 1))];
  const taken = new Float32Array((values.length / extent) * count);
  for (let i = 0; i * count * inner < taken.length; i += 1) {
    const end = (i + 1) * extent * inner;
    taken.set(values.subarray(end - count * inner, end), i * count * inner);
  }
  return { shape: shape.map((size, i) => (i === axis ? count : size)), values: taken };
}

/** The part of a result that is compared. */
export function sampled(row: Row, output: HostTensor): HostTensor {
  return (row.sample?.outputs ?? []).reduce(takeLast, output);
}
