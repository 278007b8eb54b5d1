/** Signs of life of a job, for the process that supervises it. */

/** What a job is about to do, until it says something else: a step, which is always about as long, or anything else. */
export type Beat = 'step' | 'other';

/** Says that the job goes on, and with what; nobody may listen. */
export function beat(what: Beat): void {
  if (process.connected) process.send?.(what);
}
