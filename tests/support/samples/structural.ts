/** Samples of the ops that make, move, fold, pick and multiply elements. */
import { type DType, numel, type Shape } from '@deftjs/tensor';
import fc from 'fast-check';
import {
  at,
  distinct,
  floats,
  indices,
  type OpSamples,
  type SampleTensor,
  shapes,
  tabulate,
  tensorOf,
  typesBut,
  valuesOf,
} from './sample.ts';

const f32 = (...shape: number[]): { shape: Shape; dtype: DType } => ({ shape, dtype: 'f32' });
const i32 = (...shape: number[]): { shape: Shape; dtype: DType } => ({ shape, dtype: 'i32' });

/** Valid and smooth samples of an op that reads one tensor: `attrs` draws its attributes from the shape. */
function unary<Attrs>(
  attrs: (shape: Shape) => fc.Arbitrary<Attrs>,
  rest: Pick<OpSamples<Attrs>, 'expected' | 'invalid'>,
  options: { minRank?: number; refuses?: readonly DType[]; empty?: boolean } = {},
): OpSamples<Attrs> {
  const { minRank = 0, refuses = [], empty = true } = options;
  const drawn = (most: number, dtypes: fc.Arbitrary<DType>) =>
    fc
      .tuple(shapes({ minRank, most, empty }), dtypes)
      .chain(([shape, dtype]) => fc.tuple(valuesOf(shape, dtype), attrs(shape)))
      .map(([x, drawnAttrs]) => ({ inputs: [x], attrs: drawnAttrs }));
  return {
    valid: drawn(60, typesBut(...refuses)),
    smooth: drawn(12, fc.constant('f32')),
    special: [],
    ...rest,
  };
}

const full: OpSamples<{ readonly shape: Shape; readonly value: number; readonly dtype: DType }> = (() => {
  const drawn = fc
    .tuple(
      shapes(),
      fc.oneof(
        fc.tuple(fc.constant<DType>('f32'), fc.constantFrom(0, 1, -0.5, Number.NEGATIVE_INFINITY)),
        fc.tuple(fc.constant<DType>('i32'), fc.constantFrom(0, -1, 2 ** 31 - 1)),
        fc.tuple(fc.constant<DType>('u32'), fc.constantFrom(0, 2 ** 32 - 1)),
        fc.tuple(fc.constant<DType>('bool'), fc.constantFrom(0, 1)),
      ),
    )
    .map(([shape, [dtype, value]]) => ({ inputs: [], attrs: { shape, value, dtype } }));
  return {
    valid: drawn,
    smooth: drawn,
    expected: (_inputs, { shape, value }) => tabulate(shape, () => value),
    special: [],
    invalid: [
      {
        inputs: [],
        attrs: { shape: [-1], value: 0, dtype: 'f32' },
        error: 'ShapeError',
        message: 'extents must be whole numbers >= 0; got [-1]',
      },
      {
        inputs: [],
        attrs: { shape: [2 ** 27, 2 ** 27], value: 0, dtype: 'f32' },
        error: 'ShapeError',
        message: 'more elements than 2^53; got [134217728, 134217728]',
      },
    ],
  };
})();

const iota: OpSamples<{ readonly shape: Shape; readonly axis: number; readonly dtype: DType }> = (() => {
  const drawn = fc
    .tuple(shapes({ minRank: 1 }), fc.constantFrom<DType[]>('f32', 'i32', 'u32'), fc.nat())
    .map(([shape, dtype, n]) => ({ inputs: [], attrs: { shape, axis: n % shape.length, dtype } }));
  return {
    valid: drawn,
    smooth: drawn,
    expected: (_inputs, { shape, axis }) => tabulate(shape, (index) => index[axis]!),
    special: [],
    invalid: [
      {
        inputs: [],
        attrs: { shape: [2], axis: 0, dtype: 'bool' },
        error: 'DTypeError',
        message: 'expected numbers; got bool',
      },
    ],
  };
})();

