/**
 * Attention with its scores kept, as contractions: on adapters that compute on the CPU a contraction's tile, which has
 * all its registers to itself, reads operands less often than a team that also holds sums, and compiles much faster
 * (measured on lavapipe at [1, 2, 1024, 64]: forward 1.5 times as fast, with gradients 2.3 times). Scratch has a fixed
 * size at most; where scores do not fit it, attend.ts computes block by block.
 *
 *     S = Q K^T    m = max S    L = m + log sum exp(S - m)    P = exp(S - L)    O = P V
 *     P = exp(Q K^T - L)    dS = P (dO V^T - D)    dQ = dS K    dK = dS^T Q    dV = P^T dO
 */
import type {
  AttendKernel,
  BinaryFunction,
  ContractKernel,
  Expr,
  Kernel,
  Operand,
  Output,
} from '../kernel.ts';
import { numel, type Shape } from '../shape.ts';
import { contiguousView, permuteView, type View } from '../view.ts';
import type { Scratch } from './rewrite.ts';

const lowest = -3.4028234663852886e38;

/** Whether the scores are few enough to be kept. */
export function fitsApart({ batch, queries, keys }: AttendKernel, limit: number): boolean {
  return numel(batch) * queries * keys <= limit;
}

/** The kernels that compute the same, in order. */
export function attendApart(kernel: AttendKernel, places: Scratch): Kernel[] {
  return new Apart(kernel, places).kernels();
}

function number(value: number): Expr {
  return { kind: 'constant', type: 'f32', value };
}

const folded: Expr = { kind: 'folded', type: 'f32' };

function binary(op: BinaryFunction, x: Expr, y: Expr, type: 'f32' | 'bool' = 'f32'): Expr {
  return { kind: 'binary', type, op, x, y };
}

function exp(x: Expr): Expr {
  return { kind: 'unary', type: 'f32', op: 'exp', x };
}

class Apart {
  readonly #kernel: AttendKernel;
  readonly #places: Scratch;
  readonly #scores: Shape;
  readonly #rows: Shape;
  /** The kernel's bindings, and those of scratch. */
  readonly #bindings: AttendKernel['bindings'][number][];

  constructor(kernel: AttendKernel, places: Scratch) {
    this.#kernel = kernel;
    this.#places = places;
    this.#rows = [...kernel.batch, kernel.queries];
    this.#scores = [...this.#rows, kernel.keys];
    this.#bindings = [...kernel.bindings];
  }

  kernels(): Kernel[] {
    return this.#kernel.operands.cotangent ? this.#gradient() : this.#attention();
  }

