/**
 * The kernel language, executed with plain loops in float64: what generated code is tested against.
 *
 * Integers wrap to 32 bits, f16 outputs are rounded to half precision, f32 values keep their float64 precision.
 */
import { type DType, roundTo } from '../../packages/tensor/src/dtype.ts';
import type {
  AttendKernel,
  BinaryFunction,
  Expr,
  Kernel,
  Operand,
  Output,
  Plan,
  Scalar,
  UnaryFunction,
} from '../../packages/tensor/src/kernel.ts';
import { numel, type Shape } from '../../packages/tensor/src/shape.ts';
import type { Affine, Guard } from '../../packages/tensor/src/view.ts';

/** The plan's outputs, as numbers, from its inputs as numbers (as `decode` gives them). */
export function interpretPlan(plan: Plan, inputs: readonly ArrayLike<number>[]): Float64Array[] {
  const buffers = plan.buffers.map((buffer) => {
    const data = new Float64Array(buffer.length);
    if (buffer.role === 'input') data.set(inputs[buffer.index]!);
    return data;
  });
  for (const kernel of plan.kernels) runKernel(kernel, buffers);
  return plan.outputs.map((buffer) => buffers[buffer]!);
}

/** A point of the index space; `stamp` changes with it, so that shared subexpressions are computed once. */
interface Point {
  index: number[];
  /** The folded value, in rows those of all folds. */
  folded: readonly number[];
  stamp: number;
}
type Evaluator = (point: Point) => number;

function runKernel(kernel: Kernel, buffers: readonly Float64Array[]): void {
  const bound = kernel.bindings.map(({ buffer }) => buffers[buffer]!);
  const point: Point = { index: [], folded: [], stamp: 0 };
  const at = (evaluate: Evaluator, index: number[], ...folded: number[]): number => {
    Object.assign(point, { index, folded, stamp: point.stamp + 1 });
    return evaluate(point);
  };
  const store = (output: Output, i: number, value: number): void => {
    buffers[output.buffer]![(output.offset ?? 0) + i] = stored(output.dtype, value);
  };
  switch (kernel.kind) {
    case 'map': {
      const compiled = kernel.outputs.map((output) => compile(output.expr, bound));
      // Every output of a point is computed before any is stored: an output may overwrite what the point reads.
      forEachIndex(kernel.shape, (index, i) => {
        const values = compiled.map((evaluate) => at(evaluate, index));
        for (const [o, output] of kernel.outputs.entries()) store(output, i, values[o]!);
      });
      return;
    }
    case 'reduce': {
      const body = compile(kernel.body, bound);
      const epilogue = compile(kernel.output.expr, bound);
      forEachIndex(kernel.shape, (outer, i) => {
        let best = kernel.fold === 'sum' ? 0 : lowest(kernel.body.type);
        let position = 0;
        forEachIndex(kernel.reduced, (inner, j) => {
          const value = at(body, [...outer, ...inner]);
          if (kernel.fold === 'argmax' && value > best) position = j;
          best = kernel.fold === 'sum' ? wrap(kernel.body.type, best + value) : Math.max(best, value);
        });
        store(kernel.output, i, at(epilogue, outer, kernel.fold === 'argmax' ? position : best));
      });
      return;
    }
    case 'rows': {
      const folds = kernel.folds.map(({ fold, body }) => ({
        fold,
        type: body.type,
        body: compile(body, bound),
      }));
      const outputs = kernel.outputs.map((output) => ({ output, evaluate: compile(output.expr, bound) }));
      const length = numel(kernel.reduced);
      forEachIndex(kernel.shape, (outer, row) => {
        const folded: number[] = [];
        for (const { fold, type, body } of folds) {
          let best = fold === 'sum' ? 0 : lowest(type);
          forEachIndex(kernel.reduced, (inner) => {
            const value = at(body, [...outer, ...inner], ...folded);
            best = fold === 'sum' ? wrap(type, best + value) : Math.max(best, value);
          });
          folded.push(best);
        }
        forEachIndex(kernel.reduced, (inner, j) => {
          const values = outputs.map(({ evaluate }) => at(evaluate, [...outer, ...inner], ...folded));
          for (const [o, { output }] of outputs.entries()) {
            store(output, output.per === 'row' ? row : row * length + j, values[o]!);
          }
        });
      });
      return;
    }
    case 'contract': {
      const load = ({ binding, view }: typeof kernel.a) =>
        compile({ kind: 'load', type: 'f32', binding, view }, bound);
      const [a, b] = [load(kernel.a), load(kernel.b)];
      const epilogue = compile(kernel.output.expr, bound);
      const [batchRank, mRank] = [kernel.batch.length, kernel.m.length];
      forEachIndex([...kernel.batch, ...kernel.m, ...kernel.n], (index, i) => {
        const batch = index.slice(0, batchRank);
        const m = index.slice(batchRank, batchRank + mRank);
        const n = index.slice(batchRank + mRank);
        let sum = 0;
        forEachIndex(kernel.k, (k) => {
          sum += at(a, [...batch, ...m, ...k]) * at(b, [...batch, ...k, ...n]);
        });
        store(kernel.output, i, at(epilogue, index, sum));
      });
      return;
    }
    case 'attend':
      runAttend(kernel, bound, store);
      return;
    case 'scatter': {
      const { outer, count, inner, extent } = kernel;
      const [indices, values] = [bound[kernel.index.binding]!, bound[kernel.values.binding]!];
      const sums = new Float64Array(outer * extent * inner);
      forEachIndex([outer, count, inner], ([o, j, d], position) => {
        const i = indices[j!]!;
        if (i >= 0 && i < extent) sums[(o! * extent + i) * inner + d!]! += values[position]!;
      });
      sums.forEach((sum, i) => {
        store(kernel.output, i, sum);
      });
    }
  }
}

