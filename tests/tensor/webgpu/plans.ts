/** Plans for testing code generators: a builder for plans by hand, and arbitraries for kernels of every kind. */
import fc, { type Arbitrary } from 'fast-check';
import { type DType, encode, type HostArray } from '../../../packages/tensor/src/dtype.ts';
import type {
  BinaryFunction,
  Expr,
  Kernel,
  Plan,
  PlanBuffer,
  Scalar,
  UnaryFunction,
} from '../../../packages/tensor/src/kernel.ts';
import { numel, type Shape } from '../../../packages/tensor/src/shape.ts';
import {
  contiguousView,
  expandView,
  padView,
  permuteView,
  sliceView,
  type View,
  windowView,
} from '../../../packages/tensor/src/view.ts';

export const folded = (type: Scalar = 'f32'): Expr => ({ kind: 'folded', type });
export const constant = (value: number, type: Scalar = 'f32'): Expr => ({ kind: 'constant', type, value });
export const unary = (op: UnaryFunction, x: Expr): Expr => ({ kind: 'unary', type: x.type, op, x });
const comparisons: readonly BinaryFunction[] = ['less', 'lessEqual', 'equal', 'notEqual'];
export const binary = (op: BinaryFunction, x: Expr, y: Expr): Expr => ({
  kind: 'binary',
  type: comparisons.includes(op) ? 'bool' : x.type,
  op,
  x,
  y,
});
export const cast = (type: Scalar, x: Expr): Expr => ({ kind: 'cast', type, x });

/** A plan under construction: buffers in order of their making, each kernel with the bindings that it needs. */
export class PlanBuilder {
  readonly #buffers: PlanBuffer[] = [];
  readonly #kernels: Kernel[] = [];
  readonly #slots: number[] = [];
  readonly #values: HostArray[] = [];
  #bindings: { buffer: number; dtype: DType }[] = [];
  #outputs = 0;

  /** A buffer with the given values. */
  input(dtype: DType, values: ArrayLike<number>): number {
    this.#values.push(encode(dtype, values));
    return this.#add({ dtype, length: values.length, role: 'input', index: this.#values.length - 1 });
  }

  output(dtype: DType, length: number, donated?: number): number {
    this.#outputs += 1;
    const index = this.#outputs - 1;
    return this.#add({ dtype, length, role: 'output', index, ...(donated === undefined ? {} : { donated }) });
  }

  temporary(dtype: DType, length: number, slot = this.#slots.length): number {
    this.#slots[slot] = Math.max(this.#slots[slot] ?? 0, 4 * length);
    return this.#add({ dtype, length, role: 'temporary', slot });
  }

  #add(buffer: PlanBuffer): number {
    this.#buffers.push(buffer);
    return this.#buffers.length - 1;
  }

  /** The binding, in the kernel being built, of a buffer. */
  bind(buffer: number): number {
    this.#bindings.push({ buffer, dtype: this.#buffers[buffer]!.dtype });
    return this.#bindings.length - 1;
  }

  /** An expression that reads a buffer. */
  load(buffer: number, view: View | Shape): Expr {
    const { dtype } = this.#buffers[buffer]!;
    const type = dtype === 'f16' || dtype === 'f64' ? 'f32' : dtype;
    return {
      kind: 'load',
      type,
      binding: this.bind(buffer),
      view: 'strides' in view ? view : contiguousView(view),
    };
  }

  /** Ends a kernel: everything bound since the last one is its. */
  kernel(kernel: Kernel extends infer K ? (K extends Kernel ? Omit<K, 'bindings'> : never) : never): void {
    this.#kernels.push({ ...kernel, bindings: this.#bindings } as Kernel);
    this.#bindings = [];
  }

  /** The plan, and the values of its inputs. */
  build(): { plan: Plan; values: readonly HostArray[] } {
    const indices = (role: string) => this.#buffers.flatMap((buffer, i) => (buffer.role === role ? [i] : []));
    const plan: Plan = {
      kernels: this.#kernels,
      buffers: this.#buffers,
      slots: this.#slots,
      inputs: indices('input'),
      outputs: indices('output'),
    };
    return { plan, values: this.#values };
  }
}

/** Adds a kernel to a plan. */
export type AddKernel = (plan: PlanBuilder) => void;

