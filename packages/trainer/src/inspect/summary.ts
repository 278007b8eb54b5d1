import { SafetensorsError, type TensorSource } from '@deftjs/models';
import { asFloat32 } from '@deftjs/tensor';

export interface TensorSummary {
  readonly name: string;
  /** The file's own word for it. */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
  /** The Euclidean norm of the finite values; null where they cannot be read, such as 8-bit floats. */
  readonly norm: number | null;
  /** Values that are NaN or infinite. */
  readonly notFinite: number;
}

/** Reads one tensor and sums it up. @throws SafetensorsError when the file is damaged */
export async function summarize(source: TensorSource, name: string): Promise<TensorSummary> {
  const { dtype, shape, start, end } = source.info(name);
  return { name, dtype, shape, bytes: end - start, ...(await measure(source, name)) };
}

/** Types that the format has and we do not read. */
const unreadable = /^(F8_|C64$)/;

async function measure(
  source: TensorSource,
  name: string,
): Promise<Pick<TensorSummary, 'norm' | 'notFinite'>> {
  if (unreadable.test(source.info(name).dtype)) return { norm: null, notFinite: 0 };
  const read = await source.read(name).catch((error: unknown) => {
    // Whole numbers beyond 32 bits have no norm here; everything else is wrong with the file.
    if (error instanceof SafetensorsError && error.problem.includes('does not fit 32 bits')) return null;
    throw error;
  });
  if (read === null) return { norm: null, notFinite: 0 };
  const values = read.dtype === 'f16' ? asFloat32(read) : read.data;
  let [squares, notFinite] = [0, 0];
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i]!;
    if (Number.isFinite(value)) squares += value * value;
    else notFinite += 1;
  }
  return { norm: Math.sqrt(squares), notFinite };
}
