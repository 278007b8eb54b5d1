/**
 * The kernel language: what the compiler lowers graphs to and what the WebGPU and wasm backends generate code from.
 *
 * A kernel is one of six loops around expressions. An expression is a value at each point of the kernel's index
 * space; it reads buffers through views, so movement costs no copy. Expressions are DAGs: the same object met twice
 * is the same value, to be computed once.
 *
 *   map       out[x]     = expr(x)                                        several outputs over one index space
 *   reduce    out[x]     = epilogue(x, fold over r of body(x, r))          r varies fastest, row-major
 *   rows      several folds over the same rows, each of which may use those before it, then outputs per row or element
 *   contract  out[b,m,n] = epilogue(b,m,n, sum over k of A[b,m,k] B[b,k,n])
 *   scatter   out[o,i,d] = sum over j with index[j] = i of values[o,j,d]
 *   attend    attention and its gradients, whose scores are never stored (ops/attention.ts, equations 1 to 3)
 *
 * b, m, n, k each stand for several axes. With views that slide windows, one contraction serves matmul and all
 * three passes of a convolution.
 */
import type { DType } from './dtype.ts';
import type { Shape } from './shape.ts';
import type { Guard, View } from './view.ts';

/** What registers hold: f16 buffers are read as f32, bool is 0 or 1. */
export type Scalar = 'f32' | 'i32' | 'u32' | 'bool';

/** Functions of one number. All floats except neg, abs, sign (also i32) and not (bool); bits gives u32. */
export type UnaryFunction =
  | 'neg'
  | 'abs'
  | 'sign'
  | 'floor'
  | 'ceil'
  | 'round' // round: half to even
  | 'exp'
  | 'log'
  | 'sqrt'
  | 'rsqrt'
  | 'reciprocal'
  | 'sin'
  | 'cos'
  | 'tanh'
  | 'erf'
  | 'bits' // the float's bit pattern
  | 'not';

/** Functions of two numbers of one type; comparisons give bool. */
export type BinaryFunction =
  | 'add'
  | 'sub'
  | 'mul'
  | 'div'
  | 'max'
  | 'min'
  | 'pow'
  | 'mod' // div and mod of integers truncate; x / 0 and x mod 0 are 0
  | 'less'
  | 'lessEqual'
  | 'equal'
  | 'notEqual'
  | 'and'
  | 'or'
  | 'xor'
  | 'shiftLeft'
  | 'shiftRight'; // bool: and, or, xor; u32: all five

export type Expr =
  /** Element of a buffer; `view.shape` is the kernel's index space. Where a guard fails: 0. */
  | { readonly kind: 'load'; readonly type: Scalar; readonly binding: number; readonly view: View }
  /** Element address(x) + index * stride of a buffer; index outside [0, extent) gives NaN (integers: 0). */
  | {
      readonly kind: 'gather';
      readonly type: Scalar;
      readonly binding: number;
      readonly view: View;
      readonly index: Expr;
      readonly stride: number;
      readonly extent: number;
    }
  | { readonly kind: 'constant'; readonly type: Scalar; readonly value: number }
  /** offset + sum_i strides_i x_i, as a number of the type. */
  | {
      readonly kind: 'coordinate';
      readonly type: Scalar;
      readonly offset: number;
      readonly strides: readonly number[];
    }
  /** Whether all guards hold. */
  | { readonly kind: 'inside'; readonly type: 'bool'; readonly guards: readonly Guard[] }
  | { readonly kind: 'unary'; readonly type: Scalar; readonly op: UnaryFunction; readonly x: Expr }
  | {
      readonly kind: 'binary';
      readonly type: Scalar;
      readonly op: BinaryFunction;
      readonly x: Expr;
      readonly y: Expr;
    }
  | {
      readonly kind: 'select';
      readonly type: Scalar;
      readonly condition: Expr;
      readonly yes: Expr;
      readonly no: Expr;
    }
  /** Float to integer truncates and saturates; anything to bool is x != 0. */
  | { readonly kind: 'cast'; readonly type: Scalar; readonly x: Expr }
  /** First word of Threefry-2x32 (20 rounds) of counter (counter, 0) under key (key0, key1), all u32. */
  | {
      readonly kind: 'threefry';
      readonly type: 'u32';
      readonly key0: Expr;
      readonly key1: Expr;
      readonly counter: Expr;
    }
  /** In an epilogue: the folded or contracted value. In rows: the result of fold `fold`. */
  | { readonly kind: 'folded'; readonly type: Scalar; readonly fold?: number };

/** Where an expression's value goes: element offset + x of a buffer, x row-major over the kernel's output shape. */
export interface Output {
  /** Index into `Plan.buffers`. */
  readonly buffer: number;
  /** Where in the buffer the output begins, a multiple of 4; default 0. Kernels write ranges of one buffer apart. */
  readonly offset?: number;
  readonly dtype: DType;
  readonly expr: Expr;
}