/** Makes an expression of the kernel being built. */
type Make = (plan: PlanBuilder) => Expr;

/** Numbers in [-2, 2) without structure, the same for the same seed. */
export function noise(length: number, seed: number): Float64Array {
  let state = (seed * 2654435761) >>> 0;
  return Float64Array.from({ length }, () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    return Math.fround(state / 2 ** 30 - 2);
  });
}

function valuesOf(dtype: DType, length: number, seed: number): Float64Array {
  const values = noise(length, seed);
  switch (dtype) {
    case 'bool':
      return values.map((x) => (x < 0 ? 0 : 1));
    case 'u32':
      return values.map((x) => Math.floor((x + 2) * 100));
    case 'i32':
      return values.map((x) => Math.floor(x * 100));
    default:
      return values;
  }
}

const extent = fc.constantFrom(1, 2, 3, 4, 5, 8, 12, 16);

export function shapes(minLength: number, maxLength: number): Arbitrary<number[]> {
  return fc.array(extent, { minLength, maxLength });
}

/** A view of the given shape, and the length of the buffer that it reads. */
export function viewsOf(shape: Shape): Arbitrary<{ view: View; length: number }> {
  const axis = fc.oneof(
    { weight: 5, arbitrary: fc.constant({ kind: 'plain' } as const) },
    { weight: 2, arbitrary: fc.constant({ kind: 'repeat' } as const) },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('slice' as const),
        start: fc.nat(4),
        step: fc.constantFrom(1, 2, -1),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('pad' as const), before: fc.nat(2), after: fc.nat(2) }),
    },
  );
  const order = fc.oneof(
    fc.constant([...shape.keys()]),
    fc.shuffledSubarray([...shape.keys()], { minLength: shape.length, maxLength: shape.length }),
  );
  return fc.tuple(fc.tuple(...shape.map(() => axis)), order).map(([axes, permutation]) => {
    // Each axis's extent in the buffer, from which the change of that axis makes the wanted one.
    const stored = shape.map((n, i) => {
      const change = axes[i]!;
      if (change.kind === 'repeat') return 1;
      if (change.kind === 'slice') return change.start + Math.abs(change.step) * Math.max(0, n - 1) + 1;
      return change.kind === 'pad' ? Math.max(1, n - change.before - change.after) : n;
    });
    let view = contiguousView(permutation.map((i) => stored[i]!));
    view = permuteView(
      view,
      shape.map((_, i) => permutation.indexOf(i)),
    );
    axes.forEach((change, i) => {
      const n = shape[i]!;
      const unchanged = (value: number) => view.shape.map(() => value);
      if (change.kind === 'slice') {
        const first = change.step < 0 ? stored[i]! - 1 : change.start;
        view = sliceView(
          view,
          unchanged(0).with(i, first),
          view.shape.with(i, n),
          unchanged(1).with(i, change.step),
        );
      }
      if (change.kind === 'pad') {
        const before = Math.min(change.before, n - stored[i]!);
        view = padView(view, unchanged(0).with(i, before), unchanged(0).with(i, n - stored[i]! - before));
      }
    });
    return { view: expandView(view, shape), length: numel(stored) };
  });
}

const seeds = fc.nat(1e6);
const storedFloat = fc.constantFrom<DType>('f32', 'f32', 'f16');

function loadsOf(shape: Shape, dtype: Arbitrary<DType>): Arbitrary<Make> {
  return fc.tuple(viewsOf(shape), dtype, seeds).map(
    ([{ view, length }, type, seed]) =>
      (plan) =>
        plan.load(plan.input(type, valuesOf(type, length, seed)), view),
  );
}

