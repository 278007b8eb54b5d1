/**
 * SVDiff of weights with one axis, such as the scales of norms and biases (Han et al. 2023, arXiv 2303.11305, section
 * 3.2): as a matrix of one column a weight w has one singular value, its length.
 *
 *     w = u s,  s = |w|,   w(d) = u relu(s + c d)              d a number, 0 at the start                     (1)
 *
 * No layer computes anything in its place: the weights themselves are a function of the shifts, which `withState` shows to
 * a module, beside the adapters that `svdiff` puts on matrices. Trained: a number for each weight.
 */
import { type Module, namedParameters, type PathTest } from '@deftjs/autograd/nn';
import {
  add,
  cast,
  type Device,
  type DType,
  mul,
  read,
  relu,
  type Tensor,
  tensor,
  zeros,
} from '@deftjs/tensor';

/** Shifts by the path of the weight, each f32 []. */
export type Shifts = Readonly<Record<string, Tensor>>;

export interface VectorShifts {
  /** Shifts that leave every weight as it is. */
  readonly initial: Shifts;
  /** The weights of (1), by path and in their types: a graph. Those of no shift are left out. */
  weights(shifts: Shifts): Record<string, Tensor>;
}

/**
 * The shifts of all weights with one axis whose paths are meant. The module is left as it is: its parameters are not
 * trained unless something else trains them.
 * @param scale c of (1); the authors train these at a thousandth of the rate of matrices
 * @throws Error when no weight with one axis is meant, RangeError unless the scale is positive
 */
export async function vectorShifts(
  module: Module,
  which: PathTest,
  { scale = 1, device }: { readonly scale?: number; readonly device?: Device } = {},
): Promise<VectorShifts> {
  if (!(scale > 0 && Number.isFinite(scale))) {
    throw new RangeError(`vectorShifts: scale must be a positive number; got ${scale}`);
  }
  const vectors = [...namedParameters(module, which)].filter(([, { shape }]) => shape.length === 1);
  if (vectors.length === 0)
    throw new Error('vectorShifts: no parameter with one axis has a path that is meant');
  const parts = new Map<
    string,
    { readonly direction: Tensor; readonly length: number; readonly dtype: DType }
  >();
  for (const [path, { value }] of vectors) {
    const w = Float64Array.from(await read(value, device));
    const length = Math.hypot(...w);
    // Of a weight that is zero any direction will do, as in an SVD: the first.
    const direction = length === 0 ? w.map((_, i) => Number(i === 0)) : w.map((x) => x / length);
    parts.set(path, { direction: tensor(Float32Array.from(direction)), length, dtype: value.dtype });
  }
  return {
    initial: Object.fromEntries([...parts.keys()].map((path) => [path, zeros([])])),
    weights: (shifts) =>
      Object.fromEntries(
        Object.entries(shifts).map(([path, d]) => {
          const part = parts.get(path);
          if (!part) throw new Error(`vectorShifts: there is no weight "${path}" to shift`);
          const moved = relu(add(mul(d, scale), part.length));
          return [path, cast(mul(part.direction, moved), part.dtype)];
        }),
      ),
  };
}
