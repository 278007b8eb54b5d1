/** Which of the training timesteps a sampler visits: the three spacings of arXiv 2305.08891, table 2. */
import type { ConfigReader } from '@deftjs/tensor';

/** @throws RangeError unless 1 <= numSteps <= numTrainTimesteps */
export function checkNumSteps(numSteps: number, numTrainTimesteps: number): void {
  if (!Number.isInteger(numSteps) || numSteps < 1 || numSteps > numTrainTimesteps) {
    throw new RangeError(`sampler: expected 1 to ${numTrainTimesteps} steps; got ${numSteps}`);
  }
}

/** To the nearest whole number, halves to the even one: what NumPy's round does. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

export interface Spacing {
  /**
   * Training timesteps from the noisiest one down.
   *   linspace   from T - 1 to 0, both included (fractions)
   *   leading    multiples of T // steps, from 0 (plus an offset)
   *   trailing   T - 1 and down from there by T / steps, never reaching 0
   */
  readonly kind: 'linspace' | 'leading' | 'trailing';
  readonly offset: number;
}

/** The spacing among the fields of a scheduler's config. @throws ConfigError */
export function readSpacing(read: ConfigReader, byDefault: Spacing['kind']): Spacing {
  return {
    kind: read.choice('timestep_spacing', ['linspace', 'leading', 'trailing'], byDefault),
    offset: read.count('steps_offset', 0),
  };
}

/**
 * `numSteps` timesteps, descending.
 * @throws RangeError when there are not that many, or the offset shifts the first one out of the schedule
 */
export function spaceTimesteps(
  { kind, offset }: Spacing,
  numSteps: number,
  numTrainTimesteps: number,
): number[] {
  checkNumSteps(numSteps, numTrainTimesteps);
  const T = numTrainTimesteps;
  if (kind === 'leading' && (numSteps - 1) * Math.floor(T / numSteps) + offset >= T) {
    throw new RangeError(
      `sampler: steps_offset ${offset} leaves the schedule of ${T} timesteps in ${numSteps} steps`,
    );
  }
  const steps = Array.from({ length: numSteps }, (_, i) => i);
  switch (kind) {
    case 'linspace':
      return steps.map((i) => (numSteps === 1 ? 0 : ((T - 1) * (numSteps - 1 - i)) / (numSteps - 1)));
    case 'leading':
      return steps.map((i) => (numSteps - 1 - i) * Math.floor(T / numSteps) + offset);
    case 'trailing':
      return steps.map((i) => roundHalfEven(T - i * (T / numSteps)) - 1);
  }
}