function gathersOf(shape: Shape): Arbitrary<Make> {
  return fc
    .record({
      rows: fc.constantFrom(1, 3, 8),
      stride: fc.constantFrom(1, 4, 12),
      seed: seeds,
      axis: fc.nat(),
      far: fc.boolean(),
    })
    .map(({ rows, stride, seed, axis, far }) => (plan) => {
      // Along one axis the index varies, along the last the place within a row.
      const along = shape.length === 0 ? -1 : axis % shape.length;
      const strides = shape.map((_, i) =>
        i === shape.length - 1 && i !== along && shape[i]! <= stride ? 1 : 0,
      );
      const reach = strides.some((s) => s === 1) ? shape.at(-1)! - 1 : 0;
      const indices = valuesOf('u32', along < 0 ? 1 : shape[along]!, seed).map(
        (x) => (x % (rows + (far ? 2 : 0))) - (far ? 1 : 0),
      );
      const index = plan.load(plan.input('i32', indices), {
        shape,
        offset: 0,
        strides: shape.map((_, i) => (i === along ? 1 : 0)),
        guards: [],
      });
      const table = plan.input('f32', noise((rows - 1) * stride + reach + 1, seed + 1));
      const view = { shape, offset: 0, strides, guards: [] };
      const missing = binary('lessEqual', constant(rows, 'i32'), index);
      const read: Expr = {
        kind: 'gather',
        type: 'f32',
        binding: plan.bind(table),
        view,
        index,
        stride,
        extent: rows,
      };
      // A comparison with NaN means nothing on a GPU: rows that are not there are replaced.
      const negative = binary('less', index, constant(0, 'i32'));
      const condition = binary('or', missing, negative);
      return { kind: 'select', type: 'f32', condition, yes: constant(3), no: read };
    });
}

/** Float expressions over an index space whose values stay moderate, so that errors do too. */
export function floatsOf(shape: Shape, leaf?: Make): Arbitrary<Make> {
  const leaves = fc.oneof(
    { weight: 6, arbitrary: loadsOf(shape, storedFloat) },
    { weight: 1, arbitrary: gathersOf(shape) },
    {
      weight: 1,
      arbitrary: fc.double({ min: -2, max: 2, noNaN: true }).map(
        (value): Make =>
          () =>
            constant(Math.fround(value)),
      ),
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom(1, 0.25).map(
        (step): Make =>
          () => ({
            kind: 'coordinate',
            type: 'f32',
            offset: -1,
            strides: shape.map((_, i) => step * (i % 2 === 0 ? 1 : -1)),
          }),
      ),
    },
    ...(leaf ? [{ weight: 8, arbitrary: fc.constant(leaf) }] : []),
  );
  const { tree } = fc.letrec<{ tree: Make }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 3 },
      leaves,
      fc.tuple(fc.constantFrom<UnaryFunction>('neg', 'abs', 'sin', 'cos', 'tanh', 'erf'), tie('tree')).map(
        ([op, x]): Make =>
          (plan) =>
            unary(op, x(plan)),
      ),
      fc
        .tuple(fc.constantFrom<BinaryFunction>('add', 'sub', 'mul', 'max', 'min'), tie('tree'), tie('tree'))
        .map(
          ([op, x, y]): Make =>
            (plan) =>
              binary(op, x(plan), y(plan)),
        ),
      fc.tuple(fc.constantFrom<UnaryFunction>('exp', 'log', 'sqrt', 'rsqrt', 'reciprocal'), tie('tree')).map(
        ([op, x]): Make =>
          (plan) =>
            unary(op, binary('add', constant(1), unary('abs', unary('tanh', x(plan))))),
      ),
      fc.tuple(loadsOf(shape, fc.constant<DType>('bool')), tie('tree'), tie('tree')).map(
        ([condition, yes, no]): Make =>
          (plan) => ({
            kind: 'select',
            type: 'f32',
            condition: condition(plan),
            yes: yes(plan),
            no: no(plan),
          }),
      ),
    ),
  }));
  return tree;
}

/** Epilogues: the folded value, or expressions of it brought into (-1, 1), lest they magnify its rounding. */
function epiloguesOf(shape: Shape): Arbitrary<Make> {
  const bounded: Make = () => binary('div', folded(), binary('add', constant(1), unary('abs', folded())));
  return fc.oneof(
    fc.constant<Make>(() => folded()),
    floatsOf(shape, bounded),
  );
}

/** Kernels with eight buffers at most: what every device binds, and the compiler's limit. */
function bindable(kernels: Arbitrary<AddKernel>): Arbitrary<AddKernel> {
  return kernels.filter((add) => {
    const builder = new PlanBuilder();
    add(builder);
    return builder.build().plan.kernels.every(({ bindings, ...rest }) => {
      const outputs = 'outputs' in rest ? rest.outputs.length : 1;
      return bindings.length + outputs <= 8;
    });
  });
}

