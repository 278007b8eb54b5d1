/**
 * Scaled dot-product attention (Vaswani et al. 2017, eq. 1) and its gradients, none of which stores the scores
 * (Dao et al. 2022, arXiv 2205.14135): kernels recompute them, block by block, from the logarithm of each row's sum.
 *
 *     S = scale Q K^T + mask        L_i = log sum_j exp S_ij        P = exp(S - L)        O = P V       (1)
 *     dV = P^T dO        T = dO V^T        dS = P (T - D)        D_i = sum_e dO_ie O_ie                 (2)
 *     dQ = scale dS K    dK = scale dS^T Q    dmask = dS                                                (3)
 *
 * S is -infinity where a query may not see a key. A query that sees none has L = infinity, so that P and O are 0.
 * The rules of O are the ops of (2) and (3). The rules of those ops, and every tangent, are composed of products and
 * do store matrices of the size of S; so does the gradient of a mask of floats.
 */
import { isFloat, sameDType } from '../dtype.ts';
import { DTypeError, formatShape, formatShapes, ShapeError } from '../errors.ts';
import type { AttendResult } from '../kernel.ts';
import type { Applied, Aval, Op, Values } from '../op.ts';
import { broadcastShapes, numel, sameShape } from '../shape.ts';
import { apply, type Tensor } from '../tensor.ts';
import { add, cast, exp, lessEqual, mul, neg, sub, where } from './elementwise.ts';
import { expand, sum } from './expand.ts';
import { matmul } from './matmul.ts';
import { transpose, unsqueeze } from './movement.ts';
import { iota } from './source.ts';

export interface AttentionOptions {
  /** Default: 1 / sqrt(D). */
  readonly scale?: number;
  /** bool: which keys a query may see; floats of the query's type: added to the scores. Broadcasts to [B, H, Lq, Lk]. */
  readonly mask?: Tensor | null;
  /** Query i sees keys 0 ... i only. */
  readonly causal?: boolean;
}

interface AttentionAttrs {
  readonly scale: number;
  readonly causal: boolean;
}

type Maybe = Tensor | null | undefined;

/** Checks query, key, value and mask. Returns [...batch], Lq, Lk, D and E. */
function sizesOf(name: string, [query, key, value]: readonly Aval[], mask: Aval | undefined) {
  const dtype = sameDType(name, [query!.dtype, key!.dtype, value!.dtype]);
  if (!isFloat(dtype)) throw new DTypeError(`${name}: expected floats; got ${dtype}`);
  const shapes = [query!.shape, key!.shape, value!.shape];
  const [batch, ...others] = shapes.map((shape) => shape.slice(0, -2));
  const [queries, keys, values] = shapes.map((shape) => shape.at(-2));
  const [width, keyWidth, valueWidth] = shapes.map((shape) => shape.at(-1));
  const fits = others.every((other) => sameShape(batch!, other)) && width === keyWidth && keys === values;
  if (shapes.some(({ length }) => length < 2) || !fits) {
    const got = formatShapes(shapes);
    throw new ShapeError(`${name}: expected [..., Lq, D], [..., Lk, D] and [..., Lk, E]; got ${got}`);
  }
  const scores = [...batch!, queries!, keys!];
  if (mask && !sameShape(mask.shape, scores)) {
    throw new ShapeError(`${name}: expected a mask ${formatShape(scores)}; got ${formatShape(mask.shape)}`);
  }
  if (mask && mask.dtype !== dtype && mask.dtype !== 'bool') {
    throw new DTypeError(`${name}: expected a mask of bool or ${dtype}; got ${mask.dtype}`);
  }
  return { dtype, batch: batch!, queries: queries!, keys: keys!, width: width!, valueWidth: valueWidth! };
}