/** Equations (1) to (3) of ops/attention.ts, one score at a time. */
function runAttend(
  kernel: AttendKernel,
  bound: readonly Float64Array[],
  store: (output: Output, i: number, value: number) => void,
): void {
  const { batch, queries, keys, width, valueWidth, scale, causal, operands } = kernel;
  const read = (operand: Operand, index: readonly number[]): number => {
    if (!inside(operand.view.guards, index)) return 0;
    return readAt(bound[operand.binding]!, affine(operand.view, index));
  };
  const { query, key, value, mask, cotangent, logSum, rowSum } = operands;
  const isBool = mask !== undefined && kernel.bindings[mask.binding]!.dtype === 'bool';
  const sums = kernel.outputs.map(() => new Map<number, number>());
  forEachIndex(batch, (b, at) => {
    for (let i = 0; i < queries; i += 1) {
      const row = at * queries + i;
      const scores = Array.from({ length: keys }, (_, j) => {
        const bias = mask ? read(mask, [...b, i, j]) : 0;
        if ((causal && j > i) || (isBool && bias === 0)) return Number.NEGATIVE_INFINITY;
        return (
          scale * dot(width, (d) => read(query, [...b, i, d]) * read(key, [...b, j, d])) + (isBool ? 0 : bias)
        );
      });
      const largest = Math.max(...scores);
      const own = largest + Math.log(scores.reduce((sum, score) => sum + Math.exp(score - largest), 0));
      const L = logSum ? read(logSum, [...b, i]) : largest === Number.NEGATIVE_INFINITY ? Infinity : own;
      kernel.outputs.forEach(({ result }, o) => {
        const add = (place: number, term: number) => sums[o]!.set(place, (sums[o]!.get(place) ?? 0) + term);
        if (result === 'logSum') add(row, L);
        scores.forEach((score, j) => {
          const P = Math.exp(score - L);
          const to = at * keys + j;
          const elements = result === 'mean' || result === 'value' ? valueWidth : width;
          const dS =
            cotangent && rowSum
              ? scale *
                P *
                (dot(valueWidth, (e) => read(cotangent, [...b, i, e]) * read(value, [...b, j, e])) -
                  read(rowSum, [...b, i]))
              : 0;
          for (let e = 0; e < elements && result !== 'logSum'; e += 1) {
            if (result === 'mean') add(row * elements + e, P * read(value, [...b, j, e]));
            if (result === 'query') add(row * elements + e, dS * read(key, [...b, j, e]));
            if (result === 'key') add(to * elements + e, dS * read(query, [...b, i, e]));
            if (result === 'value') add(to * elements + e, P * read(cotangent!, [...b, i, e]));
          }
        });
      });
    }
  });
  kernel.outputs.forEach((output, o) => {
    for (const [place, value] of sums[o]!) store(output, place, value);
  });
}