  #attention(): Kernel[] {
    const { label, operands } = this.#kernel;
    const [mean, logSum] = (['mean', 'logSum'] as const).map((own) => this.#output(own));
    const bindings = this.#bindings;
    const scores = this.#kept(this.#scores);
    const largest = this.#kept(this.#rows);
    const sums = logSum ? this.#read(logSum, this.#rows) : this.#kept(this.#rows);
    // Where all scores are -infinity the maximum is finite, and the sum 0.
    const m = binary('max', this.#load(largest), number(lowest));
    const perScore = binary('max', this.#load(this.#alongKeys(largest)), number(lowest));
    const isEmpty = binary('equal', folded, number(0), 'bool');
    const L: Expr = {
      kind: 'select',
      type: 'f32',
      condition: isEmpty,
      yes: number(Number.POSITIVE_INFINITY),
      no: binary('add', m, { kind: 'unary', type: 'f32', op: 'log', x: folded }),
    };
    const rows = { label, bindings, shape: this.#rows, reduced: [this.#kernel.keys] };
    const kernels: Kernel[] = [
      this.#products(operands.query, operands.key, this.#masked(), scores),
      { kind: 'reduce', ...rows, fold: 'max', body: this.#load(scores), output: this.#to(largest, folded) },
      {
        kind: 'reduce',
        ...rows,
        fold: 'sum',
        body: exp(binary('sub', this.#load(scores), perScore)),
        output: this.#to(sums, L),
      },
    ];
    if (!mean) return kernels;
    const weights = this.#kept(this.#scores);
    const P = exp(binary('sub', this.#load(scores), this.#load(this.#alongKeys(sums))));
    kernels.push(
      { kind: 'map', label, bindings, shape: this.#scores, outputs: [this.#to(weights, P)] },
      this.#sum('queries', weights, operands.value, mean, folded),
    );
    return kernels;
  }

  #gradient(): Kernel[] {
    const { operands, scale } = this.#kernel;
    const [dQ, dK, dV] = (['query', 'key', 'value'] as const).map((own) => this.#output(own));
    const weights = this.#kept(this.#scores);
    const P = exp(binary('sub', this.#masked(), this.#load(this.#alongKeys(operands.logSum!))));
    const kernels: Kernel[] = [this.#products(operands.query, operands.key, P, weights)];
    if (dV) kernels.push(this.#sum('keys', weights, operands.cotangent!, dV, folded));
    if (!dQ && !dK) return kernels;
    const changes = this.#kept(this.#scores);
    const C = binary('sub', folded, this.#load(this.#alongKeys(operands.rowSum!)));
    const dS = binary('mul', this.#load(weights), C);
    kernels.push(this.#products(operands.cotangent!, operands.value, dS, changes));
    const scaled = binary('mul', folded, number(scale));
    if (dQ) kernels.push(this.#sum('queries', changes, operands.key, dQ, scaled));
    if (dK) kernels.push(this.#sum('keys', changes, operands.query, dK, scaled));
    return kernels;
  }

  #output(result: AttendKernel['outputs'][number]['result']): Output | undefined {
    return this.#kernel.outputs.find((output) => output.result === result);
  }

  /** A new buffer of f32, as an operand. */
  #kept(shape: Shape): Operand {
    return this.#bind(this.#places.scratch('f32', numel(shape)), 'f32', shape);
  }

  #read({ buffer, dtype }: Output, shape: Shape): Operand {
    return this.#bind(buffer, dtype, shape);
  }

  #bind(buffer: number, dtype: Output['dtype'], shape: Shape): Operand {
    return { binding: this.#bindings.push({ buffer, dtype }) - 1, view: contiguousView(shape) };
  }

  #to({ binding }: Operand, expr: Expr): Output {
    return { ...this.#bindings[binding]!, expr };
  }

  #load({ binding, view }: Operand): Expr {
    return { kind: 'load', type: 'f32', binding, view };
  }

  /** A value of each row, for each score. */
  #alongKeys({ binding, view }: Operand): Operand {
    const along = <F extends { readonly strides: readonly number[] }>(f: F): F => ({
      ...f,
      strides: [...f.strides, 0],
    });
    const repeated: View = { ...along(view), shape: this.#scores, guards: view.guards.map(along) };
    return { binding, view: repeated };
  }

  /** The scaled and masked score, of the product of a query and a key. */
  #masked(): Expr {
    const { scale, causal, operands } = this.#kernel;
    const hidden = number(Number.NEGATIVE_INFINITY);
    const shown = (condition: Expr, yes: Expr): Expr => ({
      kind: 'select',
      type: 'f32',
      condition,
      yes,
      no: hidden,
    });
    let score = binary('mul', folded, number(scale));
    if (operands.mask) {
      const { binding, view } = operands.mask;
      const isBool = this.#kernel.bindings[binding]!.dtype === 'bool';
      const mask: Expr = { kind: 'load', type: isBool ? 'bool' : 'f32', binding, view };
      score = isBool ? shown(mask, score) : binary('add', score, mask);
    }
    if (!causal) return score;
    const coordinate = (back: number): Expr => ({
      kind: 'coordinate',
      type: 'i32',
      offset: 0,
      strides: this.#scores.map((_, axis) => Number(axis === this.#scores.length - back)),
    });
    return shown(binary('lessEqual', coordinate(1), coordinate(2), 'bool'), score);
  }

  /** An expression of the products of two operands' rows: [..., Lq, Lk]. */
  #products(a: Operand, b: Operand, expr: Expr, to: Operand): ContractKernel {
    const { label, batch, queries, keys } = this.#kernel;
    return {
      kind: 'contract',
      label,
      bindings: this.#bindings,
      batch,
      m: [queries],
      n: [keys],
      k: a.view.shape.slice(-1),
      a,
      b: turned(b),
      output: this.#to(to, expr),
    };
  }

  /** Rows of an operand, added up with weights [..., Lq, Lk] for each query or for each key. */
  #sum(each: 'queries' | 'keys', weights: Operand, b: Operand, to: Output, expr: Expr): ContractKernel {
    const { label, batch, queries, keys } = this.#kernel;
    const ofQueries = each === 'queries';
    return {
      kind: 'contract',
      label,
      bindings: this.#bindings,
      batch,
      m: [ofQueries ? queries : keys],
      n: b.view.shape.slice(-1),
      k: [ofQueries ? keys : queries],
      a: ofQueries ? weights : turned(weights),
      b,
      output: { buffer: to.buffer, dtype: to.dtype, expr },
    };
  }
}

/** The operand with its last two axes exchanged. */
function turned({ binding, view }: Operand): Operand {
  const rank = view.shape.length;
  const axes = [...view.shape.keys()].slice(0, -2);
  return { binding, view: permuteView(view, [...axes, rank - 1, rank - 2]) };
}
