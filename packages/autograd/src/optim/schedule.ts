/** Learning rates as pure functions of the step, counted from 0. */
export type Schedule = (step: number) => number;

/** Always the same. */
export function constant(rate: number): Schedule {
  return () => rate;
}

/** A straight line from `rate` at step 0 to `last` at `steps` and after. */
export function linear(rate: number, steps: number, last = 0): Schedule {
  return (step) => rate + (last - rate) * Math.min(1, step / steps);
}

/** Half a cosine from `rate` at step 0 to `last` at `steps` and after. */
export function cosine(rate: number, steps: number, last = 0): Schedule {
  return (step) => last + ((rate - last) * (1 + Math.cos(Math.PI * Math.min(1, step / steps)))) / 2;
}

/** (1 - step / steps)^power between `rate` and `last`. */
export function polynomial(rate: number, steps: number, power: number, last = 0): Schedule {
  return (step) => last + (rate - last) * (1 - Math.min(1, step / steps)) ** power;
}

/** A straight climb from 0 over the first `steps` steps, multiplied onto the schedule that runs underneath. */
export function warmup(schedule: Schedule, steps: number): Schedule {
  return (step) => schedule(step) * Math.min(1, (step + 1) / Math.max(1, steps));
}
