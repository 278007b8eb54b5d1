/** Random small graphs: instructions that apply ops to what earlier instructions made, skipped where they do not fit. */
import * as T from '@deftjs/tensor';
import fc from 'fast-check';
import type { Graph } from '../../../packages/tensor/src/device.ts';
import { formatShape } from '../../../packages/tensor/src/errors.ts';
import { numel } from '../../../packages/tensor/src/shape.ts';
import { graphOf } from './execute.ts';

type Tensor = T.Tensor;

/** Draws numbers for one instruction: each is in [0, bound). */
type Draw = (bound: number) => number;

const maxSize = 600;

function axisOf(x: Tensor, draw: Draw): number | null {
  return x.rank === 0 ? null : draw(x.rank);
}

function someAxes(x: Tensor, draw: Draw): number[] {
  return x.shape.map((_, axis) => axis).filter(() => draw(2) === 1);
}

function permutation(rank: number, draw: Draw): number[] {
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  for (let i = rank - 1; i > 0; i -= 1) {
    const j = draw(i + 1);
    [axes[i], axes[j]] = [axes[j]!, axes[i]!];
  }
  return axes;
}

function factors(size: number, draw: Draw): number[] {
  const shape: number[] = [];
  let rest = size;
  for (let i = 0; i < 4 && rest > 1; i += 1) {
    const divisors = [1, 2, 3, 4, 5, 6].filter((divisor) => rest % divisor === 0);
    const factor = divisors[draw(divisors.length)]!;
    shape.push(factor);
    rest /= factor;
  }
  return [...shape, rest];
}

/** An index into `extent` places, sometimes outside, of one or two axes. */
function indexInto(extent: number, draw: Draw): Tensor {
  const shape = draw(2) === 0 ? [1 + draw(4)] : [1 + draw(2), 1 + draw(3)];
  const values = Int32Array.from({ length: numel(shape) }, () => draw(extent + 2) - 1);
  return T.tensor(values, shape);
}

/** Small floats with few digits: sums of them are exact, so that comparisons do not depend on the order. */
function leaf(shape: readonly number[], draw: Draw): Tensor {
  return T.tensor(
    Float32Array.from({ length: numel(shape) }, () => (draw(33) - 16) / 8),
    shape,
  );
}

/** Axes split, moved, multiplied, moved back and merged, as attention does with its heads. */
function heads(x: Tensor, draw: Draw): Tensor {
  const rows = [...factors(x.size, draw), 1, 1, 1].slice(0, 3);
  const split = T.reshape(x, [...rows, x.size / numel(rows)]);
  const moved = T.permute(split, [0, 2, 1, 3]);
  const scaled = draw(2) === 0 ? moved : T.mul(moved, 0.5);
  const product = draw(2) === 0 ? T.matmul(scaled, T.transpose(scaled)) : scaled;
  const back = T.permute(product, draw(3) === 0 ? [0, 1, 2, 3] : [0, 2, 1, 3]);
  const merged = T.reshape(back, [back.shape[0]! * back.shape[1]!, back.shape[2]! * back.shape[3]!]);
  const projected = T.linear(merged, leaf([1 + draw(3), merged.shape[1]!], draw));
  return draw(2) === 0 ? projected : T.transpose(T.tanh(projected));
}

const unary = [T.neg, T.abs, T.tanh, T.silu, T.square, T.relu, (x: Tensor) => T.exp(T.minimum(x, 2))];
const binary = [
  T.add,
  T.sub,
  T.mul,
  T.maximum,
  T.minimum,
  (a: Tensor, b: Tensor) => T.div(a, T.add(T.abs(b), 1)),
];