/** Calls back with each row of scores: its number among all queries, and the number of its batch. */
function forEachRow(
  [query, key]: readonly Values[],
  mask: Values | undefined,
  { scale, causal }: AttentionAttrs,
  visit: (scores: Float64Array, row: number, batch: number) => void,
): void {
  const [queries, width] = query!.shape.slice(-2) as [number, number];
  const keys = key!.shape.at(-2)!;
  const scores = new Float64Array(keys);
  for (let row = 0; row < numel(query!.shape.slice(0, -1)); row += 1) {
    const batch = Math.floor(row / queries);
    for (let j = 0; j < keys; j += 1) {
      let product = 0;
      for (let d = 0; d < width; d += 1)
        product += query!.data[row * width + d]! * key!.data[(batch * keys + j) * width + d]!;
      const bias = mask?.data[row * keys + j] ?? 0;
      const hidden = (causal && j > row % queries) || (mask?.dtype === 'bool' && bias === 0);
      if (hidden) scores[j] = Number.NEGATIVE_INFINITY;
      else scores[j] = scale * product + (mask?.dtype === 'bool' ? 0 : bias);
    }
    visit(scores, row, batch);
  }
}

/** L of a row of scores. */
function logSumOf(scores: Float64Array): number {
  const largest = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  if (largest === Number.NEGATIVE_INFINITY) return Number.POSITIVE_INFINITY;
  return largest + Math.log(scores.reduce((total, s) => total + Math.exp(s - largest), 0));
}

/** What rules are composed of: the operands in a type to compute in, columns [..., Lq, 1] in place of rows, and P. */
function operandsOf({ inputs, attrs }: Applied<AttentionAttrs>, logSum: Tensor, mask: Tensor | undefined) {
  const type = inputs[0]!.dtype === 'f16' ? 'f32' : inputs[0]!.dtype;
  const [q, k, v] = inputs.map((x) => cast(x, isFloat(x.dtype) ? type : x.dtype)) as [Tensor, Tensor, Tensor];
  const products = mul(matmul(q, transpose(k)), attrs.scale);
  const bias = mask && mask.dtype !== 'bool' ? add(products, cast(mask, type)) : products;
  const masked = mask?.dtype === 'bool' ? where(mask, bias, Number.NEGATIVE_INFINITY) : bias;
  const size = masked.shape.slice(-2);
  const seen = attrs.causal
    ? where(lessEqual(iota(size, 1), iota(size, 0)), masked, Number.NEGATIVE_INFINITY)
    : masked;
  const P = exp(sub(seen, unsqueeze(cast(logSum, type), -1)));
  return { type, q, k, v, P, scaled: (x: Tensor) => mul(x, attrs.scale) };
}

/** The sum of the terms there are. */
function total(...terms: readonly Maybe[]): Tensor | null {
  return terms.reduce<Tensor | null>(
    (sum, term) => (sum && term ? add(sum, term) : (sum ?? term ?? null)),
    null,
  );
}

/** f of the operands, if there is something to apply it to. */
function given(x: Maybe, f: (x: Tensor) => Tensor): Tensor | null {
  return x ? f(x) : null;
}

function sumOfRows(x: Tensor): Tensor {
  return sum(x, -1);
}

/** dS from the tangents of query, key and a mask of floats: the tangent of (1). */
function scoreTangent(
  { q, k, type, scaled }: ReturnType<typeof operandsOf>,
  [dq, dk]: readonly Maybe[],
  dmask: Maybe,
): Tensor | null {
  return total(
    given(dq, (x) => scaled(matmul(cast(x, type), transpose(k)))),
    given(dk, (x) => scaled(matmul(q, transpose(cast(x, type))))),
    given(dmask, (x) => cast(x, type)),
  );
}

/** Cotangents in the types of the inputs, as many as there are inputs. */
function inTypes(inputs: readonly Tensor[], cotangents: readonly Maybe[]): (Tensor | null)[] {
  return inputs.map((x, i) => (isFloat(x.dtype) ? given(cotangents[i], (dx) => cast(dx, x.dtype)) : null));
}