interface KernelBase {
  /** What the kernel computes, from the names of the ops in it: "conv2d+add+silu". For people only. */
  readonly label: string;
  /** Buffer (index into `Plan.buffers`) of each binding that the expressions name. */
  readonly bindings: readonly { readonly buffer: number; readonly dtype: DType }[];
}

export interface MapKernel extends KernelBase {
  readonly kind: 'map';
  readonly shape: Shape;
  readonly outputs: readonly Output[];
}

export interface ReduceKernel extends KernelBase {
  readonly kind: 'reduce';
  /** The output's index space. */
  readonly shape: Shape;
  /** Extents folded over. `body` is over [...shape, ...reduced], the output's expression over `shape`. */
  readonly reduced: Shape;
  /** argmax: the first position (row-major over `reduced`) of the largest value, as i32. */
  readonly fold: 'sum' | 'max' | 'argmax';
  readonly body: Expr;
  readonly output: Output;
}

/** A result of rows: a value for each row, whose expression has one value along the row, or for each element. */
export interface RowsOutput extends Output {
  readonly per: 'row' | 'element';
}

export interface RowsKernel extends KernelBase {
  readonly kind: 'rows';
  /** Index space of the rows. */
  readonly shape: Shape;
  /** Extents of one row. Every expression is over [...shape, ...reduced]. */
  readonly reduced: Shape;
  /** In order: a body may use the results of the folds before it. */
  readonly folds: readonly { readonly fold: 'sum' | 'max'; readonly body: Expr }[];
  readonly outputs: readonly RowsOutput[];
}

export interface ContractKernel extends KernelBase {
  readonly kind: 'contract';
  readonly batch: Shape;
  readonly m: Shape;
  readonly n: Shape;
  readonly k: Shape;
  /** Over [...batch, ...m, ...k]. */
  readonly a: Operand;
  /** Over [...batch, ...k, ...n]. */
  readonly b: Operand;
  /** Over [...batch, ...m, ...n], stored row-major. */
  readonly output: Output;
}

export interface ScatterKernel extends KernelBase {
  readonly kind: 'scatter';
  /** out is [outer, extent, inner]; index is [count]; values is [outer, count, inner]. All row-major. */
  readonly outer: number;
  readonly count: number;
  readonly inner: number;
  readonly extent: number;
  readonly index: { readonly binding: number };
  readonly values: { readonly binding: number };
  /** Its expression is 'folded'. Indices outside [0, extent) are left out. */
  readonly output: Output;
}

/** What a loop reads besides its expressions. */
export interface Operand {
  readonly binding: number;
  readonly view: View;
}

/** Results of attention (its weighted means, the logarithms of its rows' sums), and of its gradient. */
export type AttendResult = 'mean' | 'logSum' | 'query' | 'key' | 'value';

/** Over [...batch, queries or keys, width or valueWidth]; the mask over [...batch, queries, keys], sums of rows over
 * [...batch, queries]. A gradient has the last three. */
export interface AttendOperands {
  readonly query: Operand;
  readonly key: Operand;
  readonly value: Operand;
  /** bool: whether a query may see a key; floats: added to the scores. */
  readonly mask?: Operand;
  readonly cotangent?: Operand;
  readonly logSum?: Operand;
  readonly rowSum?: Operand;
}

export interface AttendKernel extends KernelBase {
  readonly kind: 'attend';
  readonly batch: Shape;
  readonly queries: number;
  readonly keys: number;
  readonly width: number;
  readonly valueWidth: number;
  readonly scale: number;
  readonly causal: boolean;
  readonly operands: AttendOperands;
  /** Their expressions are 'folded'. */
  readonly outputs: readonly (Output & { readonly result: AttendResult })[];
}

export type Kernel = MapKernel | ReduceKernel | RowsKernel | ContractKernel | ScatterKernel | AttendKernel;

/**
 * A buffer of a plan. `input` i is bound to the caller's i-th storage, `output` i to the storage of the i-th result,
 * and temporaries live in arena slots that the program owns; two temporaries share a slot when they are never live
 * at once. An output may reuse an input's storage (`donated`): its kernels run after the last read of that input,
 * or read it only at the very element that they write (rows: within the row, all folds before the first store).
 */
export type PlanBuffer = { readonly dtype: DType; readonly length: number } & (
  | { readonly role: 'input'; readonly index: number }
  | { readonly role: 'output'; readonly index: number; readonly donated?: number }
  | { readonly role: 'temporary'; readonly slot: number }
);

/** A graph, compiled for any backend: kernels in the order they run, and where everything lives. */
export interface Plan {
  readonly kernels: readonly Kernel[];
  readonly buffers: readonly PlanBuffer[];
  /** Bytes of each arena slot. */
  readonly slots: readonly number[];
  /** For each input, its buffer; for each output, its buffer (each output has one of its own, copied if need be). */
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
}
