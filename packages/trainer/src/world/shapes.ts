/**
 * Shapes as signed distance functions: negative inside, positive outside, |d| the distance to the outline.
 *
 * Every shape fits the circle of radius 1 about the origin (x to the right, y downwards). Distances are exact or
 * have slope 1 across the outline, which is all that anti-aliasing asks: at a pixel of width w the coverage is
 * clamp(1/2 - d / w, 0, 1).
 */

/** Signed distance of a point to an outline. */
export type Distance = (x: number, y: number) => number;

export const shapes = [
  'circle',
  'square',
  'triangle',
  'star',
  'heart',
  'ring',
  'cross',
  'diamond',
  'moon',
  'arrow',
] as const;

export type Shape = (typeof shapes)[number];

/** The distance to a disc. */
export function disc(cx: number, cy: number, radius: number): Distance {
  return (x, y) => Math.hypot(x - cx, y - cy) - radius;
}

/** The distance to an axis-aligned box with half-widths (a, b) and rounded corners. */
export function box(cx: number, cy: number, a: number, b: number, corner = 0): Distance {
  return (x, y) => {
    const qx = Math.abs(x - cx) - a + corner;
    const qy = Math.abs(y - cy) - b + corner;
    return Math.hypot(Math.max(qx, 0), Math.max(qy, 0)) + Math.min(Math.max(qx, qy), 0) - corner;
  };
}

/** The distance to an ellipse with half-axes (a, b): the first-order estimate f / |grad f|, exact on the outline. */
export function ellipse(cx: number, cy: number, a: number, b: number): Distance {
  return (x, y) => {
    const u = (x - cx) / a;
    const v = (y - cy) / b;
    const length = Math.hypot(u, v);
    const slope = Math.hypot(u / a, v / b);
    return slope === 0 ? -Math.min(a, b) : (length * (length - 1)) / slope;
  };
}

/**
 * The distance to a closed polygon, corners given as x0, y0, x1, y1, ...: the nearest edge, signed by the
 * even-odd rule.
 */
export function polygon(...corners: readonly number[]): Distance {
  const n = corners.length / 2;
  return (x, y) => {
    let nearest = Number.POSITIVE_INFINITY;
    let inside = false;
    for (let i = 0, j = n - 1; i < n; j = i, i += 1) {
      const xi = corners[2 * i]!;
      const yi = corners[2 * i + 1]!;
      const ex = corners[2 * j]! - xi;
      const ey = corners[2 * j + 1]! - yi;
      const wx = x - xi;
      const wy = y - yi;
      const t = Math.min(1, Math.max(0, (wx * ex + wy * ey) / (ex * ex + ey * ey)));
      nearest = Math.min(nearest, Math.hypot(wx - t * ex, wy - t * ey));
      if (wy < 0 !== wy < ey && wx < (ex * wy) / ey) inside = !inside;
    }
    return inside ? -nearest : nearest;
  };
}

/** The points of either shape. */
export function union(...parts: readonly Distance[]): Distance {
  return (x, y) => parts.reduce((nearest, part) => Math.min(nearest, part(x, y)), Number.POSITIVE_INFINITY);
}

/** The points of `whole` that are not in `hole`. */
export function without(whole: Distance, hole: Distance): Distance {
  return (x, y) => Math.max(whole(x, y), -hole(x, y));
}

function star(points: number, inner: number): Distance {
  const corners: number[] = [];
  for (let i = 0; i < 2 * points; i += 1) {
    const radius = i % 2 === 0 ? 1 : inner;
    const angle = (Math.PI * i) / points;
    corners.push(radius * Math.sin(angle), -radius * Math.cos(angle) + 0.06);
  }
  return polygon(...corners);
}

/** Two lobes and a point: the polygon through the classic heart curve, 28 corners. */
function heart(): Distance {
  const corners: number[] = [];
  for (let i = 0; i < 28; i += 1) {
    const t = (2 * Math.PI * i) / 28;
    const x = 16 * Math.sin(t) ** 3;
    const y = 13 * Math.cos(t) - 5 * Math.cos(2 * t) - 2 * Math.cos(3 * t) - Math.cos(4 * t);
    corners.push(x / 17.2, -(y + 2.5) / 16.2);
  }
  return polygon(...corners);
}

/** The distance function of each named shape. */
export const distanceOf: Readonly<Record<Shape, Distance>> = {
  circle: disc(0, 0, 0.94),
  square: box(0, 0, 0.8, 0.8),
  triangle: polygon(0, -0.92, 0.98, 0.8, -0.98, 0.8),
  star: star(5, 0.45),
  heart: heart(),
  ring: without(disc(0, 0, 0.97), disc(0, 0, 0.5)),
  cross: union(box(0, 0, 0.94, 0.31), box(0, 0, 0.31, 0.94)),
  diamond: polygon(0, -1, 0.82, 0, 0, 1, -0.82, 0),
  moon: without(disc(-0.05, 0, 0.97), disc(0.5, -0.1, 0.76)),
  arrow: polygon(0, -0.98, 0.92, 0.02, 0.36, 0.02, 0.36, 0.95, -0.36, 0.95, -0.36, 0.02, -0.92, 0.02),
};