/** O of (1). Inputs: query, key, value and perhaps a mask. */
export const attentionOp: Op<AttentionAttrs> = {
  name: 'attention',
  infer: (inputs) => {
    const { dtype, batch, queries, valueWidth } = sizesOf('attention', inputs, inputs[3]);
    return { shape: [...batch, queries, valueWidth], dtype };
  },
  reference: (inputs, attrs, output) => {
    const [, , value, mask] = inputs;
    const [keys, width] = value!.shape.slice(-2) as [number, number];
    const out = new Float64Array(numel(output.shape));
    forEachRow(inputs, mask, attrs, (scores, row, batch) => {
      const logSum = logSumOf(scores);
      scores.forEach((score, j) => {
        const weight = Math.exp(score - logSum);
        for (let e = 0; e < width; e += 1)
          out[row * width + e]! += weight * value!.data[(batch * keys + j) * width + e]!;
      });
    });
    return out;
  },
  lower: { kind: 'attend', result: 'mean', settings: (attrs) => attrs },
  vjp: (dy, applied) => {
    const { inputs, output, attrs } = applied;
    const [query, key, value, mask] = inputs;
    const logSum = apply(attentionLogSumOp, inputs, attrs);
    const rowSum = sumOfRows(mul(cast(dy, logSum.dtype), cast(output, logSum.dtype)));
    const operands = [query!, key!, value!, dy, logSum, rowSum, ...(mask ? [mask] : [])];
    const gradient = (op: Op<AttentionAttrs>) => apply(op, operands, attrs);
    const ofMask = (): Tensor => {
      const { v, P, type } = operandsOf(applied, logSum, mask);
      return mul(P, sub(matmul(cast(dy, type), transpose(v)), unsqueeze(rowSum, -1)));
    };
    return [
      gradient(attentionQueryOp),
      gradient(attentionKeyOp),
      gradient(attentionValueOp),
      ...(mask ? [isFloat(mask.dtype) ? cast(ofMask(), mask.dtype) : null] : []),
    ];
  },
  jvp: ([dq, dk, dv, dmask], applied) => {
    const mask = applied.inputs[3];
    const operands = operandsOf(applied, apply(attentionLogSumOp, applied.inputs, applied.attrs), mask);
    const { v, P, type } = operands;
    const dS = scoreTangent(operands, [dq, dk], mask?.dtype === 'bool' ? null : dmask);
    const dP = given(dS, (x) => mul(P, sub(x, sum(mul(P, x), -1, true))));
    const dy = total(
      given(dP, (x) => matmul(x, v)),
      given(dv, (x) => matmul(P, cast(x, type))),
    );
    return given(dy, (x) => cast(x, applied.output.dtype));
  },
};

/** L of (1), in f32 at least. The inputs are those of attention, so that one kernel can compute both. */
export const attentionLogSumOp: Op<AttentionAttrs> = {
  name: 'attentionLogSum',
  infer: (inputs) => {
    const { dtype, batch, queries } = sizesOf('attentionLogSum', inputs, inputs[3]);
    return { shape: [...batch, queries], dtype: dtype === 'f16' ? 'f32' : dtype };
  },
  reference: (inputs, attrs, output) => {
    const out = new Float64Array(numel(output.shape));
    forEachRow(inputs, inputs[3], attrs, (scores, row) => {
      out[row] = logSumOf(scores);
    });
    return out;
  },
  lower: { kind: 'attend', result: 'logSum', settings: (attrs) => attrs },
  vjp: (dy, applied) => {
    const { q, k, P, scaled } = operandsOf(applied, applied.output, applied.inputs[3]);
    const dS = mul(P, unsqueeze(dy, -1));
    return inTypes(applied.inputs, [scaled(matmul(dS, k)), scaled(matmul(transpose(dS), q)), null, dS]);
  },
  jvp: ([dq, dk, , dmask], applied) => {
    const mask = applied.inputs[3];
    const operands = operandsOf(applied, applied.output, mask);
    const dS = scoreTangent(operands, [dq, dk], mask?.dtype === 'bool' ? null : dmask);
    return given(dS, (x) => sumOfRows(mul(operands.P, x)));
  },
};