function dot(count: number, term: (i: number) => number): number {
  let sum = 0;
  for (let i = 0; i < count; i += 1) sum += term(i);
  return sum;
}

/** Visits an index space in row-major order. */
function forEachIndex(shape: Shape, visit: (index: number[], position: number) => void): void {
  for (let position = 0; position < numel(shape); position += 1) {
    const index = new Array<number>(shape.length);
    let rest = position;
    for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
      index[axis] = rest % shape[axis]!;
      rest = Math.floor(rest / shape[axis]!);
    }
    visit(index, position);
  }
}

function stored(dtype: DType, value: number): number {
  return dtype === 'f32' ? value : roundTo(dtype, value);
}

function lowest(type: Scalar): number {
  return type === 'f32' ? Number.NEGATIVE_INFINITY : type === 'i32' ? -(2 ** 31) : 0;
}

function wrap(type: Scalar, value: number): number {
  return type === 'i32' ? value | 0 : type === 'u32' ? value >>> 0 : value;
}

function affine(f: Affine, index: readonly number[]): number {
  return f.strides.reduce((sum, stride, axis) => sum + stride * index[axis]!, f.offset);
}

function inside(guards: readonly Guard[], index: readonly number[]): boolean {
  return guards.every((guard) => affine(guard, index) >= 0 && affine(guard, index) < guard.limit);
}

function compile(root: Expr, bound: readonly Float64Array[], known = new Map<Expr, Evaluator>()): Evaluator {
  const visit = (expr: Expr): Evaluator => compile(expr, bound, known);
  const memoized = known.get(root);
  if (memoized) return memoized;
  const evaluate = compileNode(root, bound, visit);
  let stamp = -1;
  let value = 0;
  const once: Evaluator = (point) => {
    if (point.stamp !== stamp) [value, stamp] = [evaluate(point), point.stamp];
    return value;
  };
  known.set(root, once);
  return once;
}

function compileNode(
  expr: Expr,
  bound: readonly Float64Array[],
  visit: (expr: Expr) => Evaluator,
): Evaluator {
  switch (expr.kind) {
    case 'load': {
      const buffer = bound[expr.binding]!;
      return ({ index }) => (inside(expr.view.guards, index) ? readAt(buffer, affine(expr.view, index)) : 0);
    }
    case 'gather': {
      const buffer = bound[expr.binding]!;
      const position = visit(expr.index);
      return (point) => {
        const i = position(point);
        if (!inside(expr.view.guards, point.index)) return 0;
        if (i < 0 || i >= expr.extent) return expr.type === 'f32' ? Number.NaN : 0;
        return readAt(buffer, affine(expr.view, point.index) + i * expr.stride);
      };
    }
    case 'constant':
      return () => expr.value;
    case 'coordinate':
      return ({ index }) => wrap(expr.type, affine(expr, index));
    case 'inside':
      return ({ index }) => (inside(expr.guards, index) ? 1 : 0);
    case 'folded':
      return ({ folded }) => folded[expr.fold ?? 0]!;
    case 'unary': {
      const x = visit(expr.x);
      return (point) => wrap(expr.type, unary[expr.op](x(point)));
    }
    case 'binary': {
      const [x, y] = [visit(expr.x), visit(expr.y)];
      const type = expr.x.type;
      return (point) => wrap(expr.type, binary(expr.op, type, x(point), y(point)));
    }
    case 'select': {
      const [condition, yes, no] = [visit(expr.condition), visit(expr.yes), visit(expr.no)];
      return (point) => (condition(point) !== 0 ? yes(point) : no(point));
    }
    case 'cast': {
      const x = visit(expr.x);
      if (expr.type === 'f32') return x;
      if (expr.x.type === 'f32')
        return (point) => roundTo(expr.type === 'bool' ? 'bool' : expr.type, x(point));
      return (point) => (expr.type === 'bool' ? Number(x(point) !== 0) : wrap(expr.type, x(point)));
    }
    case 'threefry': {
      const [key0, key1, counter] = [visit(expr.key0), visit(expr.key1), visit(expr.counter)];
      return (point) => threefry(key0(point), key1(point), counter(point));
    }
  }
}

