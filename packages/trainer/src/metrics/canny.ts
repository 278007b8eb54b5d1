/**
 * Edges by Canny (1986): smooth with a Gaussian, take the gradient, keep its ridges, and of the ridges the weak ones
 * only where a strong one continues them. And how well the edges of two pictures agree.
 */
import type { Plane } from './image.ts';

export interface CannyOptions {
  /** Width of the Gaussian in pixels. */
  readonly sigma?: number;
  /** Gradients (of Sobel's sums, at most 4 sqrt(2) for a plane in [0, 1]) from which a ridge is kept beside a strong one. */
  readonly low?: number;
  /** Gradients from which a ridge is strong. */
  readonly high?: number;
}

/** 1 at the edges of a plane, else 0; never on its border. @throws {RangeError} for a sigma that is not positive */
export function canny(plane: Plane, { sigma = 1, low = 0.1, high = 0.2 }: CannyOptions = {}): Uint8Array {
  if (!(sigma > 0)) throw new RangeError(`canny: expected a sigma above 0; got ${sigma}`);
  const smooth = smoothed(plane, sigma);
  const dx = sobel(smooth, 'x');
  const dy = sobel(smooth, 'y');
  const size = dx.map((value, i) => Math.hypot(value, dy[i]!));
  const { width, height } = plane;
  const ridge = new Uint8Array(size.length);
  for (let y = 1; y < height - 1; y += 1) {
    for (let x = 1; x < width - 1; x += 1) {
      const at = y * width + x;
      if (size[at]! >= low && isRidge(size, width, at, dx[at]!, dy[at]!)) ridge[at] = 1;
    }
  }
  return continued(ridge, width, (at) => size[at]! >= high);
}

/**
 * The plane convolved with a Gaussian cut at four sigmas. Outside the picture there is nothing: a place near the border
 * is the weighted mean of what is inside.
 */
function smoothed({ width, height, data }: Plane, sigma: number): Plane {
  const reach = Math.floor(4 * sigma + 0.5);
  const weights = Array.from({ length: 2 * reach + 1 }, (_, i) =>
    Math.exp(-0.5 * ((i - reach) / sigma) ** 2),
  );
  const along = (from: Float64Array, length: number, stride: number): Float64Array =>
    from.map((_, at) => {
      const position = Math.floor(at / stride) % length;
      let sum = 0;
      let weight = 0;
      for (let k = Math.max(-reach, -position); k <= Math.min(reach, length - 1 - position); k += 1) {
        sum += weights[k + reach]! * from[at + k * stride]!;
        weight += weights[k + reach]!;
      }
      return sum / weight;
    });
  return { width, height, data: along(along(data, height, width), width, 1) };
}

/** Sobel's derivative, [-1 0 1] along the axis and [1 2 1] across it; the border pixel is repeated outside. */
function sobel({ width, height, data }: Plane, axis: 'x' | 'y'): Float64Array {
  const value = (x: number, y: number): number =>
    data[Math.min(height - 1, Math.max(0, y)) * width + Math.min(width - 1, Math.max(0, x))]!;
  return data.map((_, at) => {
    const x = at % width;
    const y = (at - x) / width;
    const step = (k: number): number =>
      axis === 'x' ? value(x + 1, y + k) - value(x - 1, y + k) : value(x + k, y + 1) - value(x + k, y - 1);
    return step(-1) + 2 * step(0) + step(1);
  });
}

/**
 * Whether no gradient is larger one step along the gradient's direction, forth and back. The step ends on the square
 * around the pixel, between two neighbours: its gradient is interpolated between theirs.
 */
function isRidge(size: Float64Array, width: number, at: number, dx: number, dy: number): boolean {
  const [ax, ay] = [Math.abs(dx), Math.abs(dy)];
  if (ax === 0 && ay === 0) return false;
  const [sx, sy] = [dx < 0 ? -1 : 1, (dy < 0 ? -1 : 1) * width];
  const straight = ax > ay ? sx : sy;
  const diagonal = sx + sy;
  const share = ax > ay ? ay / ax : ax / ay;
  const between = (sign: number): number =>
    share * size[at + sign * diagonal]! + (1 - share) * size[at + sign * straight]!;
  return between(1) <= size[at]! && between(-1) <= size[at]!;
}

/** Of the marked pixels, those that touch (8 neighbours), through marked ones, one that is strong. */
function continued(marked: Uint8Array, width: number, isStrong: (at: number) => boolean): Uint8Array {
  const kept = new Uint8Array(marked.length);
  const open: number[] = [];
  const keep = (at: number): void => {
    if (kept[at] || !marked[at]) return;
    kept[at] = 1;
    open.push(at);
  };
  marked.forEach((mark, at) => {
    if (mark && isStrong(at)) keep(at);
  });
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    for (const row of [-width, 0, width]) for (const column of [-1, 0, 1]) keep(at + row + column);
  }
  return kept;
}

/**
 * Agreement of two sets of edges: 2 p r / (p + r), p the share of `found` edges that lie on or beside (8 neighbours) a
 * `wanted` one and r the share of `wanted` edges that a found one lies on or beside. 1 when both are empty, 0 when one is.
 * @throws {RangeError} when the sets are not of one size
 */
export function edgeF1(found: Uint8Array, wanted: Uint8Array, width: number): number {
  if (found.length !== wanted.length) {
    throw new RangeError(`edgeF1: expected two sets of one size; got ${found.length} and ${wanted.length}`);
  }
  const count = (edges: Uint8Array): number => edges.reduce((sum, edge) => sum + edge, 0);
  const near = (edges: Uint8Array, others: Uint8Array): number => {
    let hits = 0;
    edges.forEach((edge, at) => {
      if (edge && touches(others, width, at)) hits += 1;
    });
    return hits;
  };
  const [f, w] = [count(found), count(wanted)];
  if (f === 0 || w === 0) return f === w ? 1 : 0;
  const precision = near(found, wanted) / f;
  const recall = near(wanted, found) / w;
  return precision + recall === 0 ? 0 : (2 * precision * recall) / (precision + recall);
}

function touches(edges: Uint8Array, width: number, at: number): boolean {
  const x = at % width;
  for (let row = -1; row <= 1; row += 1) {
    for (let column = Math.max(-1, -x); column <= Math.min(1, width - 1 - x); column += 1) {
      if (edges[at + row * width + column]) return true;
    }
  }
  return false;
}