/** One of the gradients. Inputs: query, key, value, dO, L, D of (2), and perhaps a mask. */
function gradientOp(name: string, result: AttendResult & ('query' | 'key' | 'value')): Op<AttentionAttrs> {
  const place = ['query', 'key', 'value'].indexOf(result);
  return {
    name,
    infer: (inputs) => {
      const [, , , dO, logSum, rowSum, mask] = inputs;
      const { dtype, batch, queries, valueWidth } = sizesOf(name, inputs, mask);
      const rows = [...batch, queries];
      if (!sameShape(dO!.shape, [...rows, valueWidth])) {
        const expected = formatShape([...rows, valueWidth]);
        throw new ShapeError(`${name}: expected a cotangent ${expected}; got ${formatShape(dO!.shape)}`);
      }
      if (!sameShape(logSum!.shape, rows) || !sameShape(rowSum!.shape, rows)) {
        const got = formatShapes([logSum!.shape, rowSum!.shape]);
        throw new ShapeError(`${name}: expected sums of rows ${formatShape(rows)}; got ${got}`);
      }
      sameDType(name, [dtype, dO!.dtype]);
      for (const sums of [logSum!, rowSum!]) {
        if (!isFloat(sums.dtype)) throw new DTypeError(`${name}: expected floats; got ${sums.dtype}`);
      }
      return inputs[place]!;
    },
    reference: (inputs, attrs, output) => {
      const [query, key, value, dO, logSum, rowSum, mask] = inputs as readonly [Values, ...Values[]];
      const [keys, width] = key!.shape.slice(-2) as [number, number];
      const valueWidth = value!.shape.at(-1)!;
      const out = new Float64Array(numel(output.shape));
      forEachRow(inputs, mask, attrs, (scores, row, batch) => {
        scores.forEach((score, j) => {
          const at = batch * keys + j;
          const P = Math.exp(score - logSum!.data[row]!);
          let T = 0;
          for (let e = 0; e < valueWidth; e += 1)
            T += dO!.data[row * valueWidth + e]! * value!.data[at * valueWidth + e]!;
          const dS = attrs.scale * P * (T - rowSum!.data[row]!);
          for (let d = 0; d < width; d += 1) {
            if (result === 'query') out[row * width + d]! += dS * key!.data[at * width + d]!;
            if (result === 'key') out[at * width + d]! += dS * query.data[row * width + d]!;
          }
          for (let e = 0; result === 'value' && e < valueWidth; e += 1)
            out[at * valueWidth + e]! += P * dO!.data[row * valueWidth + e]!;
        });
      });
      return out;
    },
    lower: { kind: 'attend', result, settings: (attrs) => attrs },
    vjp: (dy, applied) => {
      const { q, k, v, P, dO, C, R, type, scaled } = gradientOperands(applied);
      const u = cast(dy, type);
      // Cotangents of dS, P and T.
      const ofR =
        result === 'query'
          ? scaled(matmul(u, transpose(k)))
          : result === 'key'
            ? scaled(matmul(q, transpose(u)))
            : null;
      const ofP = ofR ? mul(ofR, C) : matmul(dO, transpose(u));
      const ofT = given(ofR, (x) => mul(x, P));
      const ofS = mul(ofP, P);
      return inTypes(applied.inputs, [
        total(scaled(matmul(ofS, k)), result === 'key' ? scaled(matmul(R, u)) : null),
        total(scaled(matmul(transpose(ofS), q)), result === 'query' ? scaled(matmul(transpose(R), u)) : null),
        given(ofT, (x) => matmul(transpose(x), dO)),
        ofT ? matmul(ofT, v) : matmul(P, u),
        neg(sumOfRows(ofS)),
        given(ofT, (x) => neg(sumOfRows(x))),
        ofS,
      ]);
    },
    jvp: ([dq, dk, dv, ddO, dL, dD, dmask], applied) => {
      const operands = gradientOperands(applied);
      const { q, k, v, P, dO, C, R, type, scaled } = operands;
      const wide = (x: Maybe) => given(x, (y) => cast(y, type));
      const column = (x: Maybe) => given(wide(x), (y) => neg(expand(unsqueeze(y, -1), P.shape)));
      const dS = total(
        scoreTangent(operands, [dq, dk], applied.inputs[6]?.dtype === 'bool' ? null : dmask),
        column(dL),
      );
      const dP = given(dS, (x) => mul(P, x));
      const dC = total(
        given(wide(ddO), (x) => matmul(x, transpose(v))),
        given(wide(dv), (x) => matmul(dO, transpose(x))),
        column(dD),
      );
      const dR = total(
        given(dP, (x) => mul(x, C)),
        given(dC, (x) => mul(P, x)),
      );
      const terms = {
        query: () => [given(dR, (x) => scaled(matmul(x, k))), given(wide(dk), (x) => scaled(matmul(R, x)))],
        key: () => [
          given(dR, (x) => scaled(matmul(transpose(x), q))),
          given(wide(dq), (x) => scaled(matmul(transpose(R), x))),
        ],
        value: () => [
          given(dP, (x) => matmul(transpose(x), dO)),
          given(wide(ddO), (x) => matmul(transpose(P), x)),
        ],
      };
      return given(total(...terms[result]()), (x) => cast(x, applied.output.dtype));
    },
  };
}

