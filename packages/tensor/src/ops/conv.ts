/**
 * 2-D convolution (cross-correlation, as in PyTorch) and its two adjoints. Legend: N batch, Ci and Co channels in and
 * out, g groups, H x W and OH x OW pixels in and out, KH x KW the kernel; stride s, padding p, dilation d.
 *
 *     y[n,co,oh,ow]  = sum over ci,kh,kw  w[co,ci,kh,kw] x[n,ci, oh s + kh d - p, ow s + kw d - p]            (1)
 *     dw[co,ci,kh,kw] = sum over n,oh,ow  dy[n,co,oh,ow] x[n,ci, oh s + kh d - p, ow s + kw d - p]            (2)
 *     dx = (1) at stride 1 of dy, its pixels spread s apart and padded, with w flipped and its channels swapped   (3)
 *
 * (1) is trilinear in (y*, w, x), so the derivatives of each of the three are the other two. Both ops are one
 * contraction over windows of x: a view, never an im2col buffer. Inputs of the ops are in the contraction's order.
 */
import { isFloat, sameDType } from '../dtype.ts';
import { DTypeError, formatShape, formatShapes, ShapeError } from '../errors.ts';
import type { Op, Values } from '../op.ts';
import { numel, type Shape, sameShape } from '../shape.ts';
import { apply, type Tensor } from '../tensor.ts';
import {
  contiguousView,
  expandView,
  padView,
  permuteView,
  reshapeView,
  type View,
  windowView,
} from '../view.ts';
import { add } from './elementwise.ts';
import { flip, pad, permute, readView, reshape, slice, spreadOut } from './movement.ts';

/** Geometry of a convolution: [along H, along W] each. */
export interface ConvGeometry {
  readonly stride: readonly [number, number];
  readonly padding: readonly [number, number];
  readonly dilation: readonly [number, number];
  readonly groups: number;
}

interface WeightAttrs extends ConvGeometry {
  readonly kernel: readonly [number, number];
}

/** Windows of x over [N, g, Ci/g, KH, KW, OH, OW]. */
function windows(
  x: View,
  kernel: readonly number[],
  { stride, padding, dilation, groups }: ConvGeometry,
): View {
  const [ph, pw] = padding;
  const [n, ci] = x.shape as [number, number];
  const padded = padView(x, [0, 0, ph, pw], [0, 0, ph, pw]);
  const rows = windowView(padded, 2, kernel[0]!, stride[0], dilation[0]); // [N, Ci, OH, W, KH]
  const both = windowView(rows, 3, kernel[1]!, stride[1], dilation[1]); // [N, Ci, OH, OW, KH, KW]
  const [, , oh, ow, kh, kw] = both.shape as [number, number, number, number, number, number];
  const grouped = reshapeView(both, [n, groups, ci / groups, oh, ow, kh, kw])!; // splitting an axis never fails
  return permuteView(grouped, [0, 1, 2, 5, 6, 3, 4]);
}