/** A shape with the extents of another split, merged, reordered and with ones put in. */
function regrouped(shape: Shape): fc.Arbitrary<Shape> {
  return fc
    .tuple(fc.shuffledSubarray([...shape], { minLength: shape.length }), fc.nat(3))
    .map(([shuffled, how]) => {
      if (how === 0) return [numel(shape)];
      if (how === 1 && shuffled.length > 1) return [shuffled[0]! * shuffled[1]!, ...shuffled.slice(2)];
      return how === 2 ? [1, ...shuffled] : [...shuffled.slice(0, 1), 1, ...shuffled.slice(1)];
    });
}

const reshape = unary((shape) => regrouped(shape).map((to) => ({ shape: to })), {
  expected: ([x]) => x!.values,
  invalid: [
    {
      inputs: [f32(2, 3)],
      attrs: { shape: [4] },
      error: 'ShapeError',
      message: 'the number of elements changes; got [2, 3] and [4]',
    },
  ],
});

const permute = unary(
  (shape) => fc.shuffledSubarray([...shape.keys()], { minLength: shape.length }).map((axes) => ({ axes })),
  {
    expected: ([x], { axes }) =>
      tabulate(
        axes.map((axis) => x!.shape[axis]!),
        (index) =>
          at(
            x!,
            axes.map((_, axis) => index[axes.indexOf(axis)]!),
          ),
      ),
    invalid: [],
  },
);

interface SliceAttrs {
  readonly starts: readonly number[];
  readonly shape: Shape;
  readonly steps: readonly number[];
}

/** A run of places along one axis: forwards or backwards, possibly none. */
function run(extent: number): fc.Arbitrary<{ start: number; step: number; count: number }> {
  return fc
    .tuple(fc.nat(Math.max(0, extent - 1)), fc.constantFrom(1, 2, 3, -1, -2), fc.nat())
    .map(([start, step, n]) => {
      const most =
        extent === 0 ? 0 : step > 0 ? Math.ceil((extent - start) / step) : Math.floor(start / -step) + 1;
      return { start, step, count: n % (most + 1) };
    });
}

const slice = unary<SliceAttrs>(
  (shape) =>
    fc.tuple(...shape.map(run)).map((runs) => ({
      starts: runs.map(({ start }) => start),
      shape: runs.map(({ count }) => count),
      steps: runs.map(({ step }) => step),
    })),
  {
    expected: ([x], { starts, shape, steps }) =>
      tabulate(shape, (index) =>
        at(
          x!,
          index.map((i, axis) => starts[axis]! + steps[axis]! * i),
        ),
      ),
    invalid: [],
  },
);

