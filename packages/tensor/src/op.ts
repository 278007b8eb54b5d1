/** What a primitive operation is. One object per op, in ops/<family>.ts; ops/index.ts lists them all. */
import type { DType } from './dtype.ts';
import type { AttendResult, Expr, Scalar } from './kernel.ts';
import type { Shape } from './shape.ts';
import type { Tensor } from './tensor.ts';
import type { View } from './view.ts';

/** What is known about a tensor before it is computed. */
export interface Aval {
  readonly shape: Shape;
  readonly dtype: DType;
}

/** A tensor's values as numbers, row-major: what reference implementations compute with. */
export interface Values extends Aval {
  readonly data: Float64Array;
}

/** How the compiler turns an op into kernels: a closed set, one kind for each loop of the kernel language. */
export type Lowering<Attrs> =
  /** A value from values at the same index: operands have been broadcast by `expand` already. */
  | { readonly kind: 'elementwise'; expr(inputs: readonly Expr[], attrs: Attrs, type: Scalar): Expr }
  /** A value from the index alone. */
  | { readonly kind: 'source'; expr(shape: Shape, attrs: Attrs, type: Scalar): Expr }
  /** The first input itself: a node that matters to derivatives only. */
  | { readonly kind: 'identity' }
  /** The first input itself, in a computation of its own that begins after the second has been computed. */
  | { readonly kind: 'after' }
  /** The input read differently; null where that takes a copy of the input first. */
  | { readonly kind: 'view'; view(input: View, attrs: Attrs, output: Shape): View | null }
  | {
      readonly kind: 'reduce';
      readonly fold: 'sum' | 'max' | 'argmax';
      axes(attrs: Attrs): readonly number[];
    }
  | { readonly kind: 'contract'; contraction(a: Shape, b: Shape, attrs: Attrs): Contraction }
  | { readonly kind: 'gather'; axis(attrs: Attrs): number }
  | { readonly kind: 'scatter'; axis(attrs: Attrs): number }
  | { readonly kind: 'concat'; axis(attrs: Attrs): number }
  /** A concat whose inputs lie one after the other in memory: what `readGraph` makes of it. */
  | { readonly kind: 'whole'; axis(attrs: Attrs): number }
  /** Inputs: query, key, value; for gradients cotangent, logSum, rowSum; perhaps a mask. */
  | {
      readonly kind: 'attend';
      readonly result: AttendResult;
      settings(attrs: Attrs): { readonly scale: number; readonly causal: boolean };
    };

/** A contraction (kernel.ts) over views of two operands; a view function gets the operand's own view. */
export interface Contraction {
  readonly batch: Shape;
  readonly m: Shape;
  readonly n: Shape;
  readonly k: Shape;
  /** Over [...batch, ...m, ...k]; null where the operand must be copied to be read so. */
  a(view: View): View | null;
  /** Over [...batch, ...k, ...n]. */
  b(view: View): View | null;
}

/** What the derivative rules of an op may use. */
export interface Applied<Attrs> {
  readonly inputs: readonly Tensor[];
  readonly output: Tensor;
  readonly attrs: Attrs;
}

export interface Op<Attrs = unknown> {
  readonly name: string;
  /** Shape and dtype of the output. @throws ShapeError, DTypeError naming the op, what was expected and what came */
  infer(inputs: readonly Aval[], attrs: Attrs): Aval;
  /** The definition, in float64 with plain loops: what kernels and derivatives are tested against. */
  reference(inputs: readonly Values[], attrs: Attrs, output: Aval): ArrayLike<number>;
  readonly lower: Lowering<Attrs>;
  /** Cotangents of the inputs from that of the output, in public ops; null where there is none. */
  vjp(dy: Tensor, applied: Applied<Attrs>): readonly (Tensor | null)[];
  /** Tangent of the output from those of the inputs (null: zero), of which at least one is given. */
  jvp(tangents: readonly (Tensor | null)[], applied: Applied<Attrs>): Tensor | null;
}
