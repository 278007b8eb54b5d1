/** Comparisons of computed with recorded values. */
import { type Device, evaluate, read, type Tensor } from '@deftjs/tensor';

/** One compared quantity. */
export interface Check {
  /** What was compared: `out`, `grad/conv_in.weight`. */
  readonly quantity: string;
  /** max |a - b| / max |b|, or max |a - b| where that is the measure; Infinity where there is nothing to compare. */
  readonly error: number;
  readonly bound: number;
  readonly ok: boolean;
  /** Why there is nothing to compare. */
  readonly problem?: string;
}

/** How far float32 computations of one result may lie apart (relative): golden/README.md. */
export const outputBound = 1e-4;
/** The same after some steps of training, which amplify what rounding does. */
export const trajectoryBound = 1e-3;

/** A quantity that could not be compared, and why. */
export function failed(quantity: string, problem: string): Check {
  return { quantity, error: Number.POSITIVE_INFINITY, bound: 0, ok: false, problem };
}

/**
 * A check of numbers against recorded ones.
 * @param relativeTo what the error is divided by. Default: the largest recorded number
 */
export function compare(
  quantity: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  bound: number,
  { absolute = false, relativeTo }: { readonly absolute?: boolean; readonly relativeTo?: number } = {},
): Check {
  if (actual.length !== expected.length) {
    return failed(quantity, `expected ${expected.length} numbers; got ${actual.length}`);
  }
  let [difference, size] = [0, 0];
  for (let i = 0; i < expected.length; i += 1) {
    const distance = Math.abs(actual[i]! - expected[i]!);
    difference = Math.max(difference, Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance);
    size = Math.max(size, Math.abs(expected[i]!));
  }
  const error = absolute || difference === 0 ? difference : difference / (relativeTo ?? size);
  return { quantity, error, bound, ok: error <= bound };
}

/** Checks of tensors, all computed together by the device, against the recorded ones of the same names. */
export async function compareAll(
  computed: Readonly<Record<string, Tensor>>,
  recorded: Readonly<Record<string, Tensor>>,
  bound: number,
  device: Device,
  options: { readonly relativeTo?: number } = {},
): Promise<Check[]> {
  const names = Object.keys(recorded).filter((name) => name in computed);
  await evaluate(
    names.map((name) => computed[name]!),
    device,
  );
  const checks: Check[] = [];
  for (const [name, expected] of Object.entries(recorded)) {
    const actual = computed[name];
    checks.push(
      actual === undefined
        ? failed(name, 'recorded, but not computed')
        : compare(name, await read(actual, device), await read(expected, device), bound, options),
    );
  }
  return checks;
}
