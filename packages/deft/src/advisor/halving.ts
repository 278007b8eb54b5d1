/**
 * Successive halving: train many candidates a little, go on with the better half, twice as long each time (Karnin, Koren
 * and Somekh 2013; Jamieson and Talwalkar 2016). What a candidate has learnt is kept, so that a rung costs only the steps
 * that it adds:
 *
 *     t_k = min(T, 2^k t_0),  n_k = ceil(n / 2^k),  cost = sum of n_k (t_k - t_(k-1))                         (1)
 */

/** A training that can go on. */
export interface Trial {
  /** Takes as many more steps and returns the score then, smaller is better; NaN counts as the worst. */
  advance(steps: number): Promise<number>;
  /** Frees what it holds; it is not advanced again. */
  end(): void;
}

/** Some candidates, trained until each has taken so many steps. */
export interface Rung {
  readonly candidates: number;
  readonly steps: number;
}

/** The steps that the rungs take together, equation (1). */
export function costOf(rungs: readonly Rung[]): number {
  return rungs.reduce(
    (sum, { candidates, steps }, k) => sum + candidates * (steps - (rungs[k - 1]?.steps ?? 0)),
    0,
  );
}

function doubling(candidates: number, first: number, steps: number): Rung[] {
  const rungs: Rung[] = [];
  for (let k = 0; rungs.at(-1)?.steps !== steps; k += 1)
    rungs.push({ candidates: Math.ceil(candidates / 2 ** k), steps: Math.min(steps, first * 2 ** k) });
  return rungs;
}

/**
 * The rungs that bring the last candidates to `steps` steps, with the longest first rung that the budget allows.
 * @throws RangeError when even a first rung of one step costs more
 */
export function rungsWithin(budget: number, candidates: number, steps: number): Rung[] {
  for (let first = steps; first >= 1; first -= 1) {
    const rungs = doubling(candidates, first, steps);
    if (costOf(rungs) <= budget) return rungs;
  }
  const least = costOf(doubling(candidates, 1, steps));
  throw new RangeError(
    `rungsWithin: ${candidates} candidates of ${steps} steps need ${least} at least; got a budget of ${budget}`,
  );
}

/** How far a candidate came. */
export interface Outcome<C> {
  readonly candidate: C;
  readonly steps: number;
  readonly score: number;
}

/**
 * Trains the candidates rung by rung. Returns all of them, best first: those that came furthest before the others, and
 * among these the smaller score first.
 * @throws what a trial throws, after ending them all
 */
export async function halve<C>(
  candidates: readonly C[],
  rungs: readonly Rung[],
  start: (candidate: C) => Promise<Trial>,
): Promise<Outcome<C>[]> {
  let running: { readonly candidate: C; readonly trial: Trial; score: number }[] = [];
  const done: Outcome<C>[] = [];
  try {
    for (const candidate of candidates)
      running.push({ candidate, trial: await start(candidate), score: Number.NaN });
    let taken = 0;
    for (const { candidates: kept, steps } of rungs) {
      for (const { candidate, trial, score } of running.splice(kept).reverse()) {
        done.unshift({ candidate, steps: taken, score });
        trial.end();
      }
      for (const one of running) one.score = await one.trial.advance(steps - taken);
      running = running.sort((a, b) => comparable(a.score) - comparable(b.score) || 0);
      taken = steps;
    }
    return [...running.map(({ candidate, score }) => ({ candidate, steps: taken, score })), ...done];
  } finally {
    for (const { trial } of running) trial.end();
  }
}

function comparable(score: number): number {
  return Number.isNaN(score) ? Number.POSITIVE_INFINITY : score;
}
