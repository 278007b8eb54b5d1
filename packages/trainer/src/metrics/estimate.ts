/** A mean with its uncertainty. */
export interface Estimate {
  readonly mean: number;
  /** Of the mean; null with fewer than two values. */
  readonly standardError: number | null;
  /** How many independent values it rests on. */
  readonly number: number;
}

/** The mean of the values and s / sqrt(n), s with n - 1. @throws {RangeError} when there are none */
export function estimate(values: readonly number[]): Estimate {
  const number = values.length;
  if (number === 0) throw new RangeError('estimate: expected at least one value; got none');
  const mean = values.reduce((sum, value) => sum + value, 0) / number;
  if (number === 1) return { mean, standardError: null, number };
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, standardError: Math.sqrt(squares / (number - 1) / number), number };
}

/** The estimate as "0.87 ± 0.02". */
export function formatEstimate({ mean, standardError }: Estimate): string {
  return standardError === null ? mean.toFixed(2) : `${mean.toFixed(2)} ± ${standardError.toFixed(2)}`;
}

/** The middle value; of an even number, the upper one of the two in the middle. */
export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}