/** Pixels out along one axis. */
function outputExtent(
  extent: number,
  kernel: number,
  stride: number,
  padding: number,
  dilation: number,
): number {
  return Math.floor((extent + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1;
}

function outputSize(x: Shape, kernel: readonly number[], g: ConvGeometry): [number, number] {
  return [0, 1].map((i) =>
    outputExtent(x[i + 2]!, kernel[i]!, g.stride[i]!, g.padding[i]!, g.dilation[i]!),
  ) as [number, number];
}

function expectImage(op: string, shapes: readonly Shape[]): void {
  if (shapes.some((shape) => shape.length !== 4)) {
    throw new ShapeError(
      `${op}: expected four axes (N, C, H, W) and (Co, Ci, KH, KW); got ${formatShapes(shapes)}`,
    );
  }
}

/** Row-major product of two matrices that views read, summed into `out`: the definition of a contraction. */
function multiply(
  a: Float64Array,
  b: Float64Array,
  batch: number,
  m: number,
  k: number,
  n: number,
): Float64Array {
  const out = new Float64Array(batch * m * n);
  for (let i = 0; i < out.length; i += 1) {
    const row = Math.floor(i / n);
    const block = Math.floor(row / m);
    for (let j = 0; j < k; j += 1) out[i]! += a[row * k + j]! * b[(block * k + j) * n + (i % n)]!;
  }
  return out;
}

/** The weight over [N, g, Co/g, Ci/g, KH, KW]. */
function weightOver(batch: number, groups: number, weight: View): View {
  const [co, ...rest] = weight.shape as [number, ...number[]];
  const grouped = reshapeView(weight, [1, groups, co / groups, ...rest])!;
  return expandView(grouped, [batch, ...grouped.shape.slice(1)]);
}

/** Inputs: weight [Co, Ci/g, KH, KW], x [N, Ci, H, W]. */
export const conv2dOp: Op<ConvGeometry> = {
  name: 'conv2d',
  infer: ([w, x], g) => {
    expectImage('conv2d', [x!.shape, w!.shape]);
    const dtype = sameDType('conv2d', [x!.dtype, w!.dtype]);
    if (!isFloat(dtype)) throw new DTypeError(`conv2d: expected floats; got ${dtype}`);
    const [co, perGroup, kh, kw] = w!.shape as [number, number, number, number];
    const whole = [...g.stride, ...g.dilation, g.groups].every((v) => Number.isInteger(v) && v >= 1);
    if (!whole || !g.padding.every((v) => Number.isInteger(v) && v >= 0)) {
      throw new ShapeError('conv2d: stride, dilation and groups must be whole numbers >= 1, padding >= 0');
    }
    if (x!.shape[1] !== perGroup * g.groups || co % g.groups !== 0) {
      throw new ShapeError(
        `conv2d: channels do not fit ${g.groups} group(s); got ${formatShapes([x!.shape, w!.shape])}`,
      );
    }
    const size = outputSize(x!.shape, [kh, kw], g);
    if (size.some((extent) => extent < 1)) {
      throw new ShapeError(
        `conv2d: the kernel is larger than the image; got ${formatShapes([x!.shape, w!.shape])}`,
      );
    }
    return { shape: [x!.shape[0]!, co, ...size], dtype };
  },
  reference: ([w, x], g, output) => contractReference(conv2dOp, [w!, x!], g, output.shape),
  lower: {
    kind: 'contract',
    contraction: (w, x, g) => ({
      batch: [x[0]!, g.groups],
      m: [w[0]! / g.groups],
      n: outputSize(x, w.slice(2), g),
      k: w.slice(1),
      a: (view) => weightOver(x[0]!, g.groups, view),
      b: (view) => windows(view, w.slice(2), g), // (1)
    }),
  },
  vjp: (dy, { inputs: [w, x], attrs }) => [
    conv2dWeightGradient(x!, dy, w!.shape, attrs),
    conv2dInputGradient(dy, w!, x!.shape, attrs),
  ],
  jvp: ([dw, dx], { inputs: [w, x], attrs }) =>
    sumOf(dw && apply(conv2dOp, [dw, x!], attrs), dx && apply(conv2dOp, [w!, dx], attrs)),
};

/** Inputs: dy [N, Co, OH, OW], x [N, Ci, H, W]; equation (2). */
export const conv2dWeightOp: Op<WeightAttrs> = {
  name: 'conv2dWeight',
  infer: ([dy, x], { groups, kernel }) => {
    expectImage('conv2dWeight', [x!.shape, dy!.shape]);
    return {
      shape: [dy!.shape[1]!, x!.shape[1]! / groups, ...kernel],
      dtype: sameDType('conv2dWeight', [dy!.dtype, x!.dtype]),
    };
  },
  reference: ([dy, x], attrs, output) => contractReference(conv2dWeightOp, [dy!, x!], attrs, output.shape),
  lower: {
    kind: 'contract',
    contraction: (dy, x, g) => ({
      batch: [g.groups],
      m: [dy[1]! / g.groups],
      n: [x[1]! / g.groups, ...g.kernel],
      k: [dy[0]!, dy[2]!, dy[3]!],
      a: (view) => {
        const [n, co, oh, ow] = view.shape as [number, number, number, number];
        const grouped = reshapeView(view, [n, g.groups, co / g.groups, oh, ow])!;
        return permuteView(grouped, [1, 2, 0, 3, 4]); // [g, Co/g, N, OH, OW]
      },
      b: (view) => {
        const used = cropWindows(windows(view, g.kernel, g), dy);
        return permuteView(used, [1, 0, 5, 6, 2, 3, 4]); // [g, N, OH, OW, Ci/g, KH, KW]
      },
    }),
  },
  vjp: (z, { inputs: [dy, x], attrs }) => [
    apply(conv2dOp, [z, x!], attrs),
    conv2dInputGradient(dy!, z, x!.shape, attrs),
  ],
  jvp: ([ddy, dx], { inputs: [dy, x], attrs }) =>
    sumOf(ddy && apply(conv2dWeightOp, [ddy, x!], attrs), dx && apply(conv2dWeightOp, [dy!, dx], attrs)),
};

function sumOf(a: Tensor | null | undefined, b: Tensor | null | undefined): Tensor | null {
  return a && b ? add(a, b) : (a ?? b ?? null);
}

/** Only the window positions that dy has. */
function cropWindows(view: View, dy: Shape): View {
  const shape = view.shape.with(5, dy[2]!).with(6, dy[3]!);
  return { ...view, shape };
}

function contractReference<A>(
  op: Op<A>,
  [a, b]: readonly [Values, Values],
  attrs: A,
  output: Shape,
): Float64Array {
  if (op.lower.kind !== 'contract') throw new Error('internal: not a contraction');
  const { batch, m, n, k, ...over } = op.lower.contraction(a.shape, b.shape, attrs);
  const left = readView(a.data, over.a(contiguousView(a.shape))!);
  const right = readView(b.data, over.b(contiguousView(b.shape))!);
  const out = multiply(left, right, numel(batch), numel(m), numel(k), numel(n));
  if (out.length !== numel(output))
    throw new Error('internal: a contraction of another size than its shape rule');
  return out;
}

function conv2dWeightGradient(x: Tensor, dy: Tensor, weight: Shape, geometry: ConvGeometry): Tensor {
  const { stride, padding, dilation, groups } = geometry;
  const kernel = [weight[2]!, weight[3]!] as const;
  return apply(conv2dWeightOp, [dy, x], { stride, padding, dilation, groups, kernel });
}

/** Equation (3): the cotangent of x [N, Ci, H, W]; also the transposed convolution of dy. */
export function conv2dInputGradient(dy: Tensor, weight: Tensor, x: Shape, geometry: ConvGeometry): Tensor {
  const { stride, padding, dilation, groups } = geometry;
  const [co, perGroup, ...kernel] = weight.shape as [number, number, number, number];
  const byGroup = reshape(weight, [groups, co / groups, perGroup, ...kernel]);
  const swapped = reshape(permute(byGroup, [0, 2, 1, 3, 4]), [groups * perGroup, co / groups, ...kernel]);
  const spread = spreadOut(dy, [1, 1, ...stride]);
  const before = kernel.map((extent, i) => dilation[i]! * (extent - 1) - padding[i]!);
  const after = before.map(
    (front, i) => x[i + 2]! + dilation[i]! * (kernel[i]! - 1) - front - spread.shape[i + 2]!,
  );
  const framed = frame(spread, before, after);
  return apply(conv2dOp, [flip(swapped, [2, 3]), framed], {
    stride: [1, 1],
    padding: [0, 0],
    dilation,
    groups,
  });
}

/** Zeros around the image where the amounts are positive, rows and columns cut off where they are negative. */
function frame(x: Tensor, before: readonly number[], after: readonly number[]): Tensor {
  const cut = (amounts: readonly number[], i: number): number => Math.max(0, -amounts[i]!);
  const grow = (amounts: readonly number[], i: number): number => Math.max(0, amounts[i]!);
  // Zeros first: where padding leaves pixels unread, one side is cut by more than the image has.
  const padded = pad(x, [[0, 0], [0, 0], ...[0, 1].map((i) => [grow(before, i), grow(after, i)])]);
  const [n, c, h, w] = padded.shape as [number, number, number, number];
  return slice(padded, [0, 0, cut(before, 0), cut(before, 1)], [n, c, h - cut(after, 0), w - cut(after, 1)]);
}

/** Options of a convolution; a number stands for both directions. */
export interface ConvOptions {
  readonly stride?: number | readonly [number, number];
  readonly padding?: number | readonly [number, number];
  readonly dilation?: number | readonly [number, number];
  readonly groups?: number;
}

/** A number stands for both directions. */
export function both(value: number | readonly [number, number]): readonly [number, number] {
  return typeof value === 'number' ? [value, value] : value;
}

/** The full geometry: stride and dilation 1, padding 0 and one group unless given. */
export function convGeometry({
  stride = 1,
  padding = 0,
  dilation = 1,
  groups = 1,
}: ConvOptions): ConvGeometry {
  return { stride: both(stride), padding: both(padding), dilation: both(dilation), groups };
}

/**
 * Equation (1): x [N, Ci, H, W] and weight [Co, Ci/groups, KH, KW] to [N, Co, OH, OW], plus a bias [Co] if given.
 * @throws ShapeError, DTypeError
 */
export function conv2d(x: Tensor, weight: Tensor, bias?: Tensor | null, options: ConvOptions = {}): Tensor {
  return withBias('conv2d', apply(conv2dOp, [weight, x], convGeometry(options)), bias);
}

/** y [N, Co, OH, OW] plus a bias for each channel. */
function withBias(op: string, y: Tensor, bias: Tensor | null | undefined): Tensor {
  if (!bias) return y;
  const channels = y.shape[1]!;
  if (!sameShape(bias.shape, [channels])) {
    throw new ShapeError(`${op}: the bias must be [${channels}]; got ${formatShape(bias.shape)}`);
  }
  return add(y, reshape(bias, [1, channels, 1, 1]));
}

/**
 * The adjoint of `conv2d` as a layer: x [N, Ci, H, W] and weight [Ci, Co/groups, KH, KW] to [N, Co, OH, OW] with
 * OH = (H - 1) stride - 2 padding + dilation (KH - 1) + outputPadding + 1.
 * @throws ShapeError, DTypeError
 */
export function convTranspose2d(
  x: Tensor,
  weight: Tensor,
  bias?: Tensor | null,
  { outputPadding = 0, ...options }: ConvOptions & { readonly outputPadding?: number } = {},
): Tensor {
  const g = convGeometry(options);
  expectImage('convTranspose2d', [x.shape, weight.shape]);
  if (x.shape[1] !== weight.shape[0]) {
    throw new ShapeError(`convTranspose2d: channels differ; got ${formatShapes([x.shape, weight.shape])}`);
  }
  const size = [0, 1].map(
    (i) =>
      (x.shape[i + 2]! - 1) * g.stride[i]! -
      2 * g.padding[i]! +
      g.dilation[i]! * (weight.shape[i + 2]! - 1) +
      outputPadding +
      1,
  );
  if (size.some((extent) => extent < 1))
    throw new ShapeError(`convTranspose2d: no pixels left; got ${formatShape(size)}`);
  const y = conv2dInputGradient(x, weight, [x.shape[0]!, weight.shape[1]! * g.groups, ...size], g);
  return withBias('convTranspose2d', y, bias);
}