interface PadAttrs {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

const pad = unary<PadAttrs>(
  (shape) => {
    const amounts = fc.array(fc.nat(2), { minLength: shape.length, maxLength: shape.length });
    return fc.record({ before: amounts, after: amounts });
  },
  {
    expected: ([x], { before, after }) =>
      tabulate(
        x!.shape.map((extent, axis) => before[axis]! + extent + after[axis]!),
        (index) => {
          const inner = index.map((i, axis) => i - before[axis]!);
          return inner.every((i, axis) => i >= 0 && i < x!.shape[axis]!) ? at(x!, inner) : 0;
        },
      ),
    invalid: [],
  },
);

const unfold = unary<{ axis: number; size: number; step: number; dilation: number }>(
  (shape) =>
    fc.tuple(fc.nat(), fc.nat(), fc.constantFrom(1, 2), fc.constantFrom(1, 2)).map(([n, m, step, spread]) => {
      const longest = Math.max(...shape);
      const axis = shape.indexOf(longest);
      const size = 1 + (n % longest);
      const dilation = (size - 1) * spread < longest ? spread : 1;
      return { axis: m % 2 === 0 ? axis : shape.lastIndexOf(longest), size, step, dilation };
    }),
  {
    expected: ([x], { axis, size, step, dilation }) => {
      const starts: number[] = [];
      for (let start = 0; start + dilation * (size - 1) < x!.shape[axis]!; start += step) starts.push(start);
      return tabulate([...x!.shape.with(axis, starts.length), size], (place) => {
        const [index, k] = [place.slice(0, -1), place.at(-1)!];
        return at(x!, index.with(axis, starts[index[axis]!]! + k * dilation));
      });
    },
    invalid: [
      {
        inputs: [f32(2, 3)],
        attrs: { axis: 1, size: 2, step: 1, dilation: 3 },
        error: 'ShapeError',
        message: 'a window of 4 is longer than axis 1 of [2, 3]',
      },
    ],
  },
  { minRank: 1, empty: false },
);

const identity = unary(() => fc.constant(null), { expected: ([x]) => x!.values, invalid: [] });

const after: OpSamples<null> = (() => {
  const drawn = (most: number, dtypes: fc.Arbitrary<DType>) =>
    fc
      .tuple(shapes({ most }), shapes({ most: 4 }), dtypes)
      .chain(([shape, other, dtype]) => fc.tuple(valuesOf(shape, dtype), floats(other)))
      .map((inputs) => ({ inputs, attrs: null }));
  return {
    valid: drawn(60, typesBut()),
    smooth: drawn(12, fc.constant('f32')),
    expected: ([x]) => x!.values,
    special: [],
    invalid: [],
  };
})();

/** A shape that another is stretched from: some extents 1, leading axes missing. */
const expand = unary(
  (shape) =>
    fc.tuple(shapes({ maxRank: 2, most: 4 }), fc.constantFrom(1, 2, 3, 0)).map(([lead, repeats]) => ({
      shape: [
        ...lead.slice(0, 4 - shape.length),
        ...shape.map((extent) => (extent === 1 ? repeats : extent)),
      ],
    })),
  {
    expected: ([x], { shape }) => {
      const lead = shape.length - x!.shape.length;
      return tabulate(shape, (index) =>
        at(
          x!,
          x!.shape.map((extent, axis) => (extent === 1 ? 0 : index[axis + lead]!)),
        ),
      );
    },
    invalid: [
      {
        inputs: [f32(2, 3)],
        attrs: { shape: [2, 4] },
        error: 'ShapeError',
        message: 'shapes do not broadcast; got [2, 3] and [2, 4]',
      },
      {
        inputs: [f32(2, 3)],
        attrs: { shape: [3] },
        error: 'ShapeError',
        message: 'the shape does not stretch to the other; got [2, 3] and [3]',
      },
      {
        inputs: [f32(2)],
        attrs: { shape: [1] },
        error: 'ShapeError',
        message: 'the shape does not stretch to the other; got [2] and [1]',
      },
    ],
  },
);

interface Axes {
  readonly axes: readonly number[];
}

/** The elements that fold into each place of the result, row-major. */
export function folded({ shape, values }: SampleTensor, axes: readonly number[]): number[][] {
  const kept = [...shape.keys()].filter((axis) => !axes.includes(axis));
  const groups = new Map<string, number[]>();
  for (const index of indices(kept.map((axis) => shape[axis]!))) groups.set(index.join(), []);
  indices(shape).forEach((index, i) => {
    groups.get(kept.map((axis) => index[axis]!).join())!.push(values[i]!);
  });
  return [...groups.values()];
}

export const someAxes = (shape: Shape): fc.Arbitrary<Axes> =>
  fc.subarray([...shape.keys()], { minLength: Math.min(1, shape.length) }).map((axes) => ({ axes }));

const sum = unary(
  someAxes,
  {
    expected: ([x], { axes }) =>
      folded(x!, axes).map((group) => {
        const total = group.reduce((partial, value) => partial + value, 0);
        return x!.dtype === 'i32' ? total | 0 : x!.dtype === 'u32' ? total >>> 0 : total;
      }),
    invalid: [
      {
        inputs: [{ shape: [2], dtype: 'bool' }],
        attrs: { axes: [0] },
        error: 'DTypeError',
        message: 'expected numbers; got bool',
      },
    ],
  },
  { minRank: 1, refuses: ['bool'] },
);

/** Samples of a fold that chooses: no empty axis; smooth ones have no two values alike. */
function choosing(choice: (group: readonly number[]) => number): OpSamples<Axes> {
  const drawn = (most: number, values: (shape: Shape) => fc.Arbitrary<SampleTensor>) =>
    shapes({ minRank: 1, most, empty: false })
      .chain((shape) => fc.tuple(values(shape), someAxes(shape)))
      .map(([x, attrs]) => ({ inputs: [x], attrs }));
  return {
    valid: fc.oneof(
      drawn(60, (shape) => typesBut('bool').chain((dtype) => valuesOf(shape, dtype))),
      drawn(60, (shape) => floats(shape, { low: -1, high: 1, unit: 1 })),
    ),
    smooth: drawn(12, distinct),
    expected: ([x], { axes }) => folded(x!, axes).map(choice),
    special: [],
    invalid: [
      {
        inputs: [f32(2, 0)],
        attrs: { axes: [1] },
        error: 'ShapeError',
        message: 'nothing to choose from along an empty axis; got [2, 0]',
      },
      {
        inputs: [{ shape: [2], dtype: 'bool' }],
        attrs: { axes: [0] },
        error: 'DTypeError',
        message: 'expected numbers; got bool',
      },
    ],
  };
}

const max = choosing((group) => Math.max(...group));
const argmax = choosing((group) => group.indexOf(Math.max(...group)));

interface Axis {
  readonly axis: number;
}

/** Positions along an axis, some of them (one in eight) outside. */
function positions(shape: Shape, extent: number): fc.Arbitrary<SampleTensor> {
  const inside = fc.nat(Math.max(0, extent - 1));
  return tensorOf(
    shape,
    'i32',
    fc.oneof(
      { weight: 7, arbitrary: inside },
      { weight: 1, arbitrary: fc.constantFrom(-1, extent, extent + 7) },
    ),
  );
}

const gather: OpSamples<Axis> = (() => {
  const drawn = (most: number, dtypes: fc.Arbitrary<DType>, outside: boolean) =>
    fc
      .tuple(shapes({ minRank: 1, maxRank: 3, most }), shapes({ maxRank: 2, most: 4 }), dtypes, fc.nat())
      .chain(([shape, places, dtype, n]) => {
        const axis = n % shape.length;
        const extent = shape[axis]!;
        const index =
          outside || extent === 0 ? positions(places, extent) : tensorOf(places, 'i32', fc.nat(extent - 1));
        return fc.tuple(valuesOf(shape, dtype), index).map((inputs) => ({ inputs, attrs: { axis } }));
      });
  return {
    valid: drawn(60, typesBut(), true),
    smooth: drawn(12, fc.constant('f32'), false).filter(
      ({ inputs: [x], attrs: { axis } }) => x!.shape[axis] !== 0,
    ),
    expected: ([x, index], { axis }) =>
      tabulate(x!.shape.toSpliced(axis, 1, ...index!.shape), (place) => {
        const k = at(index!, place.slice(axis, axis + index!.shape.length));
        if (k < 0 || k >= x!.shape[axis]!) return x!.dtype === 'f32' ? Number.NaN : 0;
        return at(x!, place.toSpliced(axis, index!.shape.length, k));
      }),
    special: [],
    invalid: [
      {
        inputs: [f32(3), f32(2)],
        attrs: { axis: 0 },
        error: 'DTypeError',
        message: 'the index must be i32; got f32',
      },
    ],
  };
})();

interface ScatterAttrs extends Axis {
  readonly extent: number;
}

const scatterAdd: OpSamples<ScatterAttrs> = (() => {
  const drawn = (most: number, dtypes: fc.Arbitrary<DType>) =>
    fc
      .tuple(shapes({ minRank: 1, maxRank: 3, most }), dtypes, fc.nat(), fc.constantFrom(1, 3, 5, 0))
      .chain(([shape, dtype, n, extent]) => {
        const axis = n % shape.length;
        return fc
          .tuple(valuesOf(shape, dtype), positions([shape[axis]!], extent))
          .map((inputs) => ({ inputs, attrs: { axis, extent } }));
      });
  return {
    valid: drawn(60, typesBut('bool')),
    smooth: drawn(12, fc.constant('f32')),
    expected: ([x, index], { axis, extent }) => {
      const wrap = (value: number): number =>
        x!.dtype === 'i32' ? value | 0 : x!.dtype === 'u32' ? value >>> 0 : value;
      return tabulate(x!.shape.with(axis, extent), (place) =>
        wrap(
          index!.values.reduce(
            (total, k, j) => (k === place[axis] ? total + at(x!, place.with(axis, j)) : total),
            0,
          ),
        ),
      );
    },
    special: [],
    invalid: [
      {
        inputs: [f32(3), f32(3)],
        attrs: { axis: 0, extent: 2 },
        error: 'DTypeError',
        message: 'the index must be i32; got f32',
      },
      {
        inputs: [f32(3), i32(2)],
        attrs: { axis: 0, extent: 2 },
        error: 'ShapeError',
        message: 'expected one index for each of 3 places; got [3] and [2]',
      },
      {
        inputs: [{ shape: [3], dtype: 'bool' }, i32(3)],
        attrs: { axis: 0, extent: 2 },
        error: 'DTypeError',
        message: 'expected numbers; got bool',
      },
    ],
  };
})();

const concat: OpSamples<Axis> = (() => {
  const drawn = (most: number, dtypes: fc.Arbitrary<DType>) =>
    fc
      .tuple(
        shapes({ minRank: 1, most }),
        dtypes,
        fc.nat(),
        fc.array(fc.constantFrom(1, 2, 0, 3), { minLength: 1, maxLength: 3 }),
      )
      .chain(([shape, dtype, n, extents]) => {
        const axis = n % shape.length;
        return fc
          .tuple(...extents.map((extent) => valuesOf(shape.with(axis, extent), dtype)))
          .map((inputs) => ({ inputs, attrs: { axis } }));
      });
  return {
    valid: drawn(24, typesBut()),
    smooth: drawn(6, fc.constant('f32')),
    expected: (inputs, { axis }) => {
      const owner = inputs.flatMap((x) => Array.from({ length: x.shape[axis]! }, (_, i) => ({ x, i })));
      return tabulate(inputs[0]!.shape.with(axis, owner.length), (place) => {
        const { x, i } = owner[place[axis]!]!;
        return at(x, place.with(axis, i));
      });
    },
    special: [],
    invalid: [
      {
        inputs: [f32(2, 3), f32(3, 3)],
        attrs: { axis: 1 },
        error: 'ShapeError',
        message: 'shapes differ outside axis 1; got [2, 3] and [3, 3]',
      },
      {
        inputs: [f32(2), i32(2)],
        attrs: { axis: 0 },
        error: 'DTypeError',
        message: 'operands must have one dtype (use cast); got f32 and i32',
      },
    ],
  };
})();

const matmul: OpSamples<null> = (() => {
  const extent = fc.constantFrom(2, 1, 3, 5, 0);
  const drawn = (extents: fc.Arbitrary<number>, most: number) =>
    fc
      .tuple(shapes({ maxRank: 2, most }), extents, extents, extents)
      .chain(([batch, m, k, n]) => fc.tuple(floats([...batch, m, k]), floats([...batch, k, n])))
      .map((inputs) => ({ inputs, attrs: null }));
  return {
    valid: drawn(extent, 6),
    smooth: drawn(fc.constantFrom(2, 1, 3), 2),
    expected: ([a, b]) => {
      const [m, k] = a!.shape.slice(-2) as [number, number];
      return tabulate([...a!.shape.slice(0, -2), m, b!.shape.at(-1)!], (index) => {
        const [batch, i, j] = [index.slice(0, -2), index.at(-2)!, index.at(-1)!];
        return Array.from(
          { length: k },
          (_, l) => at(a!, [...batch, i, l]) * at(b!, [...batch, l, j]),
        ).reduce((total, term) => total + term, 0);
      });
    },
    special: [],
    invalid: [
      {
        inputs: [f32(2, 3), f32(4, 2)],
        attrs: null,
        error: 'ShapeError',
        message: 'inner extents must be equal; got [2, 3] and [4, 2]',
      },
      {
        inputs: [f32(3), f32(3)],
        attrs: null,
        error: 'ShapeError',
        message: 'inner extents must be equal; got [3] and [3]',
      },
      {
        inputs: [i32(2, 2), i32(2, 2)],
        attrs: null,
        error: 'DTypeError',
        message: 'expected floats; got i32',
      },
    ],
  };
})();

interface ConvGeometry {
  readonly stride: readonly [number, number];
  readonly padding: readonly [number, number];
  readonly dilation: readonly [number, number];
  readonly groups: number;
}

interface ConvShapes extends ConvGeometry {
  readonly x: Shape;
  readonly w: Shape;
  readonly y: Shape;
}

/** Convolutions that fit: the image is drawn to be at least as large as the spread kernel less its padding. */
function convolutions(most: number): fc.Arbitrary<ConvShapes> {
  const axis = fc.record({
    kernel: fc.constantFrom(1, 2, 3),
    stride: fc.constantFrom(1, 2, 3),
    padding: fc.constantFrom(0, 1, 2, 4),
    dilation: fc.constantFrom(1, 2),
    more: fc.nat(most),
  });
  const channels = fc.constantFrom(1, 2);
  return fc
    .tuple(fc.constantFrom(1, 2, 0), channels, channels, fc.constantFrom(1, 1, 2), axis, axis)
    .map(([n, ci, co, groups, h, w]) => {
      const reach = [h, w].map(({ kernel, dilation }) => dilation * (kernel - 1) + 1);
      const size = [h, w].map(({ padding, more }, i) => Math.max(1, reach[i]! - 2 * padding) + more);
      const out = [h, w].map(
        ({ padding, stride }, i) => Math.floor((size[i]! + 2 * padding - reach[i]!) / stride) + 1,
      );
      return {
        stride: [h.stride, w.stride],
        padding: [h.padding, w.padding],
        dilation: [h.dilation, w.dilation],
        groups,
        x: [n, ci * groups, ...size],
        w: [co * groups, ci, h.kernel, w.kernel],
        y: [n, co * groups, ...out],
      };
    });
}

/** Every product that a convolution adds up: places in y, w and x; places outside the image are left out. */
function visitTaps(
  { stride, padding, dilation, groups }: ConvGeometry,
  [x, w, y]: readonly [Shape, Shape, Shape],
  visit: (y: readonly number[], w: readonly number[], x: readonly number[]) => void,
): void {
  for (const out of indices(y)) {
    for (const tap of indices(w.slice(1))) {
      const [n, co, oh, ow] = out as [number, number, number, number];
      const [c, kh, kw] = tap as [number, number, number];
      const group = Math.floor(co / (y[1]! / groups));
      const h = oh * stride[0] + kh * dilation[0] - padding[0];
      const v = ow * stride[1] + kw * dilation[1] - padding[1];
      if (h < 0 || v < 0 || h >= x[2]! || v >= x[3]!) continue;
      visit(out, [co, ...tap], [n, group * w[1]! + c, h, v]);
    }
  }
}

const place = (shape: Shape, index: readonly number[]): number =>
  index.reduce((sum, i, axis) => sum * shape[axis]! + i, 0);

const geometryOf = ({ stride, padding, dilation, groups }: ConvShapes): ConvGeometry => ({
  stride,
  padding,
  dilation,
  groups,
});

const unit: ConvGeometry = { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 };

const conv2d: OpSamples<ConvGeometry> = (() => {
  const drawn = (most: number) =>
    convolutions(most).chain((conv) =>
      fc.tuple(floats(conv.w), floats(conv.x)).map((inputs) => ({ inputs, attrs: geometryOf(conv) })),
    );
  return {
    valid: drawn(4),
    smooth: drawn(1),
    expected: ([w, x], geometry) => {
      const size = [0, 1].map((i) => {
        const reach = geometry.dilation[i]! * (w!.shape[i + 2]! - 1) + 1;
        return Math.floor((x!.shape[i + 2]! + 2 * geometry.padding[i]! - reach) / geometry.stride[i]!) + 1;
      });
      const y = [x!.shape[0]!, w!.shape[0]!, ...size];
      const out = new Array<number>(numel(y)).fill(0);
      visitTaps(geometry, [x!.shape, w!.shape, y], (yi, wi, xi) => {
        out[place(y, yi)]! += at(w!, wi) * at(x!, xi);
      });
      return out;
    },
    special: [],
    invalid: [
      {
        inputs: [f32(2, 3, 1, 1), f32(3, 4, 4)],
        attrs: unit,
        error: 'ShapeError',
        message: 'expected four axes (N, C, H, W) and (Co, Ci, KH, KW); got [3, 4, 4] and [2, 3, 1, 1]',
      },
      {
        inputs: [f32(2, 3, 1, 1), f32(1, 4, 4, 4)],
        attrs: unit,
        error: 'ShapeError',
        message: 'channels do not fit 1 group(s); got [1, 4, 4, 4] and [2, 3, 1, 1]',
      },
      {
        inputs: [f32(2, 3, 5, 1), f32(1, 3, 4, 4)],
        attrs: unit,
        error: 'ShapeError',
        message: 'the kernel is larger than the image; got [1, 3, 4, 4] and [2, 3, 5, 1]',
      },
      {
        inputs: [f32(2, 3, 1, 1), f32(1, 3, 4, 4)],
        attrs: { ...unit, stride: [0, 1] },
        error: 'ShapeError',
        message: 'stride, dilation and groups must be whole numbers >= 1, padding >= 0',
      },
      {
        inputs: [i32(2, 3, 1, 1), i32(1, 3, 4, 4)],
        attrs: unit,
        error: 'DTypeError',
        message: 'expected floats; got i32',
      },
    ],
  };
})();

interface WeightAttrs extends ConvGeometry {
  readonly kernel: readonly [number, number];
}

const conv2dWeight: OpSamples<WeightAttrs> = (() => {
  const drawn = (most: number) =>
    convolutions(most).chain((conv) =>
      fc.tuple(floats(conv.y), floats(conv.x)).map((inputs) => ({
        inputs,
        attrs: { ...geometryOf(conv), kernel: [conv.w[2]!, conv.w[3]!] as const },
      })),
    );
  return {
    valid: drawn(4),
    smooth: drawn(1),
    expected: ([dy, x], attrs) => {
      const w = [dy!.shape[1]!, x!.shape[1]! / attrs.groups, ...attrs.kernel];
      const out = new Array<number>(numel(w)).fill(0);
      visitTaps(attrs, [x!.shape, w, dy!.shape], (yi, wi, xi) => {
        out[place(w, wi)]! += at(dy!, yi) * at(x!, xi);
      });
      return out;
    },
    special: [],
    invalid: [
      {
        inputs: [f32(2, 3, 1), f32(1, 4, 4, 4)],
        attrs: { ...unit, kernel: [1, 1] },
        error: 'ShapeError',
        message: 'expected four axes (N, C, H, W) and (Co, Ci, KH, KW); got [1, 4, 4, 4] and [2, 3, 1]',
      },
    ],
  };
})();

export const structuralSamples = {
  full,
  iota,
  reshape,
  permute,
  slice,
  pad,
  unfold,
  alias: identity,
  stopGradient: identity,
  after,
  expand,
  sum,
  max,
  argmax,
  gather,
  scatterAdd,
  concat,
  matmul,
  conv2d,
  conv2dWeight,
} satisfies Record<string, unknown>;