export const maps: Arbitrary<AddKernel> = bindable(
  shapes(0, 4).chain((shape) =>
    fc.array(fc.tuple(floatsOf(shape), storedFloat), { minLength: 1, maxLength: 2 }).map((made) => (plan) => {
      const outputs = made.map(([expr, dtype]) => ({
        dtype,
        expr: expr(plan),
        buffer: plan.output(dtype, numel(shape)),
      }));
      plan.kernel({ kind: 'map', label: `map ${shape}`, shape, outputs });
    }),
  ),
);

export const reduces: Arbitrary<AddKernel> = bindable(
  fc
    .tuple(shapes(0, 2), shapes(0, 2), fc.constantFrom('sum', 'max', 'argmax' as const), storedFloat)
    .chain(([shape, reduced, fold, dtype]) =>
      fc
        .tuple(
          fold === 'argmax'
            ? loadsOf([...shape, ...reduced], fc.constant('f32' as const))
            : floatsOf([...shape, ...reduced]),
          epiloguesOf(shape),
        )
        .map(([body, epilogue]) => (plan) => {
          const argmax = fold === 'argmax';
          const type = argmax ? 'i32' : dtype;
          plan.kernel({
            kind: 'reduce',
            label: `${fold} ${shape}|${reduced}`,
            shape,
            reduced,
            fold,
            body: body(plan),
            output: {
              dtype: type,
              expr: argmax ? folded('i32') : epilogue(plan),
              buffer: plan.output(type, numel(shape)),
            },
          });
        }),
    ),
);

/** A number in (-1, 1) that tells a fold's result. */
const boundedFold = (fold: number): Expr => {
  const result: Expr = { kind: 'folded', type: 'f32', fold };
  return binary('div', result, binary('add', constant(1), unary('abs', result)));
};

/** Folds that may use those before them and share a dear expression with the outputs; each output per row or element. */
export const rows: Arbitrary<AddKernel> = bindable(
  fc
    .record({
      shape: shapes(0, 2),
      reduced: fc.oneof(shapes(1, 2), fc.constantFrom([64], [3, 36], [2052])),
      folds: fc.array(fc.constantFrom('sum', 'max' as const), { minLength: 1, maxLength: 3 }),
      choices: fc.array(fc.boolean(), { minLength: 16, maxLength: 16 }),
      outputs: fc.array(fc.tuple(fc.constantFrom('row', 'element' as const), storedFloat), {
        minLength: 1,
        maxLength: 2,
      }),
    })
    .filter(({ shape, reduced }) => numel(shape) * numel(reduced) <= 4200)
    .chain(({ shape, reduced, folds, choices, outputs }) => {
      const full = [...shape, ...reduced];
      return fc
        .tuple(loadsOf(full, storedFloat), loadsOf(full, storedFloat), loadsOf(shape, storedFloat))
        .map(([dear, element, row]) => (plan) => {
          const uses = choices.values();
          const shared = unary('exp', unary('tanh', dear(plan)));
          const own = element(plan);
          const ofRow = alongRows(row(plan), full);
          const mixed = (start: Expr, before: number): Expr =>
            folds
              .slice(0, before)
              .map((_, fold) => fold)
              .filter(() => uses.next().value)
              .reduce((sum, fold) => binary('sub', sum, boundedFold(fold)), start);
          const bodies = folds.map((fold, i) => ({
            fold,
            body: mixed(uses.next().value ? binary('mul', shared, ofRow) : own, i),
          }));
          plan.kernel({
            kind: 'rows',
            label: `rows ${shape}|${reduced}`,
            shape,
            reduced,
            folds: bodies,
            outputs: outputs.map(([per, dtype]) => ({
              per,
              dtype,
              expr: mixed(per === 'row' ? ofRow : binary('mul', shared, own), folds.length),
              buffer: plan.output(dtype, numel(per === 'row' ? shape : full)),
            })),
          });
        });
    }),
);

/** A load of rows, repeated along each of them. */
function alongRows(load: Expr, full: Shape): Expr {
  if (load.kind !== 'load') throw new Error('expected a load');
  const { view } = load;
  const repeated = (strides: readonly number[]) => full.map((_, axis) => strides[axis] ?? 0);
  const guards = view.guards.map((guard) => ({ ...guard, strides: repeated(guard.strides) }));
  return { ...load, view: { ...view, shape: full, strides: repeated(view.strides), guards } };
}