/** The operands of a gradient, with C = T - D and R = dS of (2). */
function gradientOperands(applied: Applied<AttentionAttrs>) {
  const [, , , cotangent, logSum, rowSum, mask] = applied.inputs;
  const operands = operandsOf(applied, logSum!, mask);
  const { type, v, P } = operands;
  const dO = cast(cotangent!, type);
  const C = sub(matmul(dO, transpose(v)), unsqueeze(cast(rowSum!, type), -1));
  return { ...operands, dO, C, R: mul(P, C) };
}

/** dQ of (3). */
export const attentionQueryOp = gradientOp('attentionQuery', 'query');
/** dK of (3). */
export const attentionKeyOp = gradientOp('attentionKey', 'key');
/** dV of (2). */
export const attentionValueOp = gradientOp('attentionValue', 'value');

/**
 * Attention of query [B, H, Lq, D] over key [B, H, Lk, D] and value [B, H, Lk, E]: [B, H, Lq, E], for any leading
 * axes, which broadcast. Memory grows with Lq + Lk, forward and backward. A query that may see no key gives 0.
 * @throws ShapeError, DTypeError
 */
export function attention(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions = {}): Tensor {
  if (query.rank < 2 || key.rank !== query.rank || value.rank !== query.rank) {
    throw new ShapeError('attention: query, key and value must have equally many axes, at least two');
  }
  const { mask, causal = false } = options;
  const operands = [query, key, value];
  const leading = [...operands, ...(mask ? [mask] : [])].map(({ shape }) => shape.slice(0, -2));
  const batch = broadcastShapes('attention', leading);
  const inputs = operands.map((x) => expand(x, [...batch, ...x.shape.slice(-2)]));
  const { queries, keys, width } = sizesOf('attention', inputs, undefined);
  const attrs = { scale: options.scale ?? 1 / Math.sqrt(Math.max(1, width)), causal };
  if (!mask) return apply(attentionOp, inputs, attrs);
  const scores = [...batch, queries, keys];
  if (!sameShape(broadcastShapes('attention', [mask.shape, scores]), scores)) {
    const got = formatShape(mask.shape);
    throw new ShapeError(
      `attention: the mask does not stretch to the scores ${formatShape(scores)}; got ${got}`,
    );
  }
  return apply(attentionOp, [...inputs, expand(mask, scores)], attrs);
}