function readAt(buffer: Float64Array, address: number): number {
  if (address < 0 || address >= buffer.length) {
    throw new Error(`interpretPlan: a view reads element ${address} of a buffer of ${buffer.length}`);
  }
  return buffer[address]!;
}

const unary: Record<UnaryFunction, (x: number) => number> = {
  neg: (x) => -x,
  abs: Math.abs,
  sign: Math.sign,
  floor: Math.floor,
  ceil: Math.ceil,
  round: roundHalfEven,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  reciprocal: (x) => 1 / x,
  sin: Math.sin,
  cos: Math.cos,
  tanh: Math.tanh,
  erf,
  bits: (x) => new Uint32Array(Float32Array.of(x).buffer)[0]!,
  not: (x) => (x === 0 ? 1 : 0),
};

function roundHalfEven(x: number): number {
  const nearest = Math.round(x);
  return Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : nearest;
}

/** erf(x) = 2/sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!, whose terms have one sign. */
export function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = 0;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n += 1) {
    sum += term;
    term *= (2 * x * x) / (2 * n + 1);
  }
  return Number.isNaN(x) ? x : (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

function binary(op: BinaryFunction, type: Scalar, x: number, y: number): number {
  const integer = type === 'i32' || type === 'u32';
  switch (op) {
    case 'add':
      return x + y;
    case 'sub':
      return x - y;
    case 'mul':
      return integer ? Math.imul(x, y) : x * y;
    case 'div':
      return integer ? (y === 0 ? 0 : Math.trunc(x / y)) : x / y;
    case 'mod':
      return integer && y === 0 ? 0 : x % y;
    case 'max':
      return Math.max(x, y);
    case 'min':
      return Math.min(x, y);
    case 'pow':
      return x ** y;
    case 'less':
      return Number(x < y);
    case 'lessEqual':
      return Number(x <= y);
    case 'equal':
      return Number(x === y);
    case 'notEqual':
      return Number(x !== y);
    case 'and':
      return x & y;
    case 'or':
      return x | y;
    case 'xor':
      return x ^ y;
    case 'shiftLeft':
      return x << y;
    case 'shiftRight':
      return type === 'u32' ? x >>> y : x >> y;
  }
}

/** First word of Threefry-2x32-20 of counter (counter, 0); Salmon et al. 2011, section 4.2. */
export function threefry(key0: number, key1: number, counter: number): number {
  const keys = [key0, key1, key0 ^ key1 ^ 0x1bd11bda];
  const rotations = [13, 15, 26, 6, 17, 29, 16, 24];
  let x = (counter + key0) | 0;
  let y = key1 | 0;
  for (let round = 0; round < 20; round += 1) {
    const turn = rotations[round % 8]!;
    x = (x + y) | 0;
    y = ((y << turn) | (y >>> (32 - turn))) ^ x;
    if (round % 4 === 3) {
      const group = (round + 1) / 4;
      x = (x + keys[group % 3]!) | 0;
      y = (y + keys[(group + 1) % 3]! + group) | 0;
    }
  }
  return x >>> 0;
}