export const contracts: Arbitrary<AddKernel> = bindable(
  fc
    .tuple(shapes(0, 1), shapes(0, 2), shapes(0, 2), shapes(0, 2), storedFloat)
    .chain(([batch, m, n, k, dtype]) =>
      fc
        .tuple(
          viewsOf([...batch, ...m, ...k]),
          viewsOf([...batch, ...k, ...n]),
          epiloguesOf([...batch, ...m, ...n]),
          seeds,
          storedFloat,
          storedFloat,
        )
        .map(([a, b, epilogue, seed, aType, bType]) => (plan) => {
          const left = plan.bind(plan.input(aType, noise(a.length, seed)));
          const right = plan.bind(plan.input(bType, noise(b.length, seed + 1)));
          plan.kernel({
            kind: 'contract',
            label: `contract ${batch}|${m}|${n}|${k}`,
            batch,
            m,
            n,
            k,
            a: { binding: left, view: a.view },
            b: { binding: right, view: b.view },
            output: {
              dtype,
              expr: epilogue(plan),
              buffer: plan.output(dtype, numel([...batch, ...m, ...n])),
            },
          });
        }),
    ),
);

export interface Convolution {
  readonly batch: number;
  readonly channels: number;
  readonly filters: number;
  readonly size: number;
  readonly kernel: number;
  readonly stride: number;
  readonly padding: number;
  readonly seed: number;
}

/** A convolution as a contraction of weights with windows. */
export function convolution(of: Convolution): AddKernel {
  const { batch, channels, filters, size, kernel, stride, padding, seed } = of;
  return (plan) => {
    const margin = [0, 0, padding, padding];
    const padded = padView(contiguousView([batch, channels, size, size]), margin, margin);
    const windows = windowView(windowView(padded, 2, kernel, stride, 1), 3, kernel, stride, 1); // [N, C, H, W, KH, KW]
    const [h, w] = [windows.shape[2]!, windows.shape[3]!];
    const k = [channels, kernel, kernel];
    const weights = expandView(contiguousView([1, filters, ...k]), [batch, filters, ...k]);
    const a = plan.bind(plan.input('f32', noise(numel([filters, ...k]), seed)));
    const b = plan.bind(plan.input('f32', noise(batch * channels * size * size, seed + 1)));
    plan.kernel({
      kind: 'contract',
      label: `conv ${JSON.stringify(of)}`,
      batch: [batch],
      m: [filters],
      n: [h, w],
      k,
      a: { binding: a, view: weights },
      b: { binding: b, view: permuteView(windows, [0, 1, 4, 5, 2, 3]) },
      output: { dtype: 'f32', expr: folded(), buffer: plan.output('f32', numel([batch, filters, h, w])) },
    });
  };
}

export const convolutions: Arbitrary<AddKernel> = fc
  .record({
    batch: fc.constantFrom(1, 2),
    channels: fc.constantFrom(1, 3, 4),
    filters: fc.constantFrom(2, 4, 5),
    size: fc.constantFrom(5, 8),
    kernel: fc.constantFrom(1, 2, 3),
    stride: fc.constantFrom(1, 2),
    padding: fc.constantFrom(0, 1),
    seed: seeds,
  })
  .map(convolution);

export const scatters: Arbitrary<AddKernel> = fc
  .tuple(
    fc.constantFrom(1, 2),
    fc.constantFrom(1, 5, 16),
    fc.constantFrom(1, 3, 8),
    fc.constantFrom(1, 4, 7),
    seeds,
    storedFloat,
  )
  .map(([outer, count, inner, extent, seed, dtype]) => (plan) => {
    const index = valuesOf('u32', count, seed).map((x) => (x % (extent + 2)) - 1);
    plan.kernel({
      kind: 'scatter',
      label: `scatter ${outer}x${count}x${inner}`,
      outer,
      count,
      inner,
      extent,
      index: { binding: plan.bind(plan.input('i32', index)) },
      values: { binding: plan.bind(plan.input('f32', noise(outer * count * inner, seed + 1))) },
      output: { dtype, expr: folded(), buffer: plan.output(dtype, outer * extent * inner) },
    });
  });
