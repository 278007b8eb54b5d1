/**
 * Resolves when signals, timers and other events that wait have been handled.
 *
 * A device that computes on this thread leaves only promises between its steps, and those never let events in: without
 * this in a loop, Ctrl-C is heard when the loop ends, and a progress bar stands still.
 */
export function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => {
    // Browsers have no setImmediate; a timer of 0 costs a few milliseconds there once loops are nested.
    if (typeof setImmediate === 'function') setImmediate(resolve);
    else setTimeout(resolve, 0);
  });
}
