/** Learning rates as pure functions of the step, counted from 0. */

/** The learning rate of a step. */
export type Schedule = (step: number) => number;

function progress(step: number, steps: number): number {
  return Math.min(1, Math.max(0, step / steps));
}

/** The same rate at every step. */
export function constant(rate: number): Schedule {
  return () => rate;
}

/** From `start` at step 0 in a straight line to `end` at step `steps`, and `end` from then on. */
export function linear(start: number, steps: number, end = 0): Schedule {
  return polynomial(start, steps, 1, end);
}

/** From `peak` at step 0 along half a cosine wave to `end` at step `steps`, and `end` from then on. */
export function cosine(peak: number, steps: number, end = 0): Schedule {
  return (step) => end + ((peak - end) * (1 + Math.cos(Math.PI * progress(step, steps)))) / 2;
}

/** end + (start - end) (1 - step / steps)^power, and `end` from step `steps` on. */
export function polynomial(start: number, steps: number, power: number, end = 0): Schedule {
  return (step) => end + (start - end) * (1 - progress(step, steps)) ** power;
}

/** The schedule times (step + 1) / steps during the first `steps` steps, so that no step has rate 0. */
export function warmup(schedule: Schedule, steps: number): Schedule {
  return (step) => schedule(step) * (step < steps ? (step + 1) / steps : 1);
}
