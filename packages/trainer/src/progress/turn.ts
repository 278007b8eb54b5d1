/**
 * Resolves when signals, timers and other events that wait have been handled.
 *
 * A backend that computes on this thread leaves only promises between its steps, and those never let events in: without
 * this in a loop, Ctrl-C is heard when the loop ends, and a progress bar stands still.
 */
export function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