// biome-ignore format: one line for each instruction
const instructions: readonly ((x: Tensor, y: Tensor, draw: Draw) => Tensor | null)[] = [
  (x, _y, draw) => unary[draw(unary.length)]!(x),
  (x, _y, draw) => unary[draw(unary.length)]!(x),
  (x, y, draw) => binary[draw(binary.length)]!(x, y),
  (x, y, draw) => binary[draw(binary.length)]!(x, y),
  (x, y, draw) => binary[draw(binary.length)]!(x, y),
  (x, _y, draw) => [T.add, T.sub, T.mul, T.maximum][draw(4)]!(x, [0, 1, -1, 0.5, 2, -0][draw(6)]!),
  (x, y) => T.where(T.less(x, y), x, T.mul(y, 2)),
  (x, y) => T.cast(T.lessEqual(x, y), 'f32'),
  (x, _y, draw) => T.mul(x, T.iota(x.shape.length === 0 ? [1] : x.shape, draw(Math.max(1, x.rank)), 'f32')),
  (x, _y, draw) => T.sum(x, someAxes(x, draw), draw(2) === 1),
  (x, _y, draw) => T.sum(x, someAxes(x, draw)),
  (x, _y, draw) => T.max(x, someAxes(x, draw), draw(2) === 1),
  (x, _y, draw) => T.mean(x, someAxes(x, draw), true),
  (x) => (x.rank === 0 ? null : T.softmax(x)),
  (x, _y, draw) => T.reshape(x, factors(x.size, draw)),
  (x, _y, draw) => T.permute(x, permutation(x.rank, draw)),
  (x, _y, draw) => T.expand(x, [1 + draw(3), ...x.shape.map((extent) => (extent === 1 ? 1 + draw(4) : extent))]),
  (x, _y, draw) => T.flip(x, someAxes(x, draw)),
  (x, _y, draw) => {
    const starts = x.shape.map((extent) => draw(extent));
    const stops = x.shape.map((extent, axis) => starts[axis]! + 1 + draw(extent - starts[axis]!));
    return T.slice(x, starts, stops, x.shape.map(() => 1 + draw(2)));
  },
  (x, _y, draw) => T.pad(x, x.shape.map(() => [draw(3), draw(2)])),
  (x, y, draw) => {
    const axis = axisOf(x, draw);
    const fits = x.rank === y.rank && x.shape.every((extent, i) => i === axis || extent === y.shape[i]);
    return axis === null ? null : T.concat(fits ? [x, y, T.neg(x)] : [x, T.exp(T.minimum(x, 1))], axis);
  },
  (x, _y, draw) => {
    const axis = axisOf(x, draw);
    // A position outside gives NaN, which would hide everything computed from it.
    const index = axis === null ? null : T.clamp(indexInto(x.shape[axis]!, draw), 0, x.shape[axis]! - 1);
    return axis === null ? null : T.gather(x, index!, axis);
  },
  (x, _y, draw) => {
    const axis = axisOf(x, draw);
    if (axis === null) return null;
    const index = Int32Array.from({ length: x.shape[axis]! }, () => draw(5) - 1);
    return T.scatterAdd(x, T.tensor(index), 3, axis);
  },
  (x, y, draw) => {
    if (x.rank < 2 || y.rank < 2) return null;
    const [k, n] = [x.shape.at(-1)!, 1 + draw(4)];
    return y.shape.at(-2) === k && x.rank === 2 ? T.matmul(x, y) : T.matmul(x, leaf([k, n], draw));
  },
  (x, _y, draw) => {
    const shape = x.rank === 4 ? x.shape : [1, 1, ...factors(x.size, () => 0).slice(-1), 1];
    const image = T.reshape(x, [shape[0]!, shape[1]!, shape[2]!, numel(shape.slice(3))]);
    const weight = leaf([1 + draw(3), image.shape[1]!, 1 + draw(3), 1 + draw(2)], draw);
    return T.conv2d(image, weight, null, { padding: 2, stride: 1 + draw(2) });
  },
  (x, _y, draw) => T.linear(T.reshape(x, [x.size / (x.shape.at(-1) ?? 1), x.shape.at(-1) ?? 1]), leaf([2 + draw(2), x.shape.at(-1) ?? 1], draw)),
  (x, _y, draw) => heads(x, draw),
  (x, _y, draw) => heads(x, draw),
  (x, _y, draw) => {
    if (x.rank < 2) return null;
    const other = leaf(x.shape, draw);
    const product = draw(2) === 0 ? T.matmul(x, T.transpose(other)) : T.matmul(T.transpose(x), other);
    return draw(2) === 0 ? product : T.transpose(product);
  },
];

export interface RandomProgram {
  readonly graph: Graph;
  readonly text: string;
}

/** Graphs of up to `length` instructions with one to four outputs, some of them donated to. */
export function programs(length: number): fc.Arbitrary<RandomProgram> {
  const step = fc.record({ code: fc.nat(), x: fc.nat(), y: fc.nat(), seed: fc.nat() });
  return fc
    .record({
      shapes: fc.array(fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 3 }), {
        minLength: 1,
        maxLength: 3,
      }),
      steps: fc.array(step, { minLength: 1, maxLength: length }),
      outputs: fc.array(fc.nat(), { minLength: 1, maxLength: 4 }),
      donate: fc.boolean(),
      seed: fc.nat(),
    })
    .map(({ shapes, steps, outputs, donate, seed }) => {
      const leaves = shapes.map((shape, i) => leaf(shape, drawer(seed + i)));
      const pool = [...leaves];
      for (const { code, x, y, seed: own } of steps) {
        // Mostly what was made last: long chains find more than wide graphs.
        const pick = (at: number): Tensor => pool[Math.max(0, pool.length - 1 - (at % 4))]!;
        const made = attempt(() => instructions[code % instructions.length]!(pick(x), pick(y), drawer(own)));
        if (made && made.size <= maxSize && made.rank <= 6) pool.push(made);
      }
      const chosen = outputs.map((at) => pool[Math.max(0, pool.length - 1 - (at % 6))]!);
      const graph = graphOf(chosen);
      return { graph: donate ? withDonations(graph) : graph, text: describe(graph) };
    });
}

/** Every output takes over an input of its shape while there is one. */
function withDonations(graph: Graph): Graph {
  const donations = new Map<number, number>();
  const free = new Set(graph.inputs.keys());
  graph.outputs.forEach((output, o) => {
    for (const i of free) {
      const input = graph.inputs[i]!;
      if (input.dtype !== output.dtype || formatShape(input.shape) !== formatShape(output.shape)) continue;
      donations.set(o, i);
      free.delete(i);
      return;
    }
  });
  return { ...graph, donations };
}

function attempt(make: () => Tensor | null): Tensor | null {
  try {
    return make();
  } catch (error) {
    if (error instanceof T.ShapeError || error instanceof T.DTypeError) return null;
    throw error;
  }
}

/** A small generator of numbers (mulberry32), so that one seed stands for a whole instruction. */
function drawer(seed: number): Draw {
  let state = seed | 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % bound;
  };
}

/** One line for each node, for failures. */
export function describe({ inputs, outputs }: Graph): string {
  const ids = new Map<Tensor, number>();
  const lines: string[] = [];
  const visit = (x: Tensor): number => {
    const known = ids.get(x);
    if (known !== undefined) return known;
    const { source } = x;
    const text =
      source.kind === 'applied'
        ? `${source.op.name}(${source.inputs.map(visit).join(', ')}) ${JSON.stringify(source.attrs)}`
        : source.kind;
    ids.set(x, ids.size);
    lines.push(`${ids.get(x)}: ${formatShape(x.shape)} ${text}`);
    return ids.get(x)!;
  };
  inputs.forEach(visit);
  const last = `outputs ${outputs.map(visit).join(', ')}`;
  return [...lines, last].join('\n');
}
